/* NetBSD 11: struct kevent grew ext[4], and kevent a new name in libc.
 *
 * https://github.com/NetBSD/src/blob/netbsd-11/sys/sys/event.h
 * https://man.netbsd.org/kevent.2
 *
 *              LP64   i386   other 32-bit
 *   kevent       72     60             64
 */
struct kevent {
    uintptr_t ident;
    uint32_t filter;
    uint32_t flags;
    uint32_t fflags;
    int64_t data;
    uintptr_t udata;    /* void * in the header; we keep a number in it */
    uint64_t ext[4];
};

/* The counts are size_t, here alone. timeout: NULL waits for ever */
int __kevent100(int kq, const struct kevent *changelist, size_t nchanges,
                struct kevent *eventlist, size_t nevents, const struct timespec *timeout);
