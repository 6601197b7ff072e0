/* libkqueue: kqueue in user space, over epoll, in a library of its own
 * (libkqueue.so.0). Never to be mixed with a kqueue of the system.
 *
 * https://github.com/mheily/libkqueue/blob/51a3cdd8c271e7639369a782d7d67e4a36a05d65/include/sys/event.h.in
 * https://github.com/mheily/libkqueue/blob/51a3cdd8c271e7639369a782d7d67e4a36a05d65/kqueue.2
 *
 *              LP64   32-bit
 *   timespec     16        8
 *   kevent       32       20
 */

/* time.h of the system that it was built on */
struct timespec {
    long tv_sec;        /* seconds */
    long tv_nsec;       /* nanoseconds */
};

/* sys/event.h */
#define EVFILT_READ   -1
#define EVFILT_WRITE  -2
#define EVFILT_AIO    -3
#define EVFILT_VNODE  -4
#define EVFILT_PROC   -5
#define EVFILT_SIGNAL -6
#define EVFILT_TIMER  -7
#define EVFILT_NETDEV -8
#define EVFILT_FS     -9
#define EVFILT_LIO    -10
#define EVFILT_USER   -11
#define EVFILT_LIBKQUEUE -12

struct kevent {
    uintptr_t ident;
    short filter;
    unsigned short flags;
    unsigned int fflags;
    intptr_t data;
    uintptr_t udata;    /* void * in the header; we keep a number in it */
};

#define EV_ADD      0x0001
#define EV_DELETE   0x0002
#define EV_ENABLE   0x0004
#define EV_DISABLE  0x0008
#define EV_ONESHOT  0x0010
#define EV_CLEAR    0x0020
#define EV_RECEIPT  0x0040
#define EV_DISPATCH 0x0080
#define EV_FLAG1    0x2000
#define EV_EOF      0x8000
#define EV_ERROR    0x4000

#define NOTE_FFNOP    0x00000000
#define NOTE_FFAND    0x40000000
#define NOTE_FFOR     0x80000000
#define NOTE_FFCOPY   0xc0000000
#define NOTE_TRIGGER  0x01000000
#define NOTE_LOWAT    0x00000001
#define NOTE_DELETE   0x00000001
#define NOTE_WRITE    0x00000002
#define NOTE_EXTEND   0x00000004
#define NOTE_ATTRIB   0x00000008
#define NOTE_LINK     0x00000010
#define NOTE_RENAME   0x00000020
#define NOTE_TRUNCATE 0x00000080
#define NOTE_EXIT     0x80000000
#define NOTE_FORK     0x40000000
#define NOTE_EXEC     0x20000000
#define NOTE_TRACK    0x00000001
#define NOTE_TRACKERR 0x00000002
#define NOTE_CHILD    0x00000004
#define NOTE_SECONDS  0x00000001
#define NOTE_USECONDS 0x00000002
#define NOTE_NSECONDS 0x00000004
#define NOTE_ABSOLUTE 0x00000008

int kqueue(void);

/* timeout: NULL waits for ever. A descriptor that is no kqueue crashes it. */
int kevent(int kq, const struct kevent *changelist, int nchanges,
           struct kevent *eventlist, int nevents, const struct timespec *timeout);

/* unistd.h, found through the library's own dependency on libc */
int close(int fd);
