// SPDX-License-Identifier: Apache-2.0
#include "netconf.h"

#include "json.h"
#include "names.h"

#include <arpa/inet.h>
#include <string.h>

const char* const SUPPORTED_VERSIONS[] = {"0.3.0", "0.3.1", "0.4.0", "1.0.0", NEWEST_VERSION, NULL};

static const char SUPPORTED_TEXT[] =
    "set cniVersion of the network configuration to one of 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0";
static const char CONFIG_REMEDY[] =
    "correct the istio-cni entry of the node's CNI configuration; the agent rewrites it at start";
static const char PREVIOUS_REMEDY[] =
    "prevResult comes from the plugin before istio-cni in the chain: look there";

int version_index(const char* version) {
    for (int i = 0; SUPPORTED_VERSIONS[i] != NULL; i++)
        if (strcmp(version, SUPPORTED_VERSIONS[i]) == 0) return i;
    return -1;
}

static int wrong_type(struct fault* fault, const char* key, const json_t* value, const char* want) {
    return fault_set(fault, CNI_INVALID_CONFIG, CONFIG_REMEDY, "%s is %s, it must be %s", key,
                     json_type_name(value), want);
}

// The string at `key`, or `fallback` when the key is absent or null.
static int string_at(const json_t* root, const char* key, const char* fallback, const char** out,
                     struct fault* fault) {
    const json_t* value = json_object_get(root, key);
    *out = fallback;
    if (value == NULL || json_is_null(value)) return 0;
    if (!json_is_string(value)) return wrong_type(fault, key, value, "a string");
    *out = json_string_value(value);
    return 0;
}

static int parse_version(struct netconf* conf, struct fault* fault) {
    char text[QUOTED_MAX];
    const char* version;
    if (string_at(conf->root, "cniVersion", NULL, &version, fault) < 0) return -1;
    if (version == NULL || version[0] == '\0')
        return fault_set(fault, CNI_INCOMPATIBLE_VERSION, SUPPORTED_TEXT,
                         "the configuration has no cniVersion, which means 0.1.0");
    if (version_index(version) < 0)
        return fault_set(fault, CNI_INCOMPATIBLE_VERSION, SUPPORTED_TEXT,
                         "cniVersion %s is not supported", quoted(text, version));
    conf->cni_version = version;
    return 0;
}

static int parse_name(const struct netconf* conf, struct fault* fault) {
    char text[QUOTED_MAX];
    const char* name;
    if (string_at(conf->root, "name", "", &name, fault) < 0) return -1;
    // The spec's own pattern for network names is that of ids.
    if (!name_is_id(name))
        return fault_set(fault, CNI_INVALID_CONFIG, "give the network a name",
                         "name %s is not the name of a network", quoted(text, name));
    return 0;
}

static int parse_run_dir(struct netconf* conf, struct fault* fault) {
    char text[QUOTED_MAX];
    if (string_at(conf->root, "cni_agent_run_dir", "/var/run/istio-cni", &conf->run_dir, fault) < 0)
        return -1;
    if (!path_is_plain(conf->run_dir))
        return fault_set(fault, CNI_INVALID_CONFIG, CONFIG_REMEDY,
                         "cni_agent_run_dir %s is not an absolute path",
                         quoted(text, conf->run_dir));
    // A unix socket's address holds 107 bytes.
    if (strlen(conf->run_dir) > RUN_DIR_MAX)
        return fault_set(fault, CNI_INVALID_CONFIG, CONFIG_REMEDY,
                         "cni_agent_run_dir %s is longer than %d bytes",
                         quoted(text, conf->run_dir), RUN_DIR_MAX);
    return 0;
}

static int parse_excluded(struct netconf* conf, struct fault* fault) {
    const json_t* list = json_object_get(conf->root, "exclude_namespaces");
    size_t index;
    const json_t* item;
    if (list == NULL || json_is_null(list)) return 0;
    if (!json_is_array(list)) return wrong_type(fault, "exclude_namespaces", list, "an array");
    json_array_foreach(list, index, item) {
        if (!json_is_string(item))
            return wrong_type(fault, "an item of exclude_namespaces", item, "a string");
    }
    conf->exclude_namespaces = list;
    return 0;
}

static int parse_away(struct netconf* conf, struct fault* fault) {
    char text[QUOTED_MAX];
    const char* mode;
    if (string_at(conf->root, "agent_away", "namespace", &mode, fault) < 0) return -1;
    conf->away_strict = strcmp(mode, "strict") == 0;
    if (!conf->away_strict && strcmp(mode, "namespace") != 0)
        return fault_set(fault, CNI_INVALID_CONFIG, CONFIG_REMEDY,
                         "agent_away %s is neither \"namespace\" nor \"strict\"",
                         quoted(text, mode));
    return 0;
}

static int parse_log_level(struct netconf* conf, struct fault* fault) {
    static const struct {
        const char* word;
        enum log_level level;
    } levels[] = {{"debug", LOG_DEBUG}, {"info", LOG_INFO},   {"warn", LOG_WARN},
                  {"error", LOG_ERROR}, {"fatal", LOG_ERROR}, {"none", LOG_NONE}};
    char text[QUOTED_MAX];
    const char* word;
    if (string_at(conf->root, "plugin_log_level", "info", &word, fault) < 0) return -1;
    for (size_t i = 0; i < sizeof levels / sizeof levels[0]; i++) {
        if (strcmp(word, levels[i].word) == 0) {
            conf->log_level = levels[i].level;
            return 0;
        }
    }
    return fault_set(fault, CNI_INVALID_CONFIG, CONFIG_REMEDY,
                     "plugin_log_level %s is none of debug, info, warn, error, fatal, none",
                     quoted(text, word));
}

// 0.3.0 to 0.4.0 share one form of result, 1.0.0 and later another.
static bool same_form(const char* one, const char* other) {
    const int modern = version_index("1.0.0");
    const int first = version_index(one);
    return first >= 0 && (first >= modern) == (version_index(other) >= modern);
}

static int check_previous_version(const struct netconf* conf, struct fault* fault) {
    char text[QUOTED_MAX];
    const json_t* version = json_object_get(conf->prev_result, "cniVersion");
    if (version == NULL) return 0; // then it is of the configuration's, says libcni
    const char* word = json_string_value(version);
    if (word != NULL && same_form(word, conf->cni_version)) return 0;
    return fault_set(fault, CNI_INCOMPATIBLE_VERSION, PREVIOUS_REMEDY,
                     "prevResult is of version %s, the configuration of %s",
                     word == NULL ? "(no string)" : quoted(text, word), conf->cni_version);
}

static int parse_previous(struct netconf* conf, const char* text, size_t size,
                          struct fault* fault) {
    const json_t* previous = json_object_get(conf->root, "prevResult");
    if (previous == NULL || json_is_null(previous)) return 0;
    if (!json_is_object(previous))
        return fault_set(fault, CNI_INVALID_CONFIG, PREVIOUS_REMEDY,
                         "prevResult is %s, it must be an object", json_type_name(previous));
    conf->prev_result = previous;
    if (!json_member_span(text, size, "prevResult", &conf->prev_raw, &conf->prev_raw_size))
        conf->prev_raw = NULL;
    return check_previous_version(conf, fault);
}

int netconf_parse(struct netconf* conf, const char* text, size_t size, struct fault* fault) {
    json_error_t where;
    *conf = (struct netconf){.ambient_enabled = true, .log_level = LOG_INFO};
    conf->root = json_loadb(text, size, 0, &where);
    if (conf->root == NULL)
        return fault_set(fault, CNI_DECODE_FAILURE, CONFIG_REMEDY,
                         "the configuration on stdin is not JSON: %s (line %d, column %d)",
                         where.text, where.line, where.column);
    if (!json_is_object(conf->root))
        return fault_set(fault, CNI_DECODE_FAILURE, CONFIG_REMEDY,
                         "the configuration on stdin is %s, it must be an object",
                         json_type_name(conf->root));
    if (parse_version(conf, fault) < 0) return -1;

    // Absent means "on": the error on this side keeps a pod waiting, on the other it leaks.
    const json_t* ambient = json_object_get(conf->root, "ambient_enabled");
    if (ambient != NULL && !json_is_boolean(ambient))
        return wrong_type(fault, "ambient_enabled", ambient, "a boolean");
    conf->ambient_enabled = ambient == NULL || json_is_true(ambient);

    if (parse_name(conf, fault) < 0 || parse_run_dir(conf, fault) < 0 ||
        string_at(conf->root, "pod_namespace", "", &conf->pod_namespace, fault) < 0 ||
        parse_excluded(conf, fault) < 0 || parse_away(conf, fault) < 0 ||
        parse_log_level(conf, fault) < 0)
        return -1;
    return parse_previous(conf, text, size, fault);
}

void netconf_free(struct netconf* conf) {
    json_decref(conf->root);
    conf->root = NULL;
}

bool netconf_excludes(const struct netconf* conf, const char* name) {
    size_t index;
    const json_t* item;
    json_array_foreach(conf->exclude_namespaces, index, item) {
        if (strcmp(json_string_value(item), name) == 0) return true;
    }
    return false;
}

// "10.0.0.2/24" -> "10.0.0.2", in the shortest form; false when it is no address with a prefix
// length.
static bool address_of(const char* cidr, char out[INET6_ADDRSTRLEN]) {
    unsigned char bytes[sizeof(struct in6_addr)];
    const char* slash = strchr(cidr, '/');
    const size_t size = slash == NULL ? 0 : (size_t)(slash - cidr);
    if (slash == NULL || size == 0 || size >= INET6_ADDRSTRLEN) return false;
    memcpy(out, cidr, size);
    out[size] = '\0';
    const int family = strchr(out, ':') == NULL ? AF_INET : AF_INET6;
    if (inet_pton(family, out, bytes) != 1) return false;
    inet_ntop(family, bytes, out, INET6_ADDRSTRLEN);

    int prefix = 0;
    const size_t digits = strspn(slash + 1, "0123456789");
    if (digits == 0 || digits > 3 || slash[1 + digits] != '\0') return false;
    for (size_t i = 0; i < digits; i++)
        prefix = prefix * 10 + (slash[1 + i] - '0');
    return prefix <= (family == AF_INET ? 32 : 128);
}

int netconf_ips(const struct netconf* conf, json_t** ips, struct fault* fault) {
    char text[QUOTED_MAX];
    char address[INET6_ADDRSTRLEN];
    size_t index;
    const json_t* item;
    const json_t* list = json_object_get(conf->prev_result, "ips");
    *ips = json_array();
    if (list == NULL || json_is_null(list)) return 0;
    if (!json_is_array(list))
        return fault_set(fault, CNI_INVALID_CONFIG, PREVIOUS_REMEDY,
                         "prevResult.ips is %s, it must be an array", json_type_name(list));
    if (json_array_size(list) > IPS_MAX)
        return fault_set(fault, CNI_INVALID_CONFIG, PREVIOUS_REMEDY,
                         "prevResult.ips names %zu addresses, more than %d", json_array_size(list),
                         IPS_MAX);
    json_array_foreach(list, index, item) {
        const char* cidr = json_string_value(json_object_get(item, "address"));
        if (cidr == NULL || !address_of(cidr, address))
            return fault_set(fault, CNI_INVALID_CONFIG, PREVIOUS_REMEDY,
                             "prevResult.ips[%zu].address %s is no address with a prefix length",
                             index, cidr == NULL ? "(no string)" : quoted(text, cidr));
        json_array_append_new(*ips, json_string(address));
    }
    return 0;
}
