/* NetBSD 6 and later: everything but struct kevent, which grew in NetBSD 11.
 * select and kevent are renamed in the headers (__RENAME). The plain names are
 * still in libc and take the 32-bit time of before NetBSD 6: they are left out,
 * so that nobody can call them by mistake.
 *
 * https://github.com/NetBSD/src/blob/002a03071eb06b04c96a1fcad4757d67ef5c932e/sys/sys/event.h
 * https://github.com/NetBSD/src/blob/netbsd-10/sys/sys/select.h
 * https://github.com/NetBSD/src/blob/netbsd-10/sys/sys/poll.h
 * https://man.netbsd.org/kqueue.2
 * https://man.netbsd.org/poll.2
 * https://man.netbsd.org/select.2
 *
 *              LP64   i386   other 32-bit
 *   timeval      16     12             16   tv_usec is an int
 *   timespec     16     12             16
 *   pollfd        8      8              8
 */

/* sys/time.h */
struct timeval {
    int64_t tv_sec;     /* seconds */
    int tv_usec;        /* microseconds */
};

/* sys/timespec.h */
struct timespec {
    int64_t tv_sec;     /* seconds */
    long tv_nsec;       /* nanoseconds */
};

/* sys/poll.h */
typedef unsigned int nfds_t;

struct pollfd {
    int fd;
    short events;
    short revents;
};

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

/* timeout: milliseconds, -1 waits for ever */
int poll(struct pollfd *fds, nfds_t nfds, int timeout);

/* NetBSD 10; not renamed, and with the struct timespec above.
 * timeout: NULL waits for ever. sigmask: sigset_t *, always NULL here. */
int ppoll(struct pollfd *fds, nfds_t nfds, const struct timespec *timeout, const void *sigmask);

/* sys/select.h
 * The sets are fd_set * in the header. void, because we pass bitmaps of our own,
 * as long as the highest descriptor needs; fd_set ends at FD_SETSIZE.
 * timeout: NULL waits for ever. */
#define FD_SETSIZE 256

/* The word of a set: __int32_t, __fd_mask in the headers. Unsigned here, as we set its bits. */
typedef uint32_t fd_mask;

int __select50(int nfds, void *readfds, void *writefds, void *exceptfds, struct timeval *timeout);

/* sys/event.h */
#define EVFILT_READ   0   /* not -1: a zeroed struct kevent is a valid READ filter */
#define EVFILT_WRITE  1
#define EVFILT_AIO    2
#define EVFILT_VNODE  3
#define EVFILT_PROC   4
#define EVFILT_SIGNAL 5
#define EVFILT_TIMER  6
#define EVFILT_FS     7
#define EVFILT_USER   8   /* NetBSD 10 */
#define EVFILT_EMPTY  9   /* NetBSD 11 */

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

#define NOTE_FFNOP   0x00000000
#define NOTE_FFAND   0x40000000
#define NOTE_FFOR    0x80000000
#define NOTE_FFCOPY  0xc0000000
#define NOTE_TRIGGER 0x01000000
#define NOTE_LOWAT   0x00000001
#define NOTE_DELETE  0x00000001
#define NOTE_WRITE   0x00000002
#define NOTE_EXTEND  0x00000004
#define NOTE_ATTRIB  0x00000008
#define NOTE_LINK    0x00000010
#define NOTE_RENAME  0x00000020
#define NOTE_REVOKE  0x00000040
#define NOTE_OPEN    0x00000080   /* NetBSD 10 */
#define NOTE_CLOSE   0x00000100   /* NetBSD 10 */
#define NOTE_CLOSE_WRITE 0x00000200   /* NetBSD 10 */
#define NOTE_READ    0x00000400   /* NetBSD 10 */
#define NOTE_EXIT    0x80000000
#define NOTE_FORK    0x40000000
#define NOTE_EXEC    0x20000000
#define NOTE_TRACK    0x00000001
#define NOTE_TRACKERR 0x00000002
#define NOTE_CHILD    0x00000004
#define NOTE_MSECONDS 0x00000000   /* NetBSD 10, as the rest */
#define NOTE_SECONDS  0x00000001
#define NOTE_USECONDS 0x00000002
#define NOTE_NSECONDS 0x00000003
#define NOTE_ABSTIME  0x00000010

int kqueue(void);
int kqueue1(int flags);     /* O_CLOEXEC */

/* unistd.h */
int close(int fd);
