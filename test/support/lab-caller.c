// SPDX-License-Identifier: Apache-2.0
// An application that connects in one of the less usual ways, and tells what it sees. A line of
// JSON for each destination: how connect ended, getpeername, getsockname, the first line of who
// answered, and the echo of what was sent early.
//
// usage: lab-caller [OPTION ...] -- ADDRESS PORT [ADDRESS PORT ...]
//
// OPTION: nonblocking, uring, fastopen, mptcp, v6only, reused (one socket for all destinations),
// device=NAME, bound=ADDRESS, mark=NUMBER, wait=MILLISECONDS (3000)
#include <arpa/inet.h>
#include <errno.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { REFUSED_URING = 77 };

static struct {
    bool nonblocking, uring, fastopen, mptcp, v6only, reused;
    const char *device, *bound;
    int mark, wait;
} want = {.wait = 3000};

struct name {
    struct sockaddr_storage at;
    socklen_t size;
};

static void die(const char* what) {
    perror(what);
    exit(1);
}

static struct name name_of(const char* address, int port) {
    struct name name = {0};
    struct sockaddr_in* v4 = (void*)&name.at;
    struct sockaddr_in6* v6 = (void*)&name.at;
    if (inet_pton(AF_INET, address, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        name.size = sizeof *v4;
    } else if (inet_pton(AF_INET6, address, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(port);
        name.size = sizeof *v6;
    } else {
        die(address);
    }
    return name;
}

static void set(int fd, int level, int option, const void* value, socklen_t size) {
    if (setsockopt(fd, level, option, value, size) < 0) die("setsockopt");
}

static int open_socket(int family) {
    const int on = 1, flags = want.nonblocking ? SOCK_NONBLOCK : 0;
    const int fd = socket(family, SOCK_STREAM | flags, want.mptcp ? IPPROTO_MPTCP : IPPROTO_TCP);
    if (fd < 0) die("socket");
    if (want.v6only) set(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    if (want.mark) set(fd, SOL_SOCKET, SO_MARK, &want.mark, sizeof want.mark);
    if (want.device) set(fd, SOL_SOCKET, SO_BINDTODEVICE, want.device, strlen(want.device) + 1);
    if (want.bound) {
        const struct name own = name_of(want.bound, 0);
        if (bind(fd, (const void*)&own.at, own.size) < 0) die("bind");
    }
    return fd;
}

/* One IORING_OP_CONNECT on a ring of its own; there is no liburing in Debian's base. */
static int uring_connect(int fd, const struct name* to) {
    struct io_uring_params p = {0};
    const int ring = syscall(SYS_io_uring_setup, 1, &p);
    if (ring < 0) {
        fprintf(stderr, "io_uring_setup: %s\n", strerror(errno));
        exit(REFUSED_URING);
    }
    const size_t sq_size = p.sq_off.array + p.sq_entries * sizeof(uint32_t);
    const size_t cq_size = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
    uint8_t* sq = mmap(NULL, sq_size, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
    uint8_t* cq = mmap(NULL, cq_size, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_CQ_RING);
    struct io_uring_sqe* entry = mmap(NULL, p.sq_entries * sizeof *entry, PROT_READ | PROT_WRITE,
                                      MAP_SHARED, ring, IORING_OFF_SQES);
    if (sq == MAP_FAILED || cq == MAP_FAILED || entry == MAP_FAILED) die("mmap");
    *entry = (struct io_uring_sqe){.opcode = IORING_OP_CONNECT,
                                   .fd = fd,
                                   .addr = (uint64_t)(uintptr_t)&to->at,
                                   .off = to->size,
                                   /* By a worker thread of the kernel's. */
                                   .flags = IOSQE_ASYNC};
    *(uint32_t*)(sq + p.sq_off.array) = 0;
    __atomic_store_n((uint32_t*)(sq + p.sq_off.tail), 1, __ATOMIC_RELEASE);
    if (syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) != 1)
        die("io_uring_enter");
    const int result = ((struct io_uring_cqe*)(cq + p.cq_off.cqes))->res;
    close(ring);
    errno = -result;
    return result < 0 ? -1 : 0;
}

static int start_connect(int fd, const struct name* to) {
    if (want.uring) return uring_connect(fd, to);
    if (want.fastopen)
        return sendto(fd, "early\n", 6, MSG_FASTOPEN, (const void*)&to->at, to->size) == 6 ? 0 : -1;
    return connect(fd, (const void*)&to->at, to->size);
}

/* 0, or an errno. */
static int connect_to(int fd, const struct name* to) {
    if (start_connect(fd, to) == 0) return 0;
    if (!want.nonblocking || errno != EINPROGRESS) return errno;
    struct pollfd writable = {.fd = fd, .events = POLLOUT};
    if (poll(&writable, 1, want.wait) != 1) return ETIMEDOUT;
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
    return error;
}

static void print_end(const char* key, int fd,
                      int (*ask)(int, struct sockaddr* restrict, socklen_t* restrict)) {
    struct name name = {.size = sizeof name.at};
    char text[INET6_ADDRSTRLEN] = "";
    const struct sockaddr_in* v4 = (void*)&name.at;
    const struct sockaddr_in6* v6 = (void*)&name.at;
    if (ask(fd, (void*)&name.at, &name.size) < 0) return;
    const bool is_v4 = name.at.ss_family == AF_INET;
    inet_ntop(name.at.ss_family, is_v4 ? (void*)&v4->sin_addr : (void*)&v6->sin6_addr, text,
              sizeof text);
    printf(",\"%s\":{\"address\":\"%s\",\"port\":%d}", key, text,
           ntohs(is_v4 ? v4->sin_port : v6->sin6_port));
}

/* A line, or what came of it until the other side ended or said nothing for too long. */
static const char* read_line(int fd) {
    static char line[1024];
    size_t size = 0;
    struct pollfd readable = {.fd = fd, .events = POLLIN};
    while (size + 1 < sizeof line && poll(&readable, 1, want.wait) == 1 &&
           read(fd, line + size, 1) == 1 && line[size] != '\n')
        size++;
    line[size] = 0;
    return line;
}

static void call(int fd, const struct name* to) {
    const int error = connect_to(fd, to);
    printf("{\"outcome\":\"%s\"", error == 0 ? "connected" : strerrorname_np(error));
    if (error == 0) {
        print_end("peer", fd, getpeername);
        print_end("own", fd, getsockname);
        const char* greeting = read_line(fd);
        if (*greeting) printf(",\"greeting\":%s", greeting);
        if (want.fastopen) printf(",\"echo\":\"%s\"", read_line(fd));
    }
    printf("}\n");
}

static bool take_option(const char* text) {
    if (strcmp(text, "nonblocking") == 0) return want.nonblocking = true;
    if (strcmp(text, "uring") == 0) return want.uring = true;
    if (strcmp(text, "fastopen") == 0) return want.fastopen = true;
    if (strcmp(text, "mptcp") == 0) return want.mptcp = true;
    if (strcmp(text, "v6only") == 0) return want.v6only = true;
    if (strcmp(text, "reused") == 0) return want.reused = true;
    if (strncmp(text, "device=", 7) == 0) return (want.device = text + 7) != NULL;
    if (strncmp(text, "bound=", 6) == 0) return (want.bound = text + 6) != NULL;
    if (strncmp(text, "mark=", 5) == 0) return (want.mark = strtol(text + 5, NULL, 0)) != 0;
    if (strncmp(text, "wait=", 5) == 0) return (want.wait = atoi(text + 5)) > 0;
    return false;
}

int main(int argc, char** argv) {
    const struct sockaddr nowhere = {.sa_family = AF_UNSPEC};
    int at = 1, fd = -1;
    for (; at < argc && strcmp(argv[at], "--") != 0; at++)
        if (!take_option(argv[at])) return 2;
    for (at++; at + 1 < argc; at += 2) {
        const struct name to = name_of(argv[at], atoi(argv[at + 1]));
        if (fd < 0) fd = open_socket(to.at.ss_family);
        call(fd, &to);
        if (want.reused) {
            connect(fd, &nowhere, sizeof nowhere);
        } else {
            close(fd);
            fd = -1;
        }
    }
    return 0;
}
