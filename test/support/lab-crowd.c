// SPDX-License-Identifier: Apache-2.0
// Many outbound connections of one pod at once. Some processes play ztunnel: they accept at 15001,
// answer with the original destination that they were told, and keep everything open. Others call,
// COUNT times in all, compare each answer and getpeername with where they wanted to go, and hear
// once more from every connection when all are open. Prints how many that were, and how many were
// told something else.
//
// usage: lab-crowd COUNT ADDRESS [...]
//
// Ports 1000 to 1003 of each address are called.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MARK = 0x539, OUTBOUND = 15001, ORIGINAL_DST = 80, FIRST_PORT = 1000, PORTS = 4 };

/* IPv4 in the first four bytes; ports in network order. */
struct end {
    uint8_t address[16];
    uint16_t port;
};

struct result {
    int open, wrong;
};

static void die(const char* what) {
    perror(what);
    exit(1);
}

static struct end end_of(const struct sockaddr_in6* v6) {
    const struct sockaddr_in* v4 = (const void*)v6;
    struct end end = {.port = v6->sin6_port};
    if (v6->sin6_family == AF_INET)
        memcpy(end.address, &v4->sin_addr, 4);
    else
        memcpy(end.address, &v6->sin6_addr, 16);
    return end;
}

static socklen_t name_of(const char* text, uint16_t port, struct sockaddr_in6* v6) {
    struct sockaddr_in* v4 = (void*)v6;
    memset(v6, 0, sizeof *v6);
    v6->sin6_port = htons(port);
    if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        return sizeof *v6;
    }
    v4->sin_family = AF_INET;
    if (inet_pton(AF_INET, text, &v4->sin_addr) != 1) die(text);
    return sizeof *v4;
}

static bool is_same(const struct end* a, const struct end* b) {
    return a->port == b->port && memcmp(a->address, b->address, sizeof a->address) == 0;
}

static struct end original_destination(int fd) {
    struct sockaddr_in6 name = {0};
    socklen_t size = sizeof name;
    if (getsockopt(fd, SOL_IP, ORIGINAL_DST, &name, &size) < 0) {
        size = sizeof name;
        if (getsockopt(fd, SOL_IPV6, ORIGINAL_DST, &name, &size) < 0) die("SO_ORIGINAL_DST");
    }
    return end_of(&name);
}

static void wait_for_end_of(int pipe) {
    char byte;
    while (read(pipe, &byte, 1) > 0)
        continue;
}

static void play_ztunnel(int listener, int count, int all_open, int done) {
    int* open = calloc(count, sizeof *open);
    for (int i = 0; i < count; i++) {
        if ((open[i] = accept(listener, NULL, NULL)) < 0) die("accept");
        const struct end to = original_destination(open[i]);
        if (write(open[i], &to, sizeof to) != sizeof to) die("write");
    }
    wait_for_end_of(all_open);
    for (int i = 0; i < count; i++)
        if (write(open[i], "!", 1) != 1) die("write");
    wait_for_end_of(done);
    exit(0);
}

static int listen_as_ztunnel(void) {
    const struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(OUTBOUND)};
    const int mark = MARK, on = 1, fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof mark) < 0 ||
        setsockopt(fd, SOL_IP, IP_TRANSPARENT, &on, sizeof on) < 0 ||
        bind(fd, (const void*)&any, sizeof any) < 0 || listen(fd, 128) < 0)
        die("listen");
    return fd;
}

/* The socket of a connection that was told where it wanted to go, or -1 - fd. */
static int call(const char* address, uint16_t port) {
    const struct linger reset = {.l_onoff = 1};
    struct sockaddr_in6 name;
    const socklen_t size = name_of(address, port, &name);
    const struct end wanted = end_of(&name);
    struct end told;
    socklen_t peer_size = sizeof name;
    const int fd = socket(name.sin6_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (void*)&name, size) < 0) die("connect");
    /* So many would be long in closing one by one. */
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    if (recv(fd, &told, sizeof told, MSG_WAITALL) != sizeof told) die("recv");
    if (getpeername(fd, (void*)&name, &peer_size) < 0) die("getpeername");
    const struct end shown = end_of(&name);
    return is_same(&told, &wanted) && is_same(&shown, &wanted) ? fd : -1 - fd;
}

static void play_application(int first, int count, char** addresses, int number, int told,
                             int all_open) {
    struct result result = {0};
    int* open = calloc(count, sizeof *open);
    char byte;
    for (int i = 0; i < count; i++) {
        const int n = first + i, fd = call(addresses[n % number], FIRST_PORT + n / number % PORTS);
        result.wrong += fd < 0;
        open[i] = fd < 0 ? -1 - fd : fd;
    }
    if (write(told, &result, sizeof result) != sizeof result) die("write");
    wait_for_end_of(all_open);
    for (int i = 0; i < count; i++)
        result.open += recv(open[i], &byte, 1, MSG_WAITALL) == 1 && byte == '!';
    if (write(told, &result, sizeof result) != sizeof result) die("write");
    exit(0);
}

static struct result sum(int told, int workers) {
    struct result all = {0}, one;
    for (int i = 0; i < workers; i++) {
        if (read(told, &one, sizeof one) != sizeof one) die("an application has ended");
        all.open += one.open;
        all.wrong += one.wrong;
    }
    return all;
}

int main(int argc, char** argv) {
    int all_open[2], done[2], told[2];
    struct rlimit files;
    if (argc < 3 || getrlimit(RLIMIT_NOFILE, &files) < 0) return 2;
    files.rlim_cur = files.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &files) < 0) die("RLIMIT_NOFILE");
    /* As many processes as it takes, where the limit can't be raised. */
    const int count = atoi(argv[1]), most = files.rlim_max > 65536 ? 65536 : files.rlim_max - 64;
    const int workers = (count + most - 1) / most, each = count / workers;
    const int listener = listen_as_ztunnel();
    if (pipe(all_open) < 0 || pipe(done) < 0 || pipe(told) < 0) die("pipe");
    for (int i = 0; i < 2 * workers; i++) {
        if (fork() != 0) continue;
        close(all_open[1]);
        close(done[1]);
        close(told[0]);
        if (i % 2 == 0) play_ztunnel(listener, each, all_open[0], done[0]);
        close(listener);
        close(done[0]);
        play_application(i / 2 * each, each, argv + 2, argc - 2, told[1], all_open[0]);
    }
    close(told[1]);
    sum(told[0], workers);
    close(all_open[1]);
    const struct result all = sum(told[0], workers);
    printf("{\"open\":%d,\"wrong\":%d}\n", all.open, all.wrong);
    close(done[1]);
    while (wait(NULL) > 0)
        continue;
    return 0;
}
