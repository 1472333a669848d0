// SPDX-License-Identifier: Apache-2.0
// The client: new connections per second, request latency, or bulk throughput. Prints one JSON
// object. The first byte of a connection is the number of its source address or, with one source,
// of its destination, for the server to compare.
#include "endpoint.h"
#include "process.h"

#include <getopt.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_PARALLEL = 1024, REQUEST = 64, CHUNK = 131072, SAMPLES = 1 << 20 };
// A connection that is older has lost a packet or hangs.
static const double HANG_SECONDS = 5;
// Not counted: caches, neighbour entries and the CPU's clock settle.
static const double WARM_UP_SECONDS = 0.03;

struct slot {
    int fd;
    bool sent;
};

static struct range targets, sources;
static double seconds = 1;
static unsigned parallel = 1;
static unsigned long opened, failed;
static struct slot slots[MAX_PARALLEL];
static char chunk[CHUNK];

// Starts one connection; `number` chooses source and destination.
static int open_connection(unsigned number, int flags) {
    struct sockaddr_storage name;
    struct endpoint to = range_at(&targets, number);
    int on = 1, fd = socket(to.family, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
    if (fd < 0) die("socket");
    setsockopt(fd, SOL_TCP, TCP_NODELAY, &on, sizeof on);
    if (sources.count > 0) {
        struct endpoint from = range_at(&sources, number);
        // So that connect chooses the port, as without bind.
        setsockopt(fd, SOL_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
        if (bind(fd, (void*)&name, endpoint_to(&from, &name)) < 0) die("bind");
    }
    if (connect(fd, (void*)&name, endpoint_to(&to, &name)) < 0 && errno != EINPROGRESS)
        die("connect");
    opened++;
    return fd;
}

static char greeting(unsigned number) {
    return number % (sources.count > 0 ? sources.count : targets.count);
}

static void start(int poller, struct slot* slot, unsigned number) {
    struct epoll_event event = {.events = EPOLLOUT | EPOLLIN | EPOLLET, .data.ptr = slot};
    slot->fd = open_connection(number, SOCK_NONBLOCK);
    slot->sent = false;
    if (epoll_ctl(poller, EPOLL_CTL_ADD, slot->fd, &event) < 0) die("epoll_ctl");
}

// 0: goes on. 1: the byte came back. -1: failed.
static int advance(struct slot* slot, uint32_t events, char byte) {
    char back;
    if (events & EPOLLERR) return -1;
    if (!slot->sent) {
        if (!(events & EPOLLOUT)) return 0;
        if (write(slot->fd, &byte, 1) != 1) return -1;
        slot->sent = true;
        return 0;
    }
    ssize_t got = read(slot->fd, &back, 1);
    if (got < 0 && errno == EAGAIN) return 0;
    return got == 1 && back == byte ? 1 : -1;
}

// Connect, one byte to and fro, close; `parallel` at any time.
static void measure_connections(void) {
    static unsigned numbers[MAX_PARALLEL];
    struct epoll_event events[256];
    int poller = epoll_create1(EPOLL_CLOEXEC);
    unsigned next = 0, open = 0;
    unsigned long done = 0, done_at_start = 0, done_at_end = 0;
    double time = now(), warm = time + WARM_UP_SECONDS, end = warm + seconds;
    double started = 0, ended = 0;
    for (; open < parallel; open++)
        start(poller, &slots[open], numbers[open] = next++);
    while (open > 0 && time < end + HANG_SECONDS) {
        int count = epoll_wait(poller, events, 256, 100);
        time = now();
        if (started == 0 && time >= warm) started = time, done_at_start = done;
        if (ended == 0 && time >= end) ended = time, done_at_end = done;
        for (int i = 0; i < count; i++) {
            struct slot* slot = events[i].data.ptr;
            unsigned* number = &numbers[slot - slots];
            int state = advance(slot, events[i].events, greeting(*number));
            if (state == 0) continue;
            if (state < 0) failed++;
            if (state > 0) done++;
            close(slot->fd);
            slot->fd = -1;
            if (ended == 0)
                start(poller, slot, *number = next++);
            else
                open--;
        }
    }
    printf("{\"opened\":%lu,\"failed\":%lu,\"hung\":%u,\"perSecond\":%.3f", opened, failed, open,
           (done_at_end - done_at_start) / (ended - started));
}

static int compare(const void* a, const void* b) {
    float x = *(const float*)a, y = *(const float*)b;
    return (x > y) - (x < y);
}

// One kept connection, one request in flight.
static void measure_latency(void) {
    static float samples[SAMPLES];
    char request[REQUEST] = {0};
    int fd = open_connection(0, 0);
    size_t count = 0;
    double begun = now(), time = begun, before;
    while (time < begun + WARM_UP_SECONDS + seconds && count < SAMPLES) {
        before = time;
        if (write(fd, request, REQUEST) != REQUEST) die("write");
        if (recv(fd, request, REQUEST, MSG_WAITALL) != REQUEST) die("recv");
        time = now();
        if (time > begun + WARM_UP_SECONDS) samples[count++] = (time - before) * 1e6;
    }
    close(fd);
    if (count == 0) die("no request was answered");
    qsort(samples, count, sizeof *samples, compare);
    printf("{\"opened\":%lu,\"failed\":0,\"hung\":0,\"requests\":%zu,\"p50\":%.3f,\"p99\":%.3f",
           opened, count, samples[count / 2], samples[count * 99 / 100]);
}

// Writes as much as `parallel` connections take, then waits until the server has read all of it.
static void measure_bulk(void) {
    struct epoll_event events[64];
    int poller = epoll_create1(EPOLL_CLOEXEC);
    double bytes = 0, begun = now(), end = begun + seconds;
    for (unsigned i = 0; i < parallel; i++) {
        char byte = greeting(i);
        slots[i].fd = open_connection(i, 0);
        if (write(slots[i].fd, &byte, 1) != 1) die("write");
        struct epoll_event event = {.events = EPOLLOUT, .data.ptr = &slots[i]};
        if (epoll_ctl(poller, EPOLL_CTL_ADD, slots[i].fd, &event) < 0) die("epoll_ctl");
    }
    while (now() < end) {
        int count = epoll_wait(poller, events, 64, 100);
        for (int i = 0; i < count; i++) {
            struct slot* slot = events[i].data.ptr;
            ssize_t sent = send(slot->fd, chunk, CHUNK, MSG_DONTWAIT);
            if (sent < 0 && errno != EAGAIN) die("send");
            if (sent > 0) bytes += sent;
        }
    }
    for (unsigned i = 0; i < parallel; i++)
        shutdown(slots[i].fd, SHUT_WR);
    for (unsigned i = 0; i < parallel; i++)
        if (read(slots[i].fd, chunk, CHUNK) != 0) die("the server's end");
    printf("{\"opened\":%lu,\"failed\":0,\"hung\":0,\"bytes\":%.0f,\"gigabits\":%.6f", opened,
           bytes + parallel, bytes * 8 / 1e9 / (now() - begun));
}

int main(int argc, char** argv) {
    static const struct option options[] = {{"cpu", required_argument, NULL, 'c'},
                                            {"mode", required_argument, NULL, 'm'},
                                            {"to", required_argument, NULL, 't'},
                                            {"from", required_argument, NULL, 'f'},
                                            {"parallel", required_argument, NULL, 'p'},
                                            {"seconds", required_argument, NULL, 's'},
                                            {0}};
    const char* mode = "";
    bool good = true;
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (option == 'c') pin_to(atoi(optarg));
        if (option == 'm') mode = optarg;
        if (option == 't') good = good && range_parse(&targets, optarg);
        if (option == 'f') good = good && range_parse(&sources, optarg);
        if (option == 'p') parallel = atoi(optarg);
        if (option == 's') seconds = atof(optarg);
        if (option == '?') good = false;
    }
    good = good && targets.count > 0 && parallel > 0 && parallel <= MAX_PARALLEL;
    signal(SIGPIPE, SIG_IGN);
    if (good && strcmp(mode, "connections") == 0)
        measure_connections();
    else if (good && strcmp(mode, "latency") == 0)
        measure_latency();
    else if (good && strcmp(mode, "bulk") == 0)
        measure_bulk();
    else
        usage(
            "load --mode connections|latency|bulk --to IP:PORT[+N] [--from IP+N:0] [--parallel N] "
            "[--seconds S] [--cpu N]");
    printf(",\"cpu\":%.6f}\n", cpu_seconds());
    return 0;
}
