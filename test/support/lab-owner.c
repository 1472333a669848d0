// SPDX-License-Identifier: Apache-2.0
// A program of another user and group that calls once, and tells what comes back.
//
// usage: lab-owner UID GID tcp|udp ADDRESS PORT [SOURCE SOURCE-PORT]
//
// Prints the first line that a TCP server says, or "ANSWER from ADDRESS PORT" for UDP; else the
// error of connect, or "silence".
#include <arpa/inet.h>
#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

union name {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

static void die(const char* what) {
    perror(what);
    exit(1);
}

static socklen_t parse(union name* name, const char* address, const char* port) {
    memset(name, 0, sizeof *name);
    if (inet_pton(AF_INET, address, &name->v4.sin_addr) == 1) {
        name->v4.sin_family = AF_INET;
        name->v4.sin_port = htons(atoi(port));
        return sizeof name->v4;
    }
    if (inet_pton(AF_INET6, address, &name->v6.sin6_addr) != 1) die(address);
    name->v6.sin6_family = AF_INET6;
    name->v6.sin6_port = htons(atoi(port));
    return sizeof name->v6;
}

static void tell_datagram(int fd) {
    union name from;
    socklen_t size = sizeof from;
    char text[512], address[INET6_ADDRSTRLEN];
    const ssize_t length = recvfrom(fd, text, sizeof text - 1, 0, &from.any, &size);
    if (length < 0) {
        puts("silence");
        return;
    }
    text[length] = '\0';
    const int is_v4 = from.any.sa_family == AF_INET;
    const void* raw = is_v4 ? (void*)&from.v4.sin_addr : (void*)&from.v6.sin6_addr;
    inet_ntop(from.any.sa_family, raw, address, sizeof address);
    printf("%s from %s %d\n", text, address, ntohs(is_v4 ? from.v4.sin_port : from.v6.sin6_port));
}

static void tell_line(int fd) {
    FILE* stream = fdopen(fd, "r");
    char line[1024];
    if (stream == NULL || fgets(line, sizeof line, stream) == NULL)
        puts("silence");
    else
        fputs(line, stdout);
}

int main(int argc, char** argv) {
    if (argc != 6 && argc != 8) return 2;
    const uid_t uid = atoi(argv[1]);
    const gid_t gid = atoi(argv[2]);
    const int is_udp = strcmp(argv[3], "udp") == 0;
    const struct timeval patience = {.tv_sec = 1};
    union name to, own;
    const socklen_t size = parse(&to, argv[4], argv[5]);
    // Before the socket is opened: whoever opens it is its owner.
    if (setgroups(0, NULL) != 0 || setresgid(gid, gid, gid) != 0 || setresuid(uid, uid, uid) != 0)
        die("become another user");
    const int fd = socket(to.any.sa_family, is_udp ? SOCK_DGRAM : SOCK_STREAM, 0);
    if (fd < 0) die("socket");
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (argc == 8 && bind(fd, &own.any, parse(&own, argv[6], argv[7])) != 0) die("bind");
    if (is_udp) {
        static const char question[] = "question";
        if (sendto(fd, question, strlen(question), 0, &to.any, size) < 0) die("sendto");
        tell_datagram(fd);
    } else if (connect(fd, &to.any, size) != 0) {
        puts(strerrorname_np(errno));
    } else {
        tell_line(fd);
    }
    return 0;
}
