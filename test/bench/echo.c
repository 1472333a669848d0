// SPDX-License-Identifier: Apache-2.0
// The application behind the proxy: echoes, or swallows (--sink). The first byte of each connection
// says which destination port or which source address the client used; what does not agree is
// counted. It listens on [::]:PORT..PORT+N-1, answers each line of stdin with its counts, and ends
// with stdin.
#include "endpoint.h"
#include "process.h"

#include <getopt.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BUFFER = 65536 * 4, EVENTS = 256, BACKLOG = 1024 };
enum kind { CONTROL, LISTENER, CLIENT };

struct source {
    enum kind kind;
    int fd;
    int index;    // what the first byte should be, or -1
    bool greeted; // the first byte has been seen
};

static int poller;
static bool sink;
static struct range clients;
static unsigned long accepted, mismatched, received;
static char buffer[BUFFER];

static void watch(struct source* source) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = source};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, source->fd, &event) < 0) die("epoll_ctl");
}

static struct source* source_new(enum kind kind, int fd, int index) {
    struct source* source = calloc(1, sizeof *source);
    if (!source) die("calloc");
    *source = (struct source){.kind = kind, .fd = fd, .index = index};
    watch(source);
    return source;
}

static void listen_at(uint16_t port, int index) {
    struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    int on = 1, fd = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) die("socket");
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0) die("SO_REUSEADDR");
    if (bind(fd, (void*)&any, sizeof any) < 0) die("bind");
    if (listen(fd, BACKLOG) < 0) die("listen");
    source_new(LISTENER, fd, index);
}

static void accept_all(const struct source* listener) {
    for (;;) {
        struct sockaddr_storage name;
        socklen_t size = sizeof name;
        int on = 1, index = listener->index;
        int fd = accept4(listener->fd, (void*)&name, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && errno == EAGAIN) return;
        if (fd < 0) die("accept");
        accepted++;
        setsockopt(fd, SOL_TCP, TCP_NODELAY, &on, sizeof on);
        if (clients.count > 0) {
            struct endpoint client = endpoint_from(&name);
            client.port = clients.first.port;
            index = range_find(&clients, &client);
            // Nobody sends this byte.
            if (index < 0) index = 255;
        }
        source_new(CLIENT, fd, index);
    }
}

static void serve_client(struct source* client) {
    // What swallowing costs should not hide what redirection costs: MSG_TRUNC drops without
    // copying.
    ssize_t got = sink && client->greeted ? recv(client->fd, NULL, 1 << 24, MSG_TRUNC)
                                          : read(client->fd, buffer, BUFFER);
    if (got < 0 && errno == EAGAIN) return;
    if (got > 0) {
        received += got;
        if (!client->greeted && client->index >= 0 && buffer[0] != (char)client->index)
            mismatched++;
        client->greeted = true;
        // No client has more in flight than a socket buffer holds.
        if (sink || write(client->fd, buffer, got) == got) return;
    }
    close(client->fd);
    free(client);
}

static void control(void) {
    char line[64];
    if (read(STDIN_FILENO, line, sizeof line) <= 0) exit(0);
    printf("{\"accepted\":%lu,\"mismatched\":%lu,\"received\":%lu,\"cpu\":%.6f}\n", accepted,
           mismatched, received, cpu_seconds());
    fflush(stdout);
}

int main(int argc, char** argv) {
    static const struct option options[] = {{"cpu", required_argument, NULL, 'c'},
                                            {"port", required_argument, NULL, 'p'},
                                            {"ports", required_argument, NULL, 'n'},
                                            {"check-ports", no_argument, NULL, 'k'},
                                            {"check-clients", required_argument, NULL, 'r'},
                                            {"sink", no_argument, NULL, 's'},
                                            {0}};
    unsigned port = 0, ports = 1;
    bool good = true, check_ports = false;
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (option == 'c') pin_to(atoi(optarg));
        if (option == 'p') port = atoi(optarg);
        if (option == 'n') ports = atoi(optarg);
        if (option == 'k') check_ports = true;
        if (option == 'r') good = good && range_parse(&clients, optarg);
        if (option == 's') sink = true;
        if (option == '?') good = false;
    }
    if (!good || port == 0)
        usage("echo --port P [--ports N] [--check-ports | --check-clients IP+N:0] [--sink] [--cpu "
              "N]");
    signal(SIGPIPE, SIG_IGN);
    poller = epoll_create1(EPOLL_CLOEXEC);
    for (unsigned i = 0; i < ports; i++)
        listen_at(port + i, check_ports ? (int)i : -1);
    source_new(CONTROL, STDIN_FILENO, -1);
    puts("ready");
    fflush(stdout);
    for (;;) {
        struct epoll_event events[EVENTS];
        int count = epoll_wait(poller, events, EVENTS, -1);
        if (count < 0 && errno != EINTR) die("epoll_wait");
        for (int i = 0; i < count; i++) {
            struct source* source = events[i].data.ptr;
            switch (source->kind) {
            case CLIENT:
                serve_client(source);
                break;
            case LISTENER:
                accept_all(source);
                break;
            case CONTROL:
                control();
            }
        }
    }
}
