/* Linux, 32-bit: the calls with 64-bit time. The plain names are still there and
 * take 32-bit time, so they are left out: nobody can call them by mistake.
 * glibc: __select64, __ppoll64 (2.34), __epoll_pwait2_time64 (2.35).
 * musl 1.2: __select_time64, __ppoll_time64.
 *
 * https://sourceware.org/git/?p=glibc.git;a=blob;f=misc/sys/select.h;hb=glibc-2.40
 * https://git.musl-libc.org/cgit/musl/tree/include/sys/select.h?h=v1.2.5
 * https://man7.org/linux/man-pages/man2/select.2.html
 * https://man7.org/linux/man-pages/man2/poll.2.html
 * https://man7.org/linux/man-pages/man2/epoll_wait.2.html
 */

/* The sets are fd_set * in the header. void, because we pass bitmaps of our own,
 * as long as the highest descriptor needs; fd_set ends at FD_SETSIZE.
 * timeout: NULL waits for ever; overwritten with what is left of it. */
int __select64(int nfds, void *readfds, void *writefds, void *exceptfds, struct timeval *timeout);
int __select_time64(int nfds, void *readfds, void *writefds, void *exceptfds, struct timeval *timeout);

/* timeout: NULL waits for ever. sigmask: sigset_t *, always NULL here. */
int __ppoll64(struct pollfd *fds, nfds_t nfds, const struct timespec *timeout, const void *sigmask);
int __ppoll_time64(struct pollfd *fds, nfds_t nfds, const struct timespec *timeout, const void *sigmask);

int __epoll_pwait2_time64(int epfd, struct epoll_event *events, int maxevents,
                          const struct timespec *timeout, const void *sigmask);
