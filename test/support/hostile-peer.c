/* SPDX-License-Identifier: Apache-2.0 */
/* A SEQPACKET client that misbehaves: hostile-peer PATH MODE [COUNT] */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int peer;

static void send_with_fds(const char* text, size_t size, int count) {
    static char control[CMSG_SPACE(253 * sizeof(int))];
    struct iovec part = {(void*)text, size};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (count > 0) {
        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE(count * sizeof(int));
        struct cmsghdr* header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(count * sizeof(int));
        int* fds = (int*)CMSG_DATA(header);
        int fd = open("/dev/null", O_RDONLY);
        for (int i = 0; i < count; i++)
            fds[i] = fd;
    }
    if (sendmsg(peer, &message, MSG_NOSIGNAL) < 0) {
        perror("sendmsg");
        exit(1);
    }
}

int main(int argc, char** argv) {
    if (argc < 3) return 2;
    const char* mode = argv[2];
    int count = argc > 3 ? atoi(argv[3]) : 0;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, argv[1], sizeof(address.sun_path) - 1);
    peer = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    if (connect(peer, (struct sockaddr*)&address, sizeof(address)) != 0) {
        perror("connect");
        return 1;
    }
    if (strcmp(mode, "fds") == 0) {
        send_with_fds("fds", 3, count);
    } else if (strcmp(mode, "empty") == 0) {
        send_with_fds("", 0, count);
        pause();
    } else if (strcmp(mode, "large") == 0) {
        char* text = calloc(1, (size_t)count);
        send_with_fds(text, (size_t)count, 1);
    } else if (strcmp(mode, "flood") == 0) {
        for (int i = 0; i < count; i++)
            send_with_fds("flood", 5, 0);
    } else if (strcmp(mode, "unread") == 0) {
        /* Waits for a datagram, does not read it, answers, and dies: the kernel resets the socket.
         */
        char byte;
        recv(peer, &byte, 1, MSG_PEEK);
        for (int i = 0; i < count; i++)
            send_with_fds("last words", 10, 0);
        kill(getpid(), SIGKILL);
    } else if (strcmp(mode, "silent") == 0) {
        pause();
    }
    return 0;
}
