/* Windows: select of ws2_32.dll, for sockets. It is ready to be called once
 * Python's socket module is imported: that calls WSAStartup.
 *
 * https://learn.microsoft.com/en-us/windows/win32/api/winsock2/nf-winsock2-select
 * https://learn.microsoft.com/en-us/windows/win32/api/winsock2/ns-winsock2-fd_set
 * https://learn.microsoft.com/en-us/windows/win32/api/winsock2/nf-winsock2-wsagetlasterror
 * https://github.com/mingw-w64/mingw-w64/blob/v12.0.0/mingw-w64-headers/include/psdk_inc/_fd_types.h
 *
 *              64-bit   32-bit
 *   timeval         8        8   long has 4 bytes on either
 *   fd_set          8        4   offsetof(fd_array)
 */

/* _timeval.h */
struct timeval {
    int tv_sec;         /* long in the header, which is 32 bits there; seconds */
    int tv_usec;        /* microseconds */
};

/* psdk_inc/_socket_types.h */
typedef uintptr_t SOCKET;   /* UINT_PTR */

/* psdk_inc/_fd_types.h
 * fd_array has FD_SETSIZE elements there. Open here: select reads fd_count of
 * them, so that a set may have any length. */
#define FD_SETSIZE 64

typedef struct fd_set {
    unsigned int fd_count;
    SOCKET fd_array[];
} fd_set;

/* nfds is ignored. timeout: NULL waits for ever. Three empty sets are an error. */
int __stdcall select(int nfds, fd_set *readfds, fd_set *writefds, fd_set *exceptfds,
                     const struct timeval *timeout);

int __stdcall WSAGetLastError(void);
