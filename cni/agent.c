// SPDX-License-Identifier: Apache-2.0
#include "agent.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static enum agent_outcome outcome(struct agent_reply* reply, enum agent_outcome outcome,
                                  const char* format, ...) __attribute__((format(printf, 3, 4)));

static enum agent_outcome outcome(struct agent_reply* reply, enum agent_outcome outcome,
                                  const char* format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(reply->problem, sizeof reply->problem, format, args);
    va_end(args);
    return outcome;
}

// Waits until the socket is ready for `events`; false at the deadline.
static bool wait_for(int fd, short events, moment deadline) {
    for (;;) {
        struct pollfd poll_fd = {.fd = fd, .events = events};
        const int ready = poll(&poll_fd, 1, moment_left(deadline));
        if (ready > 0) return true;
        if (ready == 0) return false;
        if (errno != EINTR) return true; // the call that follows reports it
    }
}

static enum agent_outcome silent(struct agent_reply* reply, const char* when) {
    return outcome(reply, AGENT_AWAY, "no answer before the deadline (%s)", when);
}

static enum agent_outcome connect_to(int fd, const char* path, moment deadline,
                                     struct agent_reply* reply) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        return outcome(reply, AGENT_AWAY, "the socket's path is too long");
    strcpy(address.sun_path, path);
    for (;;) {
        if (connect(fd, (struct sockaddr*)&address, sizeof address) == 0) return AGENT_ANSWERED;
        if (errno == EINTR) continue;
        // Unlike TCP, a full backlog of a unix socket is EAGAIN and nothing to poll for.
        if (errno != EAGAIN) return outcome(reply, AGENT_AWAY, "%s", strerror(errno));
        if (moment_left(deadline) == 0) return silent(reply, "its backlog is full");
        poll(NULL, 0, 10);
    }
}

static enum agent_outcome send_all(int fd, const char* data, size_t size, moment deadline,
                                   struct agent_reply* reply) {
    while (size > 0) {
        const ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
        if (sent >= 0) {
            data += sent;
            size -= (size_t)sent;
            continue;
        }
        if (errno == EINTR) continue;
        // A server that refuses early answers and closes: its answer is worth reading.
        if (errno == EPIPE || errno == ECONNRESET) return AGENT_ANSWERED;
        if (errno != EAGAIN) return outcome(reply, AGENT_AWAY, "%s", strerror(errno));
        if (!wait_for(fd, POLLOUT, deadline)) return silent(reply, "it doesn't read the request");
    }
    return AGENT_ANSWERED;
}

static enum agent_outcome receive(int fd, moment deadline, struct agent_reply* reply) {
    size_t used = 0;
    for (;;) {
        const ssize_t got = recv(fd, reply->buffer + used, HTTP_ANSWER_MAX + 1 - used, 0);
        if (got < 0) {
            if (errno == EINTR) continue;
            if (errno != EAGAIN) return outcome(reply, AGENT_AWAY, "%s", strerror(errno));
            if (!wait_for(fd, POLLIN, deadline)) return silent(reply, "connected");
            continue;
        }
        used += (size_t)got;
        if (used > HTTP_ANSWER_MAX)
            return outcome(reply, AGENT_UNINTELLIGIBLE, "its answer is larger than %d bytes",
                           HTTP_ANSWER_MAX);
        switch (http_parse(reply->buffer, used, got == 0, &reply->answer)) {
        case HTTP_DONE:
            return AGENT_ANSWERED;
        case HTTP_BAD:
            return outcome(reply, AGENT_UNINTELLIGIBLE, "its answer is no HTTP answer");
        case HTTP_MORE:
            break;
        }
        if (got == 0)
            return outcome(reply, AGENT_AWAY, "it closed the connection after %zu bytes", used);
        if (moment_left(deadline) == 0) return silent(reply, "its answer is incomplete");
    }
}

enum agent_outcome agent_post(const char* socket_path, const char* path, const char* body,
                              size_t body_size, moment deadline, struct agent_reply* reply) {
    char head[256];
    const int head_size = snprintf(head, sizeof head,
                                   "POST %s HTTP/1.1\r\nHost: agent\r\n"
                                   "Content-Type: application/json\r\nContent-Length: %zu\r\n"
                                   "Connection: close\r\n\r\n",
                                   path, body_size);
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return outcome(reply, AGENT_AWAY, "socket: %s", strerror(errno));
    enum agent_outcome result = connect_to(fd, socket_path, deadline, reply);
    if (result == AGENT_ANSWERED) result = send_all(fd, head, (size_t)head_size, deadline, reply);
    if (result == AGENT_ANSWERED) result = send_all(fd, body, body_size, deadline, reply);
    if (result == AGENT_ANSWERED) result = receive(fd, deadline, reply);
    close(fd);
    return result;
}
