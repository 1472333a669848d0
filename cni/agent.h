// SPDX-License-Identifier: Apache-2.0
// One request to the node's agent over its unix socket.
#ifndef CNI_AGENT_H
#define CNI_AGENT_H

#include "deadline.h"
#include "http.h"

enum agent_outcome {
    AGENT_ANSWERED,
    AGENT_AWAY,           // not there, gone before it answered, or silent until the deadline
    AGENT_UNINTELLIGIBLE, // what it sent is no HTTP answer within our bounds
    AGENT_LOST,           // it asked for the pod's network namespace, and did not take it
};

struct agent_reply {
    struct http_answer answer; // points into `buffer`
    char problem[256];         // why not AGENT_ANSWERED, e.g. "connection refused"
    char buffer[HTTP_ANSWER_MAX + 1];
};

// POSTs `body` to `path` on `socket`. The deadline covers connect, request and answer.
enum agent_outcome agent_post(const char* socket, const char* path, const char* body,
                              size_t body_size, moment deadline, struct agent_reply* reply);

#endif
