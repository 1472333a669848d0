// SPDX-License-Identifier: Apache-2.0
#include "result.h"

#include "deadline.h"
#include "text.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OUTPUT_DEADLINE_MS = 5000 };

// Whether the result goes on within the deadline, on a pipe that the runtime made non-blocking.
static bool wait_for_room(moment deadline) {
    struct pollfd out = {.fd = STDOUT_FILENO, .events = POLLOUT};
    const int ready = poll(&out, 1, moment_left(deadline));
    return ready > 0 || (ready < 0 && errno == EINTR);
}

// Whether all bytes went out. A runtime that doesn't read us has no use for a second message.
static bool put(const char* data, size_t size) {
    const moment deadline = moment_now() + OUTPUT_DEADLINE_MS;
    while (size > 0) {
        const ssize_t written = write(STDOUT_FILENO, data, size);
        if (written < 0 && errno == EINTR) continue;
        if (written < 0 && errno == EAGAIN && wait_for_room(deadline)) continue;
        if (written < 0) return false;
        data += written;
        size -= (size_t)written;
    }
    return true;
}

static bool put_json(json_t* value) {
    char* text = json_dumps(value, JSON_COMPACT);
    const bool done = text != NULL && put(text, strlen(text));
    free(text);
    json_decref(value);
    return done;
}

int result_previous(const struct netconf* conf) {
    if (conf->prev_result == NULL)
        return put_json(json_pack("{s:s}", "cniVersion", conf->cni_version)) ? 0 : 1;

    const char* version = json_string_value(json_object_get(conf->prev_result, "cniVersion"));
    const bool same = version == NULL || strcmp(version, conf->cni_version) == 0;
    if (same && conf->prev_raw != NULL) return put(conf->prev_raw, conf->prev_raw_size) ? 0 : 1;

    // Of another version with the same form (netconf_parse saw to that): only the label changes.
    json_t* result = json_copy((json_t*)conf->prev_result);
    if (!same) json_object_set_new(result, "cniVersion", json_string(conf->cni_version));
    return put_json(result) ? 0 : 1;
}

int result_fault(const char* cni_version, const struct fault* fault) {
    json_t* error = json_object();
    json_object_set_new(error, "cniVersion", json_string(cni_version));
    json_object_set_new(error, "code", json_integer(fault->code));
    json_object_set_new(error, "msg", text_json(fault->msg));
    if (fault->details[0] != '\0') json_object_set_new(error, "details", text_json(fault->details));
    put_json(error);
    return 1;
}

int result_versions(void) {
    json_t* list = json_array();
    for (int i = 0; SUPPORTED_VERSIONS[i] != NULL; i++)
        json_array_append_new(list, json_string(SUPPORTED_VERSIONS[i]));
    return put_json(
               json_pack("{s:s, s:o}", "cniVersion", NEWEST_VERSION, "supportedVersions", list))
               ? 0
               : 1;
}
