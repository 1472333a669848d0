// SPDX-License-Identifier: Apache-2.0
// What comes out of CNI_ARGS is empty or a valid name.
#include "../cniargs.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

static void check(const char* value, bool (*valid)(const char*)) {
    if (value[0] != '\0' && !valid(value)) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    static struct fault fault;
    struct cniargs args;
    char* text = malloc(size + 1);
    memcpy(text, data, size);
    text[size] = '\0';
    const int result = cniargs_parse(&args, text, &fault);
    if (result < 0 && (fault.code != CNI_INVALID_ENVIRONMENT || fault.msg[0] == '\0')) abort();
    check(args.pod_namespace, name_is_label);
    check(args.pod_name, name_is_subdomain);
    check(args.pod_uid, name_is_id);
    check(args.infra_container_id, name_is_id);
    name_is_interface(text);
    path_is_plain(text);
    free(text);
    return 0;
}
