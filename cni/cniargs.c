// SPDX-License-Identifier: Apache-2.0
#include "cniargs.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { ARGS_MAX = 65536, KEY_MAX = 64 };

static const char REMEDY[] = "CNI_ARGS is set by the container runtime: look at its version";

struct field {
    const char* key;
    char* value;
    size_t size;
    bool (*valid)(const char*);
    const char* what;
};

static int store(const struct field* field, const char* value, struct fault* fault) {
    char text[QUOTED_MAX];
    if (value[0] != '\0' && (strlen(value) >= field->size || !field->valid(value)))
        return fault_set(fault, CNI_INVALID_ENVIRONMENT, REMEDY, "CNI_ARGS: %s %s is not %s",
                         field->key, quoted(text, value), field->what);
    if (field->value[0] != '\0' && strcmp(field->value, value) != 0)
        return fault_set(fault, CNI_INVALID_ENVIRONMENT, REMEDY,
                         "CNI_ARGS names %s twice, with different values", field->key);
    strcpy(field->value, value);
    return 0;
}

static int parse_boolean(const char* value, bool* out, struct fault* fault) {
    char text[QUOTED_MAX];
    *out = strcmp(value, "1") == 0 || strcasecmp(value, "true") == 0;
    if (!*out && strcmp(value, "0") != 0 && strcasecmp(value, "false") != 0)
        return fault_set(fault, CNI_INVALID_ENVIRONMENT, REMEDY,
                         "CNI_ARGS: IgnoreUnknown %s is neither true nor false",
                         quoted(text, value));
    return 0;
}

int cniargs_parse(struct cniargs* args, const char* text, struct fault* fault) {
    const struct field fields[] = {
        {"K8S_POD_NAMESPACE", args->pod_namespace, sizeof args->pod_namespace, name_is_label,
         "the name of a namespace"},
        {"K8S_POD_NAME", args->pod_name, sizeof args->pod_name, name_is_subdomain,
         "the name of a pod"},
        {"K8S_POD_UID", args->pod_uid, sizeof args->pod_uid, name_is_id, "a UID"},
        {"K8S_POD_INFRA_CONTAINER_ID", args->infra_container_id, sizeof args->infra_container_id,
         name_is_id, "a container id"},
    };
    const size_t field_count = sizeof fields / sizeof fields[0];
    char shown[QUOTED_MAX];
    char pair[2 * ID_MAX_LENGTH];
    char unknown[KEY_MAX] = "";
    bool ignore_unknown = false;
    *args = (struct cniargs){0};
    if (strlen(text) > ARGS_MAX)
        return fault_set(fault, CNI_INVALID_ENVIRONMENT, REMEDY, "CNI_ARGS is longer than %d bytes",
                         ARGS_MAX);

    while (*text != '\0') {
        const size_t size = strcspn(text, ";");
        const size_t copied = size < sizeof pair ? size : sizeof pair - 1;
        memcpy(pair, text, copied);
        pair[copied] = '\0';
        text += size + (text[size] == ';');
        if (size == 0) continue;

        char* value = strchr(pair, '=');
        if (value == NULL || value == pair)
            return fault_set(fault, CNI_INVALID_ENVIRONMENT, REMEDY,
                             "CNI_ARGS: %s is not KEY=value", quoted(shown, pair));
        *value++ = '\0';
        const struct field* field = NULL;
        for (size_t i = 0; i < field_count; i++)
            if (strcmp(pair, fields[i].key) == 0) field = &fields[i];

        if (field != NULL) {
            // A value cut to fit `pair` is longer than any field and fails here.
            if (store(field, value, fault) < 0) return -1;
        } else if (strcmp(pair, "IgnoreUnknown") == 0) {
            if (parse_boolean(value, &ignore_unknown, fault) < 0) return -1;
        } else if (unknown[0] == '\0') {
            snprintf(unknown, sizeof unknown, "%.63s", pair);
        }
    }
    if (unknown[0] != '\0' && !ignore_unknown)
        return fault_set(fault, CNI_INVALID_ENVIRONMENT,
                         "the runtime must add IgnoreUnknown=1 or leave the key out",
                         "CNI_ARGS: unknown key %s", quoted(shown, unknown));
    return 0;
}

bool cniargs_is_pod(const struct cniargs* args) {
    return args->pod_name[0] != '\0' && args->pod_namespace[0] != '\0';
}
