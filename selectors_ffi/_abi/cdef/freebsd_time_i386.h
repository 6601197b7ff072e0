/* FreeBSD/i386: the last processor with a 32-bit time_t.
 * https://github.com/freebsd/freebsd-src/blob/f097734c278c9d8c5412bc8bdd71ac4cf940152b/sys/x86/include/_types.h
 */
typedef int32_t time_t;
