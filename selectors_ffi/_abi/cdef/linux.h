/* Linux: the calls of poll, select and epoll that have no time struct in them,
 * and what is the same on every processor and in every C library.
 *
 * https://github.com/torvalds/linux/blob/0b77b97066628deef03a6eac7b29e5c3756f4ab0/include/uapi/linux/eventpoll.h
 * https://sourceware.org/git/?p=glibc.git;a=blob;f=io/sys/poll.h;hb=glibc-2.40
 * https://man7.org/linux/man-pages/man2/poll.2.html
 * https://man7.org/linux/man-pages/man2/select.2.html
 * https://man7.org/linux/man-pages/man7/epoll.7.html
 * https://man7.org/linux/man-pages/man2/dup.2.html
 *
 *            sizeof  offsetof(events)  offsetof(revents)
 *   pollfd        8                 4                  6
 */

/* poll.h */
typedef unsigned long nfds_t;

struct pollfd {
    int fd;
    short events;
    short revents;
};

/* timeout: milliseconds, -1 waits for ever */
int poll(struct pollfd *fds, nfds_t nfds, int timeout);

/* sys/select.h */
#define FD_SETSIZE 1024

/* The word of a set: __fd_mask, fd_mask in the headers. Unsigned here, as we set its bits. */
typedef unsigned long fd_mask;

/* sys/epoll.h */
#define EPOLLIN        0x00000001
#define EPOLLPRI       0x00000002
#define EPOLLOUT       0x00000004
#define EPOLLERR       0x00000008
#define EPOLLHUP       0x00000010
#define EPOLLRDNORM    0x00000040
#define EPOLLRDBAND    0x00000080
#define EPOLLWRNORM    0x00000100
#define EPOLLWRBAND    0x00000200
#define EPOLLMSG       0x00000400
#define EPOLLRDHUP     0x00002000
#define EPOLLEXCLUSIVE 0x10000000
#define EPOLLWAKEUP    0x20000000
#define EPOLLONESHOT   0x40000000
#define EPOLLET        0x80000000

#define EPOLL_CTL_ADD 1
#define EPOLL_CTL_DEL 2
#define EPOLL_CTL_MOD 3

int epoll_create1(int flags);

/* event: struct epoll_event * in the header. void, so that the packed bytes of
 * one event can be passed as they are: an argument of its own for each call,
 * where a struct shared by two threads would be a race. */
int epoll_ctl(int epfd, int op, int fd, const void *event);

/* timeout: milliseconds, -1 waits for ever */
int epoll_wait(int epfd, struct epoll_event *events, int maxevents, int timeout);

/* unistd.h */
int close(int fd);
int dup3(int oldfd, int newfd, int flags);
