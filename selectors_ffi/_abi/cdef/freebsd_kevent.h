/* FreeBSD 12.0 and later: struct kevent, and what came with it or after it.
 * libc exports this ABI as kevent@@FBSD_1.5.
 *
 * https://github.com/freebsd/freebsd-src/blob/f097734c278c9d8c5412bc8bdd71ac4cf940152b/sys/sys/event.h
 * https://man.freebsd.org/cgi/man.cgi?query=kqueue&sektion=2
 *
 *              LP64   i386   other 32-bit
 *   kevent       64     56             64
 */
struct kevent {
    uintptr_t ident;
    short filter;
    unsigned short flags;
    unsigned int fflags;
    int64_t data;
    uintptr_t udata;    /* void * in the header; we keep a number in it */
    uint64_t ext[4];
};

/* FreeBSD 14.0 */
#define KQUEUE_CLOEXEC 0x00000001

int kqueuex(unsigned int flags);
int kqueue1(int flags);     /* O_CLOEXEC */
