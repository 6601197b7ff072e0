/* NetBSD 6 to 10: struct kevent.
 *
 * https://github.com/NetBSD/src/blob/002a03071eb06b04c96a1fcad4757d67ef5c932e/sys/sys/event.h
 * https://man.netbsd.org/kevent.2
 *
 *              LP64   i386   other 32-bit
 *   kevent       40     28             32
 */
struct kevent {
    uintptr_t ident;
    uint32_t filter;
    uint32_t flags;
    uint32_t fflags;
    int64_t data;
    uintptr_t udata;    /* void * in the header; we keep a number in it */
};

/* The counts are size_t, here alone. timeout: NULL waits for ever */
int __kevent50(int kq, const struct kevent *changelist, size_t nchanges,
               struct kevent *eventlist, size_t nevents, const struct timespec *timeout);
