/* Linux, 32-bit: time of 64 bits.
 * tv_nsec is a long with padding beside it (after it on little endian, before
 * it on big endian); an int64_t covers both, and is what the kernel reads
 * (struct __kernel_timespec).
 *
 * https://sourceware.org/git/?p=glibc.git;a=blob;f=include/struct___timespec64.h;hb=glibc-2.40
 * https://git.musl-libc.org/cgit/musl/tree/include/alltypes.h.in?h=v1.2.5
 * https://github.com/torvalds/linux/blob/0b77b97066628deef03a6eac7b29e5c3756f4ab0/include/uapi/linux/time_types.h
 * https://man7.org/linux/man-pages/man3/timespec.3type.html
 *
 *              timeval  timespec
 *   32-bit          16        16
 */
struct timeval {
    int64_t tv_sec;     /* seconds */
    int64_t tv_usec;    /* microseconds */
};

struct timespec {
    int64_t tv_sec;     /* seconds */
    int64_t tv_nsec;    /* nanoseconds */
};
