/* FreeBSD: everything but struct kevent and time_t, which have two shapes each.
 *
 * https://github.com/freebsd/freebsd-src/blob/f097734c278c9d8c5412bc8bdd71ac4cf940152b/sys/sys/event.h
 * https://github.com/freebsd/freebsd-src/blob/f097734c278c9d8c5412bc8bdd71ac4cf940152b/sys/sys/poll.h
 * https://man.freebsd.org/cgi/man.cgi?query=kqueue&sektion=2
 * https://man.freebsd.org/cgi/man.cgi?query=poll&sektion=2
 * https://man.freebsd.org/cgi/man.cgi?query=select&sektion=2
 *
 *              LP64   i386   other 32-bit
 *   timeval      16      8             16
 *   timespec     16      8             16
 *   pollfd        8      8              8
 */

/* sys/_timeval.h */
struct timeval {
    time_t tv_sec;      /* seconds */
    long tv_usec;       /* microseconds */
};

/* sys/_timespec.h */
struct timespec {
    time_t tv_sec;      /* seconds */
    long tv_nsec;       /* nanoseconds */
};

/* sys/poll.h */
typedef unsigned int nfds_t;

struct pollfd {
    int fd;
    short events;
    short revents;
};

#define POLLIN       0x0001
#define POLLPRI      0x0002
#define POLLOUT      0x0004
#define POLLRDNORM   0x0040
#define POLLWRNORM   0x0004   /* == POLLOUT */
#define POLLRDBAND   0x0080
#define POLLWRBAND   0x0100
#define POLLINIGNEOF 0x2000
#define POLLRDHUP    0x4000   /* since 13.0 */
#define POLLERR      0x0008
#define POLLHUP      0x0010
#define POLLNVAL     0x0020

/* timeout: milliseconds, -1 waits for ever */
int poll(struct pollfd *fds, nfds_t nfds, int timeout);

/* timeout: NULL waits for ever. sigmask: sigset_t *, always NULL here. */
int ppoll(struct pollfd *fds, nfds_t nfds, const struct timespec *timeout, const void *sigmask);

/* sys/select.h
 * The sets are fd_set * in the header. void, because we pass bitmaps of our own,
 * as long as the highest descriptor needs; fd_set ends at FD_SETSIZE.
 * timeout: NULL waits for ever. */
#define FD_SETSIZE 1024

/* The word of a set: __fd_mask, fd_mask in the headers. Unsigned here, as we set its bits. */
typedef unsigned long fd_mask;

int select(int nfds, void *readfds, void *writefds, void *exceptfds, struct timeval *timeout);

/* sys/event.h */
#define EVFILT_READ     -1
#define EVFILT_WRITE    -2
#define EVFILT_AIO      -3
#define EVFILT_VNODE    -4
#define EVFILT_PROC     -5
#define EVFILT_SIGNAL   -6
#define EVFILT_TIMER    -7
#define EVFILT_PROCDESC -8
#define EVFILT_FS       -9
#define EVFILT_LIO      -10
#define EVFILT_USER     -11
#define EVFILT_SENDFILE -12
#define EVFILT_EMPTY    -13

#define EV_ADD          0x0001
#define EV_DELETE       0x0002
#define EV_ENABLE       0x0004
#define EV_DISABLE      0x0008
#define EV_FORCEONESHOT 0x0100
#define EV_ONESHOT      0x0010
#define EV_CLEAR        0x0020
#define EV_RECEIPT      0x0040
#define EV_DISPATCH     0x0080
#define EV_DROP         0x1000
#define EV_FLAG1        0x2000
#define EV_FLAG2        0x4000
#define EV_EOF          0x8000
#define EV_ERROR        0x4000

#define NOTE_FFNOP     0x00000000
#define NOTE_FFAND     0x40000000
#define NOTE_FFOR      0x80000000
#define NOTE_FFCOPY    0xc0000000
#define NOTE_TRIGGER   0x01000000
#define NOTE_LOWAT     0x00000001
#define NOTE_FILE_POLL 0x00000002
#define NOTE_DELETE    0x00000001
#define NOTE_WRITE     0x00000002
#define NOTE_EXTEND    0x00000004
#define NOTE_ATTRIB    0x00000008
#define NOTE_LINK      0x00000010
#define NOTE_RENAME    0x00000020
#define NOTE_REVOKE    0x00000040
#define NOTE_OPEN      0x00000080
#define NOTE_CLOSE     0x00000100
#define NOTE_CLOSE_WRITE 0x00000200
#define NOTE_READ      0x00000400
#define NOTE_EXIT      0x80000000
#define NOTE_FORK      0x40000000
#define NOTE_EXEC      0x20000000
#define NOTE_TRACK     0x00000001
#define NOTE_TRACKERR  0x00000002
#define NOTE_CHILD     0x00000004
#define NOTE_SECONDS   0x00000001
#define NOTE_MSECONDS  0x00000002
#define NOTE_USECONDS  0x00000004
#define NOTE_NSECONDS  0x00000008
#define NOTE_ABSTIME   0x00000010

int kqueue(void);

/* timeout: NULL waits for ever */
int kevent(int kq, const struct kevent *changelist, int nchanges,
           struct kevent *eventlist, int nevents, const struct timespec *timeout);

/* unistd.h */
int close(int fd);
