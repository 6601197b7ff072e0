/* Linux on 64-bit SPARC: tv_usec is an int. Big endian, so a long written
 * there would be read as zero microseconds.
 *
 * https://github.com/torvalds/linux/blob/0b77b97066628deef03a6eac7b29e5c3756f4ab0/arch/sparc/include/uapi/asm/posix_types.h
 * https://man7.org/linux/man-pages/man3/timeval.3type.html
 *
 *              timeval  timespec
 *   64-bit          16        16
 */
struct timeval {
    long tv_sec;        /* seconds */
    int tv_usec;        /* microseconds */
};

struct timespec {
    long tv_sec;        /* seconds */
    long tv_nsec;       /* nanoseconds */
};
