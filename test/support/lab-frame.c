// SPDX-License-Identifier: Apache-2.0
// Sends Ethernet frames that no ordinary socket makes, and tells which of them arrive. It runs in
// the netns that receives and enters the other one to send, so that it listens before the first
// frame leaves.
//
// usage: lab-frame RECEIVER NETNS SENDER MAC
//
// RECEIVER and SENDER are devices, MAC is the destination of the frames. Each line of stdin: SHAPE
// MARK SRC SPORT DST DPORT. Prints the source ports of what arrived, in order, up to the first
// frame of shape "ack", which nobody stops: send it last.
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TCP_LEN = 40, FRAME = 512, WAIT_MS = 5000, MADE_UP = 0x88b5, SYN = 2, ACK = 16 };
enum { HOP_BY_HOP = 0, ROUTING = 43, FRAGMENT = 44, DESTINATION = 60 };
static const uint8_t origin[6] = {2, 0, 0, 0x66, 0x66, 0x66};
static const uint8_t sequence[4] = {0xa5, 0x5a, 0xc3, 0x3c};

struct frame {
    uint8_t byte[FRAME];
    size_t size;
};

struct ends {
    int family;
    size_t length; // of an address
    uint8_t source[16], destination[16];
    unsigned source_port, destination_port;
};

static void die(const char* what) {
    perror(what);
    exit(1);
}

static uint32_t add_words(uint32_t sum, const void* data, size_t size) {
    const uint8_t* byte = data;
    for (size_t i = 0; i + 1 < size; i += 2)
        sum += (uint32_t)byte[i] << 8 | byte[i + 1];
    return sum;
}

static uint16_t folded(uint32_t sum) {
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

static void put(struct frame* f, const void* data, size_t size) {
    memcpy(f->byte + f->size, data, size);
    f->size += size;
}

static void put8(struct frame* f, uint8_t value) {
    put(f, &value, 1);
}

static void put16(struct frame* f, uint16_t value) {
    put8(f, value >> 8);
    put8(f, value & 0xff);
}

/* TCP header of 20 bytes and 20 bytes of options: MSS, SACK permitted, then padding. */
static void make_tcp(uint8_t* tcp, const struct ends* e, int flags) {
    memset(tcp, 0, TCP_LEN);
    const uint16_t ports[2] = {htons(e->source_port), htons(e->destination_port)};
    memcpy(tcp, ports, 4);
    memcpy(tcp + 4, sequence, 4);
    tcp[12] = TCP_LEN / 4 << 4;
    tcp[13] = flags;
    tcp[14] = tcp[15] = 0xff;
    memcpy(tcp + 20, "\2\4\5\xb4\4\2", 6);
    uint32_t sum = add_words(0, e->source, e->length);
    sum = add_words(sum, e->destination, e->length) + IPPROTO_TCP + TCP_LEN;
    const uint16_t check = htons(folded(add_words(sum, tcp, TCP_LEN)));
    memcpy(tcp + 16, &check, 2);
}

/* `cut`: this many bytes of TCP in a first fragment; 0: no fragment. */
static void put_ipv4(struct frame* f, const struct ends* e, const uint8_t* tcp, bool options,
                     size_t cut) {
    const size_t header = options ? 24 : 20, start = f->size, size = cut ? cut : TCP_LEN;
    put8(f, 0x40 | header / 4);
    put8(f, 0);
    put16(f, header + size);
    put16(f, e->source_port); // id: told apart from other fragments
    put16(f, cut ? 0x2000 : 0);
    put8(f, 64);
    put8(f, IPPROTO_TCP);
    put16(f, 0);
    put(f, e->source, 4);
    put(f, e->destination, 4);
    /* No-operations: a router alert or a route option may be dropped on the way. */
    if (options) put(f, "\1\1\1\1", 4);
    const uint16_t check = htons(folded(add_words(0, f->byte + start, header)));
    memcpy(f->byte + start + 10, &check, 2);
    put(f, tcp, size);
}

/* `extensions`: numbers of headers, ended by -1; a fragment header is a first one if `cut`. */
static void put_ipv6(struct frame* f, const struct ends* e, const uint8_t* tcp,
                     const int* extensions, size_t cut) {
    size_t count = 0, size = cut ? cut : TCP_LEN;
    while (extensions[count] >= 0)
        count++;
    put(f, "\x60\0\0\0", 4);
    put16(f, 8 * count + size);
    put8(f, count > 0 ? extensions[0] : IPPROTO_TCP);
    put8(f, 64);
    put(f, e->source, 16);
    put(f, e->destination, 16);
    for (size_t i = 0; i < count; i++) {
        put8(f, i + 1 < count ? extensions[i + 1] : IPPROTO_TCP);
        put8(f, 0);
        if (extensions[i] == FRAGMENT) {
            put16(f, cut ? 1 : 0);
            put16(f, 0x4711);
            put16(f, e->source_port);
        } else {
            /* One PadN; read as a routing header: of type 4, with no segment left. */
            put(f, extensions[i] == ROUTING ? "\4\0\0\0\0\0" : "\1\4\0\0\0\0", 6);
        }
    }
    put(f, tcp, size);
}

/* What stands before the IP header: tags of no VLAN. */
static void put_ethernet(struct frame* f, const uint8_t* to, int family, int tags) {
    put(f, to, 6);
    put(f, origin, 6);
    for (int i = 0; i < tags; i++) {
        put16(f, i + 1 < tags ? ETH_P_8021AD : ETH_P_8021Q);
        put16(f, 0);
    }
    put16(f, family == AF_INET ? ETHERTYPE_IP : ETHERTYPE_IPV6);
}

static void make_frame(struct frame* f, const char* shape, const uint8_t* to,
                       const struct ends* e) {
    static const struct {
        const char* shape;
        int extensions[4];
        size_t cut;
    } shapes[] = {{"hopbyhop", {HOP_BY_HOP, -1}, 0},
                  {"options", {DESTINATION, -1}, 0},
                  {"routing", {ROUTING, -1}, 0},
                  {"atomic", {FRAGMENT, -1}, 0},
                  {"chain", {HOP_BY_HOP, DESTINATION, FRAGMENT, -1}, 0},
                  {"fragment", {FRAGMENT, -1}, 24},
                  {"short", {FRAGMENT, -1}, 8},
                  {"short-options", {DESTINATION, FRAGMENT, -1}, 8},
                  {"", {-1}, 0}};
    uint8_t tcp[TCP_LEN];
    *f = (struct frame){.size = 0};
    make_tcp(tcp, e,
             strcmp(shape, "ack") == 0      ? ACK
             : strcmp(shape, "synfin") == 0 ? SYN | 1
                                            : SYN);
    const int tags = strcmp(shape, "tag") == 0 ? 1 : strcmp(shape, "tags") == 0 ? 2 : 0;
    put_ethernet(f, to, e->family, tags);
    if (e->family == AF_INET) {
        const bool cut = strncmp(shape, "short", 5) == 0;
        put_ipv4(f, e, tcp, strstr(shape, "options") != NULL,
                 cut                              ? 8
                 : strcmp(shape, "fragment") == 0 ? 24
                                                  : 0);
        return;
    }
    size_t i = 0;
    while (*shapes[i].shape && strcmp(shapes[i].shape, shape) != 0)
        i++;
    put_ipv6(f, e, tcp, shapes[i].extensions, shapes[i].cut);
}

static int packet_socket(void) {
    const int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    if (fd < 0) die("socket");
    return fd;
}

static int watch(const char* device) {
    struct sockaddr_ll at = {.sll_family = AF_PACKET,
                             .sll_protocol = htons(ETH_P_ALL),
                             .sll_ifindex = if_nametoindex(device)};
    const int fd = packet_socket();
    if (bind(fd, (void*)&at, sizeof at) < 0) die("bind");
    return fd;
}

static void send_line(const char* line, int index, const uint8_t* to) {
    char shape[32], source[64], destination[64];
    int mark;
    struct ends e;
    struct frame f;
    if (sscanf(line, "%31s %i %63s %u %63s %u", shape, &mark, source, &e.source_port, destination,
               &e.destination_port) != 6)
        exit(2);
    e.family = strchr(source, ':') ? AF_INET6 : AF_INET;
    e.length = e.family == AF_INET ? 4 : 16;
    if (inet_pton(e.family, source, e.source) != 1 ||
        inet_pton(e.family, destination, e.destination) != 1)
        exit(2);
    make_frame(&f, shape, to, &e);
    struct sockaddr_ll via = {.sll_family = AF_PACKET,
                              .sll_ifindex = index,
                              .sll_protocol = strcmp(shape, "made-up") == 0
                                                  ? htons(MADE_UP)
                                                  : htons(f.byte[12] << 8 | f.byte[13])};
    const int fd = packet_socket();
    if (setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof mark) < 0) die("SO_MARK");
    /* What TC drops is an error to some callers, not to be told apart from others here. */
    if (sendto(fd, f.byte, f.size, 0, (void*)&via, sizeof via) < 0 && errno != ENOBUFS)
        die("sendto");
    close(fd);
}

/* Prints the source port of one of our frames. True: it was the last. */
static bool report(const uint8_t* byte, size_t size) {
    if (size < 14 || memcmp(byte + 6, origin, 6) != 0) return false;
    for (size_t at = 18; at + 4 <= size; at++) {
        if (memcmp(byte + at, sequence, 4) != 0) continue;
        printf("%u\n", byte[at - 4] << 8 | byte[at - 3]);
        return at + 10 <= size && byte[at + 9] == ACK;
    }
    return false;
}

int main(int argc, char** argv) {
    uint8_t to[6], byte[2048];
    char line[256];
    if (argc != 5 || sscanf(argv[4], "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &to[0], &to[1], &to[2],
                            &to[3], &to[4], &to[5]) != 6)
        return 2;
    struct pollfd arriving = {.fd = watch(argv[1]), .events = POLLIN};
    const int netns = open(argv[2], O_RDONLY | O_CLOEXEC);
    if (netns < 0 || setns(netns, CLONE_NEWNET) < 0) die(argv[2]);
    const int index = if_nametoindex(argv[3]);
    while (fgets(line, sizeof line, stdin))
        send_line(line, index, to);
    while (poll(&arriving, 1, WAIT_MS) > 0) {
        const ssize_t got = recv(arriving.fd, byte, sizeof byte, 0);
        if (got > 0 && report(byte, got)) return 0;
    }
    fputs("the last frame did not arrive\n", stderr);
    return 1;
}
