// SPDX-License-Identifier: Apache-2.0
// Who is to be connected: CNI_ARGS and the other variables that the runtime sets.
#ifndef CNI_CNIARGS_H
#define CNI_CNIARGS_H

#include "fault.h"
#include "names.h"

#include <stdbool.h>

struct cniargs {
    // Empty when the runtime didn't say, which means: not a Kubernetes pod.
    char pod_namespace[LABEL_MAX_LENGTH + 1];
    char pod_name[NAME_MAX_LENGTH + 1];
    char pod_uid[ID_MAX_LENGTH + 1];
    char infra_container_id[ID_MAX_LENGTH + 1];
};

// Parses `KEY=value;KEY=value`. An unknown key is an error unless IgnoreUnknown is 1 or true.
int cniargs_parse(struct cniargs* args, const char* text, struct fault* fault);

// Whether both halves of a pod's name are there.
bool cniargs_is_pod(const struct cniargs* args);

#endif
