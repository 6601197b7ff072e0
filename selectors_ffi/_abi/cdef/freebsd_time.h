/* FreeBSD: time_t, on every processor but i386.
 * https://github.com/freebsd/freebsd-src/blob/f097734c278c9d8c5412bc8bdd71ac4cf940152b/sys/amd64/include/_types.h
 */
typedef int64_t time_t;
