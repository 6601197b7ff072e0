/* Linux: struct epoll_event, alone because its packing differs.
 * Packed on x86 only, so that the 64-bit layout equals the i386 one
 * (EPOLL_PACKED in the kernel, __EPOLL_PACKED in glibc). Compiled twice.
 *
 * https://github.com/torvalds/linux/blob/0b77b97066628deef03a6eac7b29e5c3756f4ab0/include/uapi/linux/eventpoll.h
 * https://man7.org/linux/man-pages/man3/epoll_event.3type.html
 *
 *                              sizeof  offsetof(data)
 *   x86_64, x32, i386 (packed)     12               4
 *   every other processor          16               8
 */
struct epoll_event {
    uint32_t events;
    uint64_t data;      /* a union in C; we only ever use u64 */
};
