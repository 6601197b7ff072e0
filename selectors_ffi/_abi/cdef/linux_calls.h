/* Linux: the calls with a time struct, under their plain names.
 *
 * https://man7.org/linux/man-pages/man2/select.2.html
 * https://man7.org/linux/man-pages/man2/poll.2.html
 * https://man7.org/linux/man-pages/man2/epoll_wait.2.html
 */

/* The sets are fd_set * in the header. void, because we pass bitmaps of our own,
 * as long as the highest descriptor needs; fd_set ends at FD_SETSIZE.
 * timeout: NULL waits for ever; overwritten with what is left of it. */
int select(int nfds, void *readfds, void *writefds, void *exceptfds, struct timeval *timeout);

/* timeout: NULL waits for ever. sigmask: sigset_t *, always NULL here. */
int ppoll(struct pollfd *fds, nfds_t nfds, const struct timespec *timeout, const void *sigmask);

/* Linux 5.11, glibc 2.35; not in musl 1.2. */
int epoll_pwait2(int epfd, struct epoll_event *events, int maxevents,
                 const struct timespec *timeout, const void *sigmask);
