// SPDX-License-Identifier: Apache-2.0
// Addresses with ports, and small ranges of them: "10.0.0.1:80", "[fd00::1]:80", "10.0.0.1:80+16"
// for 16 ports, "10.0.0.1+16:80" for 16 addresses (their last byte counts up).
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct endpoint {
    int family;
    uint16_t port;
    uint8_t address[16]; // the first 4 bytes for IPv4
};

struct range {
    struct endpoint first;
    unsigned count;
    bool by_address;
};

static inline size_t address_size(const struct endpoint* at) {
    return at->family == AF_INET ? 4 : 16;
}

static inline bool range_parse(struct range* range, const char* text) {
    char address[64] = "", *colon = strrchr(text, ':'), *plus, *close = strchr(text, ']');
    // What follows an IPv6 address's bracket is the count of addresses or the port.
    const char* end = close ? close + 1 : text + strcspn(text, "+:");
    size_t skip = *text == '[', length = end - text - 2 * skip;
    if (!colon || colon < end || length >= sizeof address) return false;
    memcpy(address, text + skip, length);
    *range = (struct range){.count = 1, .by_address = *end == '+'};
    range->first.family = skip ? AF_INET6 : AF_INET;
    if (inet_pton(range->first.family, address, range->first.address) != 1) return false;
    if (range->by_address) range->count = strtoul(end + 1, NULL, 10);
    range->first.port = strtoul(colon + 1, &plus, 10);
    if (*plus == '+') range->count = strtoul(plus + 1, NULL, 10);
    return range->count > 0;
}

static inline struct endpoint range_at(const struct range* range, unsigned index) {
    struct endpoint at = range->first;
    if (range->by_address)
        at.address[address_size(&at) - 1] += index % range->count;
    else
        at.port += index % range->count;
    return at;
}

// Place of an endpoint in a range, or -1.
static inline int range_find(const struct range* range, const struct endpoint* wanted) {
    for (unsigned index = 0; index < range->count; index++) {
        struct endpoint at = range_at(range, index);
        if (at.family == wanted->family && at.port == wanted->port &&
            memcmp(at.address, wanted->address, address_size(&at)) == 0)
            return index;
    }
    return -1;
}

static inline socklen_t endpoint_to(const struct endpoint* at, struct sockaddr_storage* to) {
    struct sockaddr_in* v4 = (void*)to;
    struct sockaddr_in6* v6 = (void*)to;
    memset(to, 0, sizeof *to);
    to->ss_family = at->family;
    // The port is at the same place in both.
    v4->sin_port = htons(at->port);
    memcpy(at->family == AF_INET ? (void*)&v4->sin_addr : (void*)&v6->sin6_addr, at->address,
           address_size(at));
    return at->family == AF_INET ? sizeof *v4 : sizeof *v6;
}

// A v4-mapped address of a dual-stack socket reads as IPv4, as ztunnel reads it.
static inline struct endpoint endpoint_from(const struct sockaddr_storage* from) {
    const struct sockaddr_in* v4 = (const void*)from;
    const struct sockaddr_in6* v6 = (const void*)from;
    struct endpoint at = {.family = AF_INET, .port = ntohs(v4->sin_port)};
    if (from->ss_family == AF_INET) {
        memcpy(at.address, &v4->sin_addr, 4);
    } else if (IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr)) {
        memcpy(at.address, v6->sin6_addr.s6_addr + 12, 4);
    } else {
        at.family = AF_INET6;
        memcpy(at.address, &v6->sin6_addr, 16);
    }
    return at;
}

static inline const char* endpoint_text(const struct endpoint* at, char* text, size_t size) {
    char address[INET6_ADDRSTRLEN] = "none";
    inet_ntop(at->family, at->address, address, sizeof address);
    snprintf(text, size, at->family == AF_INET ? "%s:%u" : "[%s]:%u", address, at->port);
    return text;
}
