// SPDX-License-Identifier: Apache-2.0
#include "attachment.h"

#include <stdlib.h>

static int read_variable(const char* key, bool (*valid)(const char*), const char* what,
                         const char** out, struct fault* fault) {
    char text[QUOTED_MAX];
    *out = getenv(key);
    if (*out == NULL)
        return fault_set(fault, CNI_INVALID_ENVIRONMENT, "the container runtime must set it",
                         "the environment has no %s", key);
    if (!valid(*out))
        return fault_set(fault, CNI_INVALID_ENVIRONMENT, "the container runtime sets it",
                         "%s %s is not %s", key, quoted(text, *out), what);
    return 0;
}

int attachment_read(struct attachment* attachment, struct fault* fault) {
    const char* args = getenv("CNI_ARGS");
    if (read_variable("CNI_CONTAINERID", name_is_id, "a container id", &attachment->container_id,
                      fault) < 0 ||
        read_variable("CNI_NETNS", path_is_plain, "an absolute path", &attachment->netns, fault) <
            0 ||
        read_variable("CNI_IFNAME", name_is_interface, "the name of an interface",
                      &attachment->if_name, fault) < 0)
        return -1;
    return cniargs_parse(&attachment->args, args == NULL ? "" : args, fault);
}
