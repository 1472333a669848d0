// SPDX-License-Identifier: Apache-2.0
#include "verdict.h"

#include "agent.h"
#include "handover.h"
#include "state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// The agent waits up to 5 s for ztunnel and may first read the pod from the API server. kubelet
// gives the runtime 2 minutes or more for a sandbox.
enum { ADD_DEADLINE_MS = 15000, CHECK_DEADLINE_MS = 5000, CODE_MAX = 65535 };

static const char OWN_PREFIX[] = "istio-cni-node-";

// 64 KiB that needn't be on the stack; the plugin asks once.
static struct agent_reply reply;

bool verdict_is_foregone(const struct netconf* conf, const struct attachment* attachment) {
    const struct cniargs* args = &attachment->args;
    if (!cniargs_is_pod(args)) return true;
    // The agent's own pods: asking would be waiting for oneself.
    if (conf->pod_namespace[0] != '\0' && strcmp(args->pod_namespace, conf->pod_namespace) == 0 &&
        strncmp(args->pod_name, OWN_PREFIX, sizeof OWN_PREFIX - 1) == 0)
        return true;
    return netconf_excludes(conf, args->pod_namespace);
}

int verdict_of_answer(const struct http_answer* answer, enum verdict_wish* wish,
                      struct fault* fault) {
    static const char other[] = "another program or another version of the agent serves that "
                                "socket; the agent installs its own plugin when it starts";
    json_t* root = json_loadb(answer->body, answer->body_size, 0, NULL);
    const char* verdict = json_string_value(json_object_get(root, "verdict"));
    const json_t* code = json_object_get(root, "code");
    const char* msg = json_string_value(json_object_get(root, "msg"));
    const char* details = json_string_value(json_object_get(root, "details"));
    int result;
    *wish = WISH_NONE;
    if (answer->status == 200 && verdict != NULL) {
        result = 0;
    } else if (answer->status != 200 && json_is_integer(code) && msg != NULL) {
        const json_int_t number = json_integer_value(code);
        result = fault_set(fault, number > 0 && number <= CODE_MAX ? (int)number : CNI_AGENT_FAILED,
                           details == NULL ? "" : details, "%s", msg);
        fault->from_agent = true;
        if (json_is_true(json_object_get(root, "away"))) *wish = WISH_AWAY;
        if (json_is_true(json_object_get(root, "handOver"))) *wish = WISH_NETNS;
    } else {
        result =
            fault_set(fault, CNI_AGENT_UNINTELLIGIBLE, other,
                      "the answer of the node's agent is not understood (status %d, %zu bytes)",
                      answer->status, answer->body_size);
    }
    json_decref(root);
    return result;
}

static char* request_body(const struct netconf* conf, const struct attachment* attachment,
                          json_t* ips) {
    const struct cniargs* args = &attachment->args;
    json_t* body = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:o, s:s}", "containerId",
                             attachment->container_id, "netns", attachment->netns, "ifName",
                             attachment->if_name, "podNamespace", args->pod_namespace, "podName",
                             args->pod_name, "podUid", args->pod_uid, "ips", ips, "cniVersion",
                             conf->cni_version);
    char* text = json_dumps(body, JSON_COMPACT);
    json_decref(body);
    return text;
}

static int ask(const struct netconf* conf, const struct attachment* attachment, const char* path,
               int deadline_ms, enum agent_outcome* outcome, struct fault* fault) {
    char socket[RUN_PATH_SIZE];
    json_t* ips;
    if (netconf_ips(conf, &ips, fault) < 0) {
        json_decref(ips);
        return -1;
    }
    char* body = request_body(conf, attachment, ips);
    if (body == NULL)
        return fault_set(fault, CNI_IO_FAILURE, "the node is short of memory", "out of memory");
    snprintf(socket, sizeof socket, "%s/pluginevent.sock", conf->run_dir);
    const moment deadline = moment_now() + deadline_ms;
    enum verdict_wish wish = WISH_NONE;
    int connection = -1;
    int result = 0;
    // Once with the path alone, and if the agent can't follow it, again with the namespace itself.
    for (;;) {
        *outcome = agent_post(socket, path, body, strlen(body), deadline, &reply);
        if (*outcome != AGENT_ANSWERED) break;
        result = verdict_of_answer(&reply.answer, &wish, fault);
        if (wish == WISH_AWAY) *outcome = AGENT_AWAY;
        if (wish != WISH_NETNS || connection >= 0) break;
        const enum handover_outcome handed =
            handover_netns(conf->run_dir, attachment, deadline, &connection, fault);
        if (handed == HANDOVER_DONE) continue;
        if (handed == HANDOVER_AWAY) *outcome = AGENT_LOST;
        free(body);
        return -1;
    }
    // It knew what the pod is: not for us to let that pass.
    if (*outcome == AGENT_AWAY && connection >= 0) *outcome = AGENT_LOST;
    if (connection >= 0) close(connection);
    free(body);
    if (*outcome == AGENT_ANSWERED || wish == WISH_AWAY) return result;
    if (*outcome == AGENT_UNINTELLIGIBLE)
        return fault_set(fault, CNI_AGENT_UNINTELLIGIBLE, "see which program serves that socket",
                         "the answer at %s is not understood: %s", socket, reply.problem);
    char details[512];
    snprintf(details, sizeof details,
             "the pod waits for the mesh agent of this node and is tried again by kubelet; see "
             "`kubectl -n %.63s get pods -l k8s-app=istio-cni-node -o wide`",
             conf->pod_namespace[0] == '\0' ? "istio-system" : conf->pod_namespace);
    return fault_set(fault, CNI_TRY_AGAIN, details,
                     "the node's istio-cni agent does not answer at %s: %s", socket, reply.problem);
}

// Whether a pod may start although the agent is away; says in `why` what decided.
static bool passes_without_agent(const struct netconf* conf, const struct attachment* attachment,
                                 char* why, size_t size) {
    if (!conf->ambient_enabled) {
        // Sidecar pods are held back by their own istio-validation container.
        snprintf(why, size, "ambient mode is off");
        return true;
    }
    if (conf->away_strict) {
        snprintf(why, size, "agent_away is strict");
        return false;
    }
    if (!state_is_clear(conf->run_dir, attachment->args.pod_namespace, why, size)) return false;
    snprintf(why, size, "namespace %s had no pods of the mesh", attachment->args.pod_namespace);
    return true;
}

int verdict_add(const struct netconf* conf, const struct attachment* attachment,
                const struct log_context* log, struct fault* fault) {
    char why[512];
    enum agent_outcome outcome = AGENT_ANSWERED;
    if (ask(conf, attachment, "/v1/add", ADD_DEADLINE_MS, &outcome, fault) == 0) return 0;
    if (outcome != AGENT_AWAY) return -1;
    if (passes_without_agent(conf, attachment, why, sizeof why)) {
        log_write(log, LOG_WARN, true, "pod passes without the mesh's agent: %s; %s", why,
                  fault->msg);
        return 0;
    }
    const size_t used = strlen(fault->msg);
    snprintf(fault->msg + used, sizeof fault->msg - used, " (%s)", why);
    return -1;
}

int verdict_check(const struct netconf* conf, const struct attachment* attachment,
                  const struct log_context* log, struct fault* fault) {
    enum agent_outcome outcome = AGENT_ANSWERED;
    if (ask(conf, attachment, "/v1/check", CHECK_DEADLINE_MS, &outcome, fault) == 0) return 0;
    if (outcome == AGENT_ANSWERED && fault->code != CNI_AGENT_UNINTELLIGIBLE) return -1;
    // A runtime may make a node "not ready" of a CHECK that fails.
    log_write(log, LOG_WARN, true, "not checked: %s", fault->msg);
    return 0;
}
