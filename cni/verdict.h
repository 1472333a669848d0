// SPDX-License-Identifier: Apache-2.0
// Asking the agent about a pod, and what holds when it can't be asked.
#ifndef CNI_VERDICT_H
#define CNI_VERDICT_H

#include "attachment.h"
#include "http.h"
#include "log.h"

// Whether the pod is let through without the agent: none of Kubernetes, our own, or excluded.
bool verdict_is_foregone(const struct netconf* conf, const struct attachment* attachment);

// ADD: 0 when the agent has done its part, or is away and the pod may pass without it.
int verdict_add(const struct netconf* conf, const struct attachment* attachment,
                const struct log_context* log, struct fault* fault);

// CHECK: fails only when the agent says so.
int verdict_check(const struct netconf* conf, const struct attachment* attachment,
                  const struct log_context* log, struct fault* fault);

// What an agent that does not agree asks of us.
enum verdict_wish {
    WISH_NONE,
    WISH_AWAY,  // it can't judge yet: the rules for an absent agent hold
    WISH_NETNS, // it can't reach the pod's network namespace, and would if it were handed over
};

// Reads the agent's answer: 0 when it agrees, otherwise its error becomes ours.
int verdict_of_answer(const struct http_answer* answer, enum verdict_wish* wish,
                      struct fault* fault);

#endif
