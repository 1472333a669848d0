// SPDX-License-Identifier: Apache-2.0
// The plugin's log: never stdout, which belongs to the result.
#ifndef CNI_LOG_H
#define CNI_LOG_H

#include "netconf.h"

struct log_context {
    const char* run_dir; // NULL until the configuration is known: then only stderr
    enum log_level level;
    const char* command;
    const char* container_id;
    const char* pod_namespace;
    const char* pod_name;
};

// One JSON line, appended to <run dir>/istio-cni.log and, for warnings and errors, to stderr.
// `relay` sends it to the agent's log.sock as well, which may take up to a second.
void log_write(const struct log_context* context, enum log_level level, bool relay,
               const char* format, ...) __attribute__((format(printf, 4, 5)));

#endif
