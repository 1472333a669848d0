// SPDX-License-Identifier: Apache-2.0
// The smallest proxy that behaves to the kernel as ztunnel does inside a pod: the same listeners,
// marks, questions about the original destination, and a spoofed source towards the application.
// One thread. It opens its listeners on the first line of stdin, answers each further line with its
// counts, and ends with stdin.
#include "endpoint.h"
#include "process.h"

#include <fcntl.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MARK = 0x539, BUFFER = 65536, EVENTS = 256, BACKLOG = 128, ORIGINAL_DST = 80 };
enum kind { CONTROL, LISTENER, LEG };

struct listener {
    enum kind kind;
    int fd;
    bool spoofs;
    uint16_t port;
    unsigned long accepted, unexpected;
    struct endpoint surprise; // the first unexpected original destination
};

struct leg {
    enum kind kind;
    int fd;
    bool hung_up, ended, shut;
    char* pending; // read here, not yet written to the other leg
    size_t start, length;
    struct leg* other;
    struct flow* flow;
};

struct flow {
    struct leg client, server;
    bool connected, dead;
    struct flow* next_dead;
};

static int poller;
static struct listener outbound = {.kind = LISTENER, .port = 15001};
static struct listener inbound = {.kind = LISTENER, .port = 15006, .spoofs = true};
static struct range fixed, expected;
static unsigned long failed, flows;
static struct flow* dead;
static char buffer[BUFFER];

static void watch(int fd, void* who, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = who};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) < 0) die("epoll_ctl");
}

static void set(int fd, int level, int name, int value) {
    if (setsockopt(fd, level, name, &value, sizeof value) < 0) die("setsockopt");
}

static void listener_open(struct listener* listener) {
    struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(listener->port)};
    listener->fd = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener->fd < 0) die("socket");
    set(listener->fd, SOL_SOCKET, SO_MARK, MARK);
    set(listener->fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (bind(listener->fd, (void*)&any, sizeof any) < 0) die("bind a listener");
    if (listen(listener->fd, BACKLOG) < 0) die("listen");
    // The kernel keeps one bit for both families.
    set(listener->fd, SOL_IP, IP_TRANSPARENT, 1);
    watch(listener->fd, listener, EPOLLIN);
}

// The three questions of ztunnel, in its order.
static struct endpoint original_destination(int fd) {
    struct sockaddr_storage name = {0};
    socklen_t size = sizeof name;
    if (getsockopt(fd, SOL_IP, ORIGINAL_DST, &name, &size) < 0) {
        size = sizeof name;
        if (getsockopt(fd, SOL_IPV6, ORIGINAL_DST, &name, &size) < 0) {
            size = sizeof name;
            if (getsockname(fd, (void*)&name, &size) < 0) die("getsockname");
        }
    }
    return endpoint_from(&name);
}

// A socket on its way to `to`; with `client` it wears the client's address.
static int start_connect(const struct endpoint* to, const struct endpoint* client) {
    struct sockaddr_storage name;
    int fd = socket(to->family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) die("socket");
    set(fd, SOL_SOCKET, SO_MARK, MARK);
    set(fd, SOL_TCP, TCP_NODELAY, 1);
    if (client) {
        struct endpoint worn = *client;
        bool v4 = worn.family == AF_INET;
        worn.port = 0;
        set(fd, v4 ? SOL_IP : SOL_IPV6, v4 ? IP_TRANSPARENT : IPV6_TRANSPARENT, 1);
        set(fd, v4 ? SOL_IP : SOL_IPV6, v4 ? IP_FREEBIND : IPV6_FREEBIND, 1);
        if (bind(fd, (void*)&name, endpoint_to(&worn, &name)) < 0) die("bind the client's address");
    }
    if (connect(fd, (void*)&name, endpoint_to(to, &name)) < 0 && errno != EINPROGRESS) {
        close(fd);
        return -1;
    }
    return fd;
}

// False: the destination is not what the benchmark asked for, or can't be reached.
static bool choose_destination(struct listener* listener, int fd, struct endpoint* to) {
    *to = original_destination(fd);
    if (fixed.count > 0) {
        *to = range_at(&fixed, flows);
        return true;
    }
    if (range_find(&expected, to) >= 0) return true;
    if (listener->unexpected++ == 0) listener->surprise = *to;
    return false;
}

static void flow_open(struct listener* listener, int fd, const struct endpoint* client) {
    struct endpoint to;
    int server = -1;
    if (choose_destination(listener, fd, &to)) {
        server = start_connect(&to, listener->spoofs ? client : NULL);
        if (server < 0) failed++;
    }
    if (server < 0) {
        close(fd);
        return;
    }
    flows++;
    struct flow* flow = calloc(1, sizeof *flow);
    if (!flow) die("calloc");
    flow->client = (struct leg){.kind = LEG, .fd = fd, .other = &flow->server, .flow = flow};
    flow->server = (struct leg){.kind = LEG, .fd = server, .other = &flow->client, .flow = flow};
    set(fd, SOL_TCP, TCP_NODELAY, 1);
    watch(server, &flow->server, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
    watch(fd, &flow->client, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
}

static void accept_all(struct listener* listener) {
    for (;;) {
        struct sockaddr_storage name;
        socklen_t size = sizeof name;
        int fd = accept4(listener->fd, (void*)&name, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && errno == EAGAIN) return;
        if (fd < 0) die("accept");
        listener->accepted++;
        struct endpoint client = endpoint_from(&name);
        flow_open(listener, fd, &client);
    }
}

// Freed after the batch of events, which may name this flow again.
static void flow_close(struct flow* flow) {
    if (flow->dead) return;
    close(flow->client.fd);
    close(flow->server.fd);
    free(flow->client.pending);
    free(flow->server.pending);
    flow->dead = true;
    flow->next_dead = dead;
    dead = flow;
}

static void keep(struct leg* leg, const char* data, size_t length) {
    if (!leg->pending && !(leg->pending = malloc(BUFFER))) die("malloc");
    memcpy(leg->pending, data, length);
    leg->start = 0;
    leg->length = length;
}

// Moves what there is until one side blocks. False: the flow is broken.
static bool pump(struct leg* from, struct leg* to) {
    for (;;) {
        if (from->length > 0) {
            ssize_t sent = write(to->fd, from->pending + from->start, from->length);
            if (sent < 0) return errno == EAGAIN;
            from->start += sent;
            from->length -= sent;
            continue;
        }
        if (from->ended) {
            if (!to->shut && shutdown(to->fd, SHUT_WR) < 0) return false;
            to->shut = true;
            return true;
        }
        ssize_t got = read(from->fd, buffer, BUFFER);
        if (got < 0) return errno == EAGAIN;
        from->ended = got == 0;
        if (got == 0) continue;
        ssize_t sent = write(to->fd, buffer, got);
        if (sent < 0 && errno != EAGAIN) return false;
        if (sent < 0) sent = 0;
        if (sent < got) keep(from, buffer + sent, got - sent);
        // A short read has emptied the socket; only its end could still be there, and then we were
        // told.
        else if (got < BUFFER && !from->hung_up)
            return true;
    }
}

static void leg_event(struct leg* leg, uint32_t events) {
    struct flow* flow = leg->flow;
    if (flow->dead) return;
    if (events & (EPOLLRDHUP | EPOLLHUP)) leg->hung_up = true;
    if (leg == &flow->server && !flow->connected) {
        if (events & (EPOLLERR | EPOLLHUP)) {
            failed++;
            flow_close(flow);
            return;
        }
        flow->connected = (events & EPOLLOUT) != 0;
    }
    if (!flow->connected) return;
    if (!pump(&flow->client, &flow->server) || !pump(&flow->server, &flow->client) ||
        (flow->client.shut && flow->server.shut))
        flow_close(flow);
}

static void print_listener(const char* name, const struct listener* listener) {
    char text[80] = "";
    if (listener->unexpected > 0) endpoint_text(&listener->surprise, text, sizeof text);
    printf("\"%s\":{\"accepted\":%lu,\"unexpected\":%lu,\"surprise\":\"%s\"},", name,
           listener->accepted, listener->unexpected, text);
}

static void control(void) {
    char line[64];
    ssize_t got = read(STDIN_FILENO, line, sizeof line);
    if (got <= 0) exit(0);
    printf("{");
    print_listener("outbound", &outbound);
    print_listener("inbound", &inbound);
    printf("\"failed\":%lu,\"cpu\":%.6f}\n", failed, cpu_seconds());
    fflush(stdout);
}

static void serve(void) {
    struct epoll_event events[EVENTS];
    int count = epoll_wait(poller, events, EVENTS, -1);
    if (count < 0 && errno != EINTR) die("epoll_wait");
    for (int i = 0; i < count; i++) {
        enum kind* kind = events[i].data.ptr;
        if (*kind == LEG) leg_event(events[i].data.ptr, events[i].events);
        if (*kind == LISTENER) accept_all(events[i].data.ptr);
        if (*kind == CONTROL) control();
    }
    while (dead) {
        struct flow* next = dead->next_dead;
        free(dead);
        dead = next;
    }
}

int main(int argc, char** argv) {
    static const struct option options[] = {{"cpu", required_argument, NULL, 'c'},
                                            {"fixed-destination", required_argument, NULL, 'f'},
                                            {"expect", required_argument, NULL, 'e'},
                                            {0}};
    static enum kind stdin_kind = CONTROL;
    bool good = true;
    char line[64];
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (option == 'c') pin_to(atoi(optarg));
        if (option == 'f') good = good && range_parse(&fixed, optarg);
        if (option == 'e') good = good && range_parse(&expected, optarg);
        if (option == '?') good = false;
    }
    if (!good || (fixed.count == 0) == (expected.count == 0))
        usage("proxy [--cpu N] --expect IP:PORT[+N] | --fixed-destination IP:PORT[+N]");
    signal(SIGPIPE, SIG_IGN);
    if (read(STDIN_FILENO, line, sizeof line) <= 0) return 0;
    poller = epoll_create1(EPOLL_CLOEXEC);
    listener_open(&outbound);
    listener_open(&inbound);
    watch(STDIN_FILENO, &stdin_kind, EPOLLIN);
    puts("ready");
    fflush(stdout);
    for (;;)
        serve();
}
