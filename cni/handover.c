// SPDX-License-Identifier: Apache-2.0
#include "handover.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

enum { ANSWER_MAX = 1024 };

static const char ACCEPTED[] = "ok";

// A network namespace, of which nothing is read: a FIFO in its place must not hold us up.
static int open_netns(const char* path, struct fault* fault) {
    char text[QUOTED_MAX];
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        fault_set(fault, CNI_NETNS_FAILED, "the sandbox may be gone already",
                  "the network namespace %s can't be opened: %s", quoted(text, path),
                  strerror(errno));
    return fd;
}

static enum handover_outcome away(const char* path, const char* why, struct fault* fault) {
    fault_set(fault, CNI_TRY_AGAIN, "kubelet tries again by itself",
              "the node's istio-cni agent does not take the pod's network namespace at %s: %s",
              path, why);
    return HANDOVER_AWAY;
}

// Blocking calls on `fd` end at the deadline, with EAGAIN.
static int bound(int fd, moment deadline) {
    const int left = moment_left(deadline);
    // 0 would be no bound at all.
    const struct timeval limit = {.tv_sec = left / 1000, .tv_usec = left % 1000 * 1000 + 1};
    return setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) |
           setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
}

static ssize_t send_netns(int fd, const char* name, const int netns[2]) {
    union {
        struct cmsghdr head;
        char space[CMSG_SPACE(2 * sizeof(int))];
    } control = {0};
    struct iovec text = {.iov_base = (char*)name, .iov_len = strlen(name)};
    const struct msghdr message = {.msg_iov = &text,
                                   .msg_iovlen = 1,
                                   .msg_control = &control,
                                   .msg_controllen = sizeof control.space};
    control.head.cmsg_level = SOL_SOCKET;
    control.head.cmsg_type = SCM_RIGHTS;
    control.head.cmsg_len = CMSG_LEN(2 * sizeof(int));
    memcpy(CMSG_DATA(&control.head), netns, 2 * sizeof(int));
    return sendmsg(fd, &message, MSG_NOSIGNAL);
}

static enum handover_outcome converse(int fd, const char* path, const char* name,
                                      const int netns[2], moment deadline, struct fault* fault) {
    char answer[ANSWER_MAX + 1];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, path);
    if (connect(fd, (struct sockaddr*)&address, sizeof address) < 0 ||
        send_netns(fd, name, netns) < 0 || bound(fd, deadline) != 0)
        return away(path, strerror(errno), fault);
    const ssize_t got = recv(fd, answer, ANSWER_MAX, 0);
    if (got <= 0) return away(path, got == 0 ? "it hung up" : strerror(errno), fault);
    answer[got] = '\0';
    if (strcmp(answer, ACCEPTED) == 0) return HANDOVER_DONE;
    fault_set(fault, CNI_NETNS_FAILED, "look at what the container runtime gave the chain",
              "the agent refuses the pod's network namespace: %s", answer);
    fault->from_agent = true;
    return HANDOVER_FAILED;
}

enum handover_outcome handover_netns(const char* run_dir, const struct attachment* attachment,
                                     moment deadline, int* connection, struct fault* fault) {
    char path[sizeof((struct sockaddr_un*)0)->sun_path];
    // The runtime's own, which is the node's: no pod may have that.
    const int netns[2] = {open_netns(attachment->netns, fault),
                          open_netns("/proc/self/ns/net", fault)};
    const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    enum handover_outcome outcome = HANDOVER_FAILED;
    if (netns[0] >= 0 && netns[1] >= 0) {
        const int size = snprintf(path, sizeof path, "%s/netns.sock", run_dir);
        outcome = fd < 0 || bound(fd, deadline) != 0 ? away("a socket", strerror(errno), fault)
                  : size >= (int)sizeof path
                      ? away(run_dir, "its path is too long", fault)
                      : converse(fd, path, attachment->container_id, netns, deadline, fault);
    }
    for (int i = 0; i < 2; i++)
        if (netns[i] >= 0) close(netns[i]);
    if (outcome == HANDOVER_DONE)
        *connection = fd;
    else if (fd >= 0)
        close(fd);
    return outcome;
}
