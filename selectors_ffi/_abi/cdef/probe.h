/* Names whose presence in libc says which ABI this is. Looked up, never called,
 * except dlvsym: FreeBSD keeps two kevents under one name and tells them apart
 * by version.
 *
 * https://github.com/freebsd/freebsd-src/blob/f097734c278c9d8c5412bc8bdd71ac4cf940152b/lib/libsys/Symbol.sys.map
 * https://man.freebsd.org/cgi/man.cgi?query=dlvsym&sektion=3
 */
#define RTLD_DEFAULT -2     /* FreeBSD, DragonFly, NetBSD, macOS; only used on FreeBSD */

void *dlvsym(void *handle, const char *name, const char *version);

void __select64(void);          /* glibc 2.34, 32-bit */
void __select_time64(void);     /* musl 1.2, 32-bit */
void __kevent50(void);          /* NetBSD 5 */
void __kevent100(void);         /* NetBSD 11 */
