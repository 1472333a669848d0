// SPDX-License-Identifier: Apache-2.0
/*
 * What runs in a pod of the runtime tests. Each command prints JSON lines:
 *
 *   serve NAME                      answers on port 8080: one line that says who it is and whom it
 * sees, then an echo connect ADDRESS PORT MARKER     one connection: sends MARKER at once, prints
 * what the server said first ADDRESS PORT MARKER NAME  the very first thing this process does is
 * that connection; then it serves chat ADDRESS PORT               until SIGTERM: new connections,
 * and one that stays; prints each failure, then the sums
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum {
    SERVER_PORT = 8080,
    LINE = 512,
    NAME = 64,
    BACKLOG = 128,
    TIMEOUT_SECONDS = 30,
    CHAT_PAUSE_MS = 5
};

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

static volatile sig_atomic_t over;

static void end(int signal) {
    (void)signal;
    over = 1;
}

/** `address:port`; an IPv4 address of an IPv6 socket as IPv4. */
static void print(const union address* address, char out[NAME]) {
    char text[INET6_ADDRSTRLEN] = "?";

    if (address->any.sa_family == AF_INET) {
        inet_ntop(AF_INET, &address->v4.sin_addr, text, sizeof text);
        snprintf(out, NAME, "%s:%u", text, ntohs(address->v4.sin_port));
        return;
    }
    const struct in6_addr* in6 = &address->v6.sin6_addr;
    if (IN6_IS_ADDR_V4MAPPED(in6))
        inet_ntop(AF_INET, in6->s6_addr + 12, text, sizeof text);
    else
        inet_ntop(AF_INET6, in6, text, sizeof text);
    snprintf(out, NAME, "%s:%u", text, ntohs(address->v6.sin6_port));
}

static void print_ends(int fd, char peer[NAME], char local[NAME]) {
    union address address = {0};
    socklen_t size = sizeof address;

    snprintf(peer, NAME, "?");
    snprintf(local, NAME, "?");
    if (getpeername(fd, &address.any, &size) == 0) print(&address, peer);
    size = sizeof address;
    if (getsockname(fd, &address.any, &size) == 0) print(&address, local);
}

/** Writes all of it. */
static bool say(int fd, const char* text) {
    for (size_t left = strlen(text); left > 0;) {
        const ssize_t done = send(fd, text, left, MSG_NOSIGNAL);

        if (done <= 0) return false;
        text += done;
        left -= (size_t)done;
    }
    return true;
}

/** Reads a line without its end. False: the connection ended, failed or took too long; errno is 0
 * for the first. */
static bool hear(int fd, char line[LINE]) {
    for (size_t at = 0; at < LINE - 1; at++) {
        errno = 0;
        if (recv(fd, line + at, 1, 0) != 1) return false;
        if (line[at] == '\n') {
            line[at] = 0;
            return true;
        }
    }
    errno = EMSGSIZE;
    return false;
}

static int dial(const char* text, const char* port) {
    const struct timeval limit = {.tv_sec = TIMEOUT_SECONDS};
    union address to = {0};
    socklen_t size = sizeof to.v4;

    if (inet_pton(AF_INET, text, &to.v4.sin_addr) == 1) {
        to.v4.sin_family = AF_INET;
        to.v4.sin_port = htons((uint16_t)atoi(port));
    } else if (inet_pton(AF_INET6, text, &to.v6.sin6_addr) == 1) {
        to.v6.sin6_family = AF_INET6;
        to.v6.sin6_port = htons((uint16_t)atoi(port));
        size = sizeof to.v6;
    } else {
        errno = EINVAL;
        return -1;
    }
    const int fd = socket(to.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) ||
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) ||
        connect(fd, &to.any, size)) {
        const int saved = errno;

        close(fd);
        errno = saved;
        return -1;
    }
    return fd;
}

/** One line about what stopped a connection. */
static int failed(const char* step) {
    const char* name = errno == 0 ? "EOF" : strerrorname_np(errno);

    printf("{\"failed\":\"%s\",\"code\":\"%s\"}\n", step, name != NULL ? name : "?");
    return 1;
}

static int connect_once(char* const args[]) {
    char line[LINE], peer[NAME], local[NAME];
    const int fd = dial(args[0], args[1]);

    if (fd < 0) return failed("connect");
    if (!say(fd, args[2]) || !say(fd, "\n")) return failed("send");
    if (!hear(fd, line)) return failed("greeting");
    print_ends(fd, peer, local);
    // The server's line is an object; ours are two more of its members.
    line[strlen(line) - 1] = 0;
    printf("%s,\"clientPeer\":\"%s\",\"clientLocal\":\"%s\"}\n", line, peer, local);
    close(fd);
    return 0;
}

static void serve_one(int fd, const char* name) {
    char line[LINE + 1], peer[NAME], local[NAME];

    print_ends(fd, peer, local);
    snprintf(line, sizeof line, "{\"server\":\"%s\",\"clientSeen\":\"%s\",\"serverSeen\":\"%s\"}\n",
             name, peer, local);
    if (!say(fd, line)) return;
    while (hear(fd, line)) {
        strcat(line, "\n");
        if (!say(fd, line)) return;
    }
}

static int serve(const char* name) {
    const union address any = {.v6 = {.sin6_family = AF_INET6, .sin6_port = htons(SERVER_PORT)}};
    const int one = 1, zero = 0;
    const int listener = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) ||
        setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero) ||
        bind(listener, &any.any, sizeof any.v6) || listen(listener, BACKLOG))
        return failed("listen");
    signal(SIGCHLD, SIG_IGN);
    printf("{\"serves\":\"%s\"}\n", name);
    while (!over) {
        const int fd = accept(listener, NULL, NULL);

        if (fd < 0) continue;
        if (fork() == 0) {
            close(listener);
            serve_one(fd, name);
            _exit(0);
        }
        close(fd);
    }
    return 0;
}

static int chat(char* const args[]) {
    unsigned long opened = 0, said = 0, failures = 0;
    const struct timespec rest = {.tv_nsec = CHAT_PAUSE_MS * 1000000L};
    char line[LINE], sent[NAME];
    sigset_t mask, open_mask;
    const int kept = dial(args[0], args[1]);

    if (kept < 0 || !hear(kept, line)) return failed("connect");
    // Only the pause is interrupted: a call with a timeout would fail with EINTR.
    sigemptyset(&mask);
    sigaddset(&mask, SIGTERM);
    sigprocmask(SIG_BLOCK, &mask, &open_mask);
    printf("{\"chats\":true}\n");
    while (!over) {
        const int fd = dial(args[0], args[1]);

        if (fd < 0 || !hear(fd, line)) {
            failed("connect");
            failures++;
        } else {
            opened++;
        }
        if (fd >= 0) close(fd);
        snprintf(sent, sizeof sent, "line %lu\n", said);
        if (!say(kept, sent) || !hear(kept, line) || strlen(line) != strlen(sent) - 1 ||
            strncmp(line, sent, strlen(line)) != 0) {
            failed("echo");
            failures++;
            break;
        }
        said++;
        ppoll(NULL, 0, &rest, &open_mask);
    }
    printf("{\"opened\":%lu,\"said\":%lu,\"failures\":%lu}\n", opened, said, failures);
    return failures > 0;
}

int main(int argc, char* argv[]) {
    const struct sigaction ending = {.sa_handler = end};
    const char* command = argc > 1 ? argv[1] : "";

    setvbuf(stdout, NULL, _IOLBF, 0);
    if (strcmp(command, "first") == 0 && argc == 6) connect_once(argv + 2);
    // As pid 1 of a container it would otherwise ignore the signal.
    sigaction(SIGTERM, &ending, NULL);
    if (strcmp(command, "first") == 0 && argc == 6) return serve(argv[5]);
    if (strcmp(command, "serve") == 0 && argc == 3) return serve(argv[2]);
    if (strcmp(command, "connect") == 0 && argc == 5) return connect_once(argv + 2);
    if (strcmp(command, "chat") == 0 && argc == 4) return chat(argv + 2);
    fprintf(stderr, "usage: pod serve NAME | connect ADDRESS PORT MARKER | first ADDRESS PORT "
                    "MARKER NAME | chat ADDRESS PORT\n");
    return 2;
}
