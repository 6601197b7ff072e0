/* FreeBSD 11 and before: struct kevent (struct freebsd11_kevent of later kernels),
 * exported by libc as kevent@FBSD_1.0. It agrees with the later one in every
 * offset of its 32 bytes on LP64, so one event works with either, two do not.
 *
 * https://github.com/freebsd/freebsd-src/blob/f097734c278c9d8c5412bc8bdd71ac4cf940152b/sys/sys/event.h
 * https://man.freebsd.org/cgi/man.cgi?query=kqueue&sektion=2&manpath=FreeBSD+11.4-RELEASE
 *
 *              LP64   32-bit
 *   kevent       32       20
 */
struct kevent {
    uintptr_t ident;
    short filter;
    unsigned short flags;
    unsigned int fflags;
    intptr_t data;
    uintptr_t udata;    /* void * in the header; we keep a number in it */
};
