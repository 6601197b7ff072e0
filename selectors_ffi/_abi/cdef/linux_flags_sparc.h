/* Linux on SPARC: poll and O_CLOEXEC have the numbers of SunOS.
 *
 * https://github.com/torvalds/linux/blob/0b77b97066628deef03a6eac7b29e5c3756f4ab0/arch/sparc/include/uapi/asm/poll.h
 * https://github.com/torvalds/linux/blob/0b77b97066628deef03a6eac7b29e5c3756f4ab0/arch/sparc/include/uapi/asm/fcntl.h
 * https://man7.org/linux/man-pages/man2/poll.2.html
 */
#define POLLIN     0x0001
#define POLLPRI    0x0002
#define POLLOUT    0x0004
#define POLLERR    0x0008
#define POLLHUP    0x0010
#define POLLNVAL   0x0020
#define POLLRDNORM 0x0040
#define POLLRDBAND 0x0080
#define POLLWRNORM 0x0004   /* == POLLOUT */
#define POLLWRBAND 0x0100
#define POLLMSG    0x0200
#define POLLRDHUP  0x0800

#define EPOLL_CLOEXEC 0x400000
