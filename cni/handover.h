// SPDX-License-Identifier: Apache-2.0
// The pod's network namespace as an open file, for an agent that can't reach it by its path.
#ifndef CNI_HANDOVER_H
#define CNI_HANDOVER_H

#include "attachment.h"
#include "deadline.h"

enum handover_outcome {
    HANDOVER_DONE,
    HANDOVER_FAILED, // nothing that another agent could do better
    HANDOVER_AWAY,   // the agent is not there any more, or silent until the deadline
};

// Sends CNI_NETNS to `<run dir>/netns.sock`. The agent keeps it under the container's id for as
// long as `*connection`, which is the caller's then, stays open.
enum handover_outcome handover_netns(const char* run_dir, const struct attachment* attachment,
                                     moment deadline, int* connection, struct fault* fault);

#endif
