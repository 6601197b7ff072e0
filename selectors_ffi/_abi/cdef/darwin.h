/* macOS.
 *
 * https://github.com/apple-oss-distributions/xnu/blob/1b191cb58250d0705d8a51287127505aa4bc0789/bsd/sys/event.h
 * https://github.com/apple-oss-distributions/xnu/blob/1b191cb58250d0705d8a51287127505aa4bc0789/bsd/sys/poll.h
 * https://github.com/apple-oss-distributions/xnu/blob/1b191cb58250d0705d8a51287127505aa4bc0789/libsyscall/wrappers/select-base.c
 * https://keith.github.io/xcode-man-pages/kqueue.2.html
 * https://keith.github.io/xcode-man-pages/select.2.html
 *
 *              sizeof
 *   timeval        16   tv_usec is an int
 *   timespec       16
 *   pollfd          8
 *   kevent         32   #pragma pack(4) in the header: aligned to 4 there, to 8
 *                       here, every offset the same
 */

/* sys/_types/_timeval.h */
struct timeval {
    long tv_sec;        /* seconds */
    int tv_usec;        /* microseconds */
};

/* sys/_types/_timespec.h */
struct timespec {
    long tv_sec;        /* seconds */
    long tv_nsec;       /* nanoseconds */
};

/* sys/poll.h */
#define POLLIN     0x0001
#define POLLPRI    0x0002
#define POLLOUT    0x0004
#define POLLRDNORM 0x0040
#define POLLWRNORM 0x0004   /* == POLLOUT */
#define POLLRDBAND 0x0080
#define POLLWRBAND 0x0100
#define POLLERR    0x0008
#define POLLHUP    0x0010
#define POLLNVAL   0x0020

typedef unsigned int nfds_t;

struct pollfd {
    int fd;
    short events;
    short revents;
};

/* timeout: milliseconds, -1 waits for ever */
int poll(struct pollfd *fds, nfds_t nfds, int timeout);

/* sys/select.h
 * The sets are fd_set * in the header. void, because we pass bitmaps of our own,
 * as long as the highest descriptor needs; fd_set ends at FD_SETSIZE.
 * timeout: NULL waits for ever.
 * $DARWIN_EXTSN is the only variant that takes nfds > FD_SETSIZE; on x86_64 the
 * plain name is the one of before UNIX conformance, which rounds a short timeout
 * up to 10 ms. */
#define FD_SETSIZE 1024

/* The word of a set: __int32_t, __fd_mask in the headers. Unsigned here, as we set its bits. */
typedef uint32_t fd_mask;

int select$DARWIN_EXTSN(int nfds, void *readfds, void *writefds, void *exceptfds, struct timeval *timeout);
int select$1050(int nfds, void *readfds, void *writefds, void *exceptfds, struct timeval *timeout);
int select(int nfds, void *readfds, void *writefds, void *exceptfds, struct timeval *timeout);

/* sys/event.h */
#define EVFILT_READ     -1
#define EVFILT_WRITE    -2
#define EVFILT_AIO      -3
#define EVFILT_VNODE    -4
#define EVFILT_PROC     -5
#define EVFILT_SIGNAL   -6
#define EVFILT_TIMER    -7
#define EVFILT_MACHPORT -8
#define EVFILT_FS       -9
#define EVFILT_USER     -10
#define EVFILT_VM       -12
#define EVFILT_EXCEPT   -15

struct kevent {
    uintptr_t ident;
    int16_t filter;
    uint16_t flags;
    uint32_t fflags;
    intptr_t data;
    uintptr_t udata;    /* void * in the header; we keep a number in it */
};

#define EV_ADD            0x0001
#define EV_DELETE         0x0002
#define EV_ENABLE         0x0004
#define EV_DISABLE        0x0008
#define EV_ONESHOT        0x0010
#define EV_CLEAR          0x0020
#define EV_RECEIPT        0x0040
#define EV_DISPATCH       0x0080
#define EV_UDATA_SPECIFIC 0x0100
#define EV_VANISHED       0x0200
#define EV_FLAG0          0x1000
#define EV_FLAG1          0x2000
#define EV_EOF            0x8000
#define EV_ERROR          0x4000

#define NOTE_TRIGGER 0x01000000
#define NOTE_FFNOP   0x00000000
#define NOTE_FFAND   0x40000000
#define NOTE_FFOR    0x80000000
#define NOTE_FFCOPY  0xc0000000
#define NOTE_LOWAT   0x00000001
#define NOTE_OOB     0x00000002
#define NOTE_DELETE  0x00000001
#define NOTE_WRITE   0x00000002
#define NOTE_EXTEND  0x00000004
#define NOTE_ATTRIB  0x00000008
#define NOTE_LINK    0x00000010
#define NOTE_RENAME  0x00000020
#define NOTE_REVOKE  0x00000040
#define NOTE_EXIT    0x80000000
#define NOTE_FORK    0x40000000
#define NOTE_EXEC    0x20000000
#define NOTE_SIGNAL  0x08000000
#define NOTE_EXITSTATUS 0x04000000
#define NOTE_SECONDS  0x00000001
#define NOTE_USECONDS 0x00000002
#define NOTE_NSECONDS 0x00000004
#define NOTE_ABSOLUTE 0x00000008
#define NOTE_TRACK    0x00000001
#define NOTE_TRACKERR 0x00000002
#define NOTE_CHILD    0x00000004

int kqueue(void);

/* timeout: NULL waits for ever */
int kevent(int kq, const struct kevent *changelist, int nchanges,
           struct kevent *eventlist, int nevents, const struct timespec *timeout);

/* unistd.h */
int close(int fd);
