// SPDX-License-Identifier: Apache-2.0
// Whatever the agent says to a netns that is handed over: only `ok` is agreement, everything else a
// fault that can be printed, and no fd stays open.
#include "../handover.h"
#include "../text.h"

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
int LLVMFuzzerInitialize(int* argc, char*** argv);

static char run_dir[] = "build/fuzz/agent-XXXXXX";
static struct sockaddr_un address = {.sun_family = AF_UNIX};
static int listener;
// A copy: the agent's send() may still look at it when the plugin has all of it.
static uint8_t answer[8192];
static size_t answer_size;

static void* agent(void* unused) {
    for (;;) {
        char name[64];
        union {
            struct cmsghdr head;
            char space[CMSG_SPACE(4 * sizeof(int))];
        } control;
        struct iovec part = {.iov_base = name, .iov_len = sizeof name};
        struct msghdr message = {.msg_iov = &part,
                                 .msg_iovlen = 1,
                                 .msg_control = &control,
                                 .msg_controllen = sizeof control.space};
        const int peer = accept(listener, NULL, NULL);
        const ssize_t got = recvmsg(peer, &message, MSG_CMSG_CLOEXEC);
        int fds[2];
        if (got != 2 || memcmp(name, "8a", 2) != 0 || control.head.cmsg_len != CMSG_LEN(sizeof fds))
            abort();
        memcpy(fds, CMSG_DATA(&control.head), sizeof fds);
        close(fds[0]);
        close(fds[1]);
        if (answer_size > 0) send(peer, answer, answer_size, MSG_NOSIGNAL);
        close(peer);
    }
    return unused;
}

static void tidy(void) {
    unlink(address.sun_path);
    rmdir(run_dir);
}

int LLVMFuzzerInitialize(int* argc, char*** argv) {
    pthread_t thread;
    (void)argc;
    (void)argv;
    if (mkdtemp(run_dir) == NULL) abort();
    snprintf(address.sun_path, sizeof address.sun_path, "%s/netns.sock", run_dir);
    listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (bind(listener, (struct sockaddr*)&address, sizeof address) < 0 ||
        listen(listener, 16) < 0 || pthread_create(&thread, NULL, agent, NULL) != 0)
        abort();
    return atexit(tidy);
}

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    static struct fault fault;
    const struct attachment attachment = {.container_id = "8a", .netns = "/proc/self/ns/net"};
    int connection = -1;
    if (size > sizeof answer) return 0;
    memcpy(answer, data, size);
    answer_size = size;
    fault = (struct fault){0};
    const enum handover_outcome outcome =
        handover_netns(run_dir, &attachment, moment_now() + 5000, &connection, &fault);
    const bool ok = size >= 2 && memcmp(data, "ok", 2) == 0 && (size == 2 || data[2] == '\0');
    if ((outcome == HANDOVER_DONE) != ok || (connection >= 0) != ok) abort();
    if (!ok) {
        json_t* msg = text_json(fault.msg);
        const int code = size == 0 ? CNI_TRY_AGAIN : CNI_NETNS_FAILED;
        if (fault.code != code || json_string_length(msg) == 0) abort();
        json_decref(msg);
    }
    if (connection >= 0) close(connection);
    // The numbers would creep up if one were forgotten.
    const int next = dup(0);
    if (next > 100) abort();
    close(next);
    return 0;
}
