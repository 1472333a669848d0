// SPDX-License-Identifier: Apache-2.0
// The variables that name one attachment: a container, its netns and the interface in it.
#ifndef CNI_ATTACHMENT_H
#define CNI_ATTACHMENT_H

#include "cniargs.h"

struct attachment {
    const char* container_id;
    const char* netns;
    const char* if_name;
    struct cniargs args;
};

// Reads and checks CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME and CNI_ARGS.
int attachment_read(struct attachment* attachment, struct fault* fault);

#endif
