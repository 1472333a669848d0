// SPDX-License-Identifier: Apache-2.0
// Sends one TCP SYN in a shape that no ordinary socket makes: with IP options or an IPv6 extension
// header, or in fragments that part the TCP header from its options. Nobody completes the
// handshake. usage: lab-syn SHAPE SRC SPORT DST DPORT
//
// SHAPE: plain | options | fragments | invalid (with FIN, which conntrack calls so)
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* Linux drops an IPv6 first fragment that does not hold the whole TCP header. */
enum { SYN = 2, FIN = 1 };
enum { TCP_LEN = 40, CUT4 = 8, CUT6 = 24 };

static uint8_t flags = SYN;

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

static void put16(uint8_t* at, uint16_t value) {
    at[0] = value >> 8;
    at[1] = value & 0xff;
}

/* TCP header of 20 bytes and 20 bytes of options: MSS, SACK permitted, then padding. */
static void make_tcp(uint8_t* tcp, const void* src, const void* dst, size_t address, int sport,
                     int dport) {
    memset(tcp, 0, TCP_LEN);
    put16(tcp, sport);
    put16(tcp + 2, dport);
    memcpy(tcp + 4, "\1\2\3\4", 4);
    tcp[12] = TCP_LEN / 4 << 4;
    tcp[13] = flags;
    put16(tcp + 14, 65535);
    memcpy(tcp + 20, "\2\4\5\xb4\4\2", 6);
    uint32_t sum = add_words(0, src, address);
    sum = add_words(sum, dst, address) + IPPROTO_TCP + TCP_LEN;
    put16(tcp + 16, folded(add_words(sum, tcp, TCP_LEN)));
}

static void send_packet(int fd, const void* to, socklen_t to_size, const uint8_t* packet,
                        size_t size) {
    if (sendto(fd, packet, size, 0, to, to_size) != (ssize_t)size) {
        perror("sendto");
        exit(1);
    }
}

static void ipv4(const char* shape, const char* src, int sport, const char* dst, int dport) {
    struct sockaddr_in to = {.sin_family = AF_INET};
    uint8_t from[4], tcp[TCP_LEN], packet[128] = {0};
    inet_pton(AF_INET, src, from);
    inet_pton(AF_INET, dst, &to.sin_addr);
    make_tcp(tcp, from, &to.sin_addr, 4, sport, dport);
    int fd = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
    const size_t header = strcmp(shape, "options") == 0 ? 24 : 20;
    packet[0] = 0x40 | header / 4;
    put16(packet + 4, 0x4711);
    packet[8] = 64;
    packet[9] = IPPROTO_TCP;
    memcpy(packet + 12, from, 4);
    memcpy(packet + 16, &to.sin_addr, 4);
    /* Four no-operations: a router alert or a route option may be dropped on the way. */
    if (header == 24) memset(packet + 20, 1, 4);
    if (strcmp(shape, "fragments") != 0) {
        memcpy(packet + header, tcp, TCP_LEN);
        put16(packet + 2, header + TCP_LEN);
        send_packet(fd, &to, sizeof(to), packet, header + TCP_LEN);
        return;
    }
    for (size_t offset = 0; offset < TCP_LEN; offset += CUT4) {
        put16(packet + 2, header + CUT4);
        put16(packet + 6, offset / 8 | (offset + CUT4 < TCP_LEN ? 0x2000 : 0));
        memcpy(packet + header, tcp + offset, CUT4);
        send_packet(fd, &to, sizeof(to), packet, header + CUT4);
    }
}

static void ipv6(const char* shape, const char* src, int sport, const char* dst, int dport) {
    struct sockaddr_in6 to = {.sin6_family = AF_INET6};
    uint8_t from[16], tcp[TCP_LEN], packet[128] = {0};
    inet_pton(AF_INET6, src, from);
    inet_pton(AF_INET6, dst, &to.sin6_addr);
    make_tcp(tcp, from, &to.sin6_addr, 16, sport, dport);
    int fd = socket(AF_INET6, SOCK_RAW, IPPROTO_RAW);
    const int fragments = strcmp(shape, "fragments") == 0;
    const size_t extension = strcmp(shape, "plain") == 0 ? 0 : 8;
    packet[0] = 0x60;
    packet[6] = extension == 0 ? IPPROTO_TCP : fragments ? IPPROTO_FRAGMENT : IPPROTO_DSTOPTS;
    packet[7] = 64;
    memcpy(packet + 8, from, 16);
    memcpy(packet + 24, &to.sin6_addr, 16);
    packet[40] = IPPROTO_TCP;
    if (!fragments) {
        /* Destination options: one PadN of six bytes. */
        if (extension != 0) memcpy(packet + 42, "\1\4\0\0\0\0", 6);
        memcpy(packet + 40 + extension, tcp, TCP_LEN);
        put16(packet + 4, extension + TCP_LEN);
        send_packet(fd, &to, sizeof(to), packet, 40 + extension + TCP_LEN);
        return;
    }
    for (size_t offset = 0; offset < TCP_LEN; offset += CUT6) {
        const int last = offset + CUT6 >= TCP_LEN;
        const size_t size = last ? TCP_LEN - offset : CUT6;
        put16(packet + 4, extension + size);
        put16(packet + 42, offset | (last ? 0 : 1));
        memcpy(packet + 44, "\0\0\x47\x11", 4);
        memcpy(packet + 48, tcp + offset, size);
        send_packet(fd, &to, sizeof(to), packet, 48 + size);
    }
}

int main(int argc, char** argv) {
    if (argc != 6) return 2;
    const char* shape = argv[1];
    if (strcmp(shape, "invalid") == 0) {
        flags = SYN | FIN;
        shape = "plain";
    }
    if (strchr(argv[2], ':') != NULL)
        ipv6(shape, argv[2], atoi(argv[3]), argv[4], atoi(argv[5]));
    else
        ipv4(shape, argv[2], atoi(argv[3]), argv[4], atoi(argv[5]));
    return 0;
}
