// SPDX-License-Identifier: Apache-2.0
// What went wrong, in the form that the CNI spec wants it printed.
#ifndef CNI_FAULT_H
#define CNI_FAULT_H

#include <stdbool.h>
#include <stddef.h>

// Error codes of the CNI spec (1.1.0, "Error"); 100 and above are ours.
enum {
    CNI_INCOMPATIBLE_VERSION = 1,
    CNI_INVALID_ENVIRONMENT = 4,
    CNI_IO_FAILURE = 5,
    CNI_DECODE_FAILURE = 6,
    CNI_INVALID_CONFIG = 7,
    CNI_TRY_AGAIN = 11,
    CNI_AGENT_FAILED = 100,         // the agent's own code, when it names none
    CNI_AGENT_UNINTELLIGIBLE = 101, // what answers on the socket is no agent of ours
    CNI_NETNS_FAILED = 104,         // the pod's network namespace can't be opened
};

struct fault {
    int code;
    char msg[4096];
    char details[4096]; // what the reader can do about it
    bool from_agent;    // the agent said so itself: it needn't be told
};

// Fills the fault and returns -1, so that a check reads `return fault_set(...)`.
int fault_set(struct fault* fault, int code, const char* details, const char* format, ...)
    __attribute__((format(printf, 4, 5)));

enum { QUOTED_MAX = 160 };
// A value from outside for use in a message: in quotes, only printable ASCII, cut when it is long.
const char* quoted(char out[QUOTED_MAX], const char* value);

#endif
