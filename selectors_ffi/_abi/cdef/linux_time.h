/* Linux: time as two C longs, and the calls that take it under their plain names.
 * Every 64-bit processor but SPARC; on 32-bit ones the only time there is in
 * glibc before 2.34 and musl before 1.2.
 *
 * https://sourceware.org/git/?p=glibc.git;a=blob;f=time/bits/types/struct_timeval.h;hb=glibc-2.40
 * https://man7.org/linux/man-pages/man3/timeval.3type.html
 * https://man7.org/linux/man-pages/man3/timespec.3type.html
 * https://man7.org/linux/man-pages/man2/epoll_wait.2.html
 *
 *              timeval  timespec
 *   64-bit          16        16
 *   32-bit           8         8
 */
struct timeval {
    long tv_sec;        /* seconds */
    long tv_usec;       /* microseconds */
};

struct timespec {
    long tv_sec;        /* seconds */
    long tv_nsec;       /* nanoseconds */
};
