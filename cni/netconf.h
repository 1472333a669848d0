// SPDX-License-Identifier: Apache-2.0
// The network configuration: istio-cni's keys, and `agent_away` of ours.
#ifndef CNI_NETCONF_H
#define CNI_NETCONF_H

#include "fault.h"

#include <jansson.h>
#include <stdbool.h>

enum { IPS_MAX = 64, RUN_DIR_MAX = 80, RUN_PATH_SIZE = RUN_DIR_MAX + 32 };

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_NONE };

struct netconf {
    json_t* root;            // owns everything below
    const char* cni_version; // one of the supported ones
    const char* run_dir;     // cni_agent_run_dir, short enough for a socket's address
    const char* pod_namespace;
    const json_t* exclude_namespaces; // array of strings, or NULL
    const json_t* prev_result;        // object, or NULL
    const char* prev_raw;             // its bytes in the text, or NULL when they can't be told
    size_t prev_raw_size;
    bool ambient_enabled;
    bool away_strict; // agent_away == "strict"
    enum log_level log_level;
};

extern const char* const SUPPORTED_VERSIONS[]; // oldest first, ends with NULL
#define NEWEST_VERSION "1.1.0"

// Position of a version in SUPPORTED_VERSIONS, -1 when it is not there.
int version_index(const char* version);

// Parses and checks. `text` must outlive the result. On failure conf->cni_version is set when the
// text at least named a supported one; netconf_free is due either way.
int netconf_parse(struct netconf* conf, const char* text, size_t size, struct fault* fault);
void netconf_free(struct netconf* conf);

bool netconf_excludes(const struct netconf* conf, const char* name);

// Addresses of prevResult without their prefix lengths, in order; a new array of strings.
int netconf_ips(const struct netconf* conf, json_t** ips, struct fault* fault);

#endif
