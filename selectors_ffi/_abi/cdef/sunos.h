/* illumos and Oracle Solaris, 64-bit.
 *
 * https://github.com/illumos/illumos-gate/blob/1fdaf7d2e3c6a14040a23ee4342a79474633d5a1/usr/src/uts/common/sys/devpoll.h
 * https://github.com/illumos/illumos-gate/blob/1fdaf7d2e3c6a14040a23ee4342a79474633d5a1/usr/src/uts/common/sys/poll.h
 * https://github.com/illumos/illumos-gate/blob/12ef7bd6596eedcaafd544ec675d6b72dfd15998/usr/src/uts/common/sys/port.h
 * https://github.com/illumos/illumos-gate/blob/7c478bd95313f5f23a4c958a745db2134aa03244/usr/src/head/port.h
 * https://github.com/Arquivotheca/solaris11/blob/766b42f8a92f289f84c7093c30f1f2aebb55ffdd/usr/src/uts/common/sys/port.h
 * https://illumos.org/man/4D/poll
 * https://illumos.org/man/2/poll
 * https://illumos.org/man/3C/select
 * https://illumos.org/man/3C/port_create
 * https://illumos.org/man/3C/port_associate
 * https://illumos.org/man/3C/port_get
 * https://illumos.org/man/3C/port_send
 *
 *              sizeof
 *   timeval        16
 *   timespec       16
 *   pollfd          8
 *   dvpoll         32   24 on Oracle Solaris, which has no dp_setp. DP_POLL reads
 *                       the first 24 bytes on either, so the longer one is safe.
 *   port_event     24
 */

/* sys/time.h */
struct timeval {
    long tv_sec;        /* seconds */
    long tv_usec;       /* microseconds */
};

struct timespec {
    long tv_sec;        /* seconds */
    long tv_nsec;       /* nanoseconds */
};

/* sys/poll.h */
struct pollfd {
    int fd;
    short events;
    short revents;
};

typedef unsigned long nfds_t;

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
#define POLLREMOVE 0x0800   /* /dev/poll: take the descriptor out of the set */

/* timeout: milliseconds, -1 waits for ever */
int poll(struct pollfd *fds, nfds_t nfds, int timeout);

/* sys/select.h
 * The sets are fd_set * in the header. void, because we pass bitmaps of our own,
 * as long as the highest descriptor needs; fd_set ends at FD_SETSIZE.
 * timeout: NULL waits for ever. */
#define FD_SETSIZE 65536

/* The word of a set: __fd_mask, fd_mask in the headers. Unsigned here, as we set its bits. */
typedef unsigned long fd_mask;

int select(int nfds, void *readfds, void *writefds, void *exceptfds, struct timeval *timeout);

/* sys/devpoll.h */
#define DP_POLL     0xD001
#define DP_ISPOLLED 0xD002

struct dvpoll {
    struct pollfd *dp_fds;
    nfds_t dp_nfds;     /* not int, as the manual page has it */
    int dp_timeout;     /* milliseconds, -1 waits for ever */
    void *dp_setp;      /* sigset_t * in the header; always NULL here */
};

/* sys/port.h, port.h: event ports */
#define PORT_SOURCE_USER 3   /* port_send */
#define PORT_SOURCE_FD   4   /* a file descriptor; its events are those of poll */

struct port_event {
    int portev_events;
    unsigned short portev_source;
    unsigned short portev_pad;
    uintptr_t portev_object;    /* the file descriptor */
    void *portev_user;          /* as given to port_associate */
};

int port_create(void);
int port_associate(int port, int source, uintptr_t object, int events, void *user);
int port_dissociate(int port, int source, uintptr_t object);
int port_send(int port, int events, void *user);
/* nget: in, how many events to wait for; out, how many there are. timeout: NULL waits for ever. */
int port_getn(int port, struct port_event *list, unsigned int max, unsigned int *nget,
              struct timespec *timeout);

/* fcntl.h, unistd.h. open and ioctl are variadic: on some processors such
 * arguments travel by another road. ioctl's request is an int here. */
int open(const char *path, int oflag, ...);
int ioctl(int fildes, int request, ...);
ssize_t write(int fildes, const void *buf, size_t nbyte);
int close(int fildes);
