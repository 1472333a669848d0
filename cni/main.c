// SPDX-License-Identifier: Apache-2.0
// istio-cni: the chained CNI plugin. It holds no credentials and decides nothing that the node's
// agent can decide; see README.md for the wire format.
#include "attachment.h"
#include "input.h"
#include "log.h"
#include "netconf.h"
#include "result.h"
#include "verdict.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { INPUT_DEADLINE_MS = 5000, DRAIN_DEADLINE_MS = 500 };

enum command { ADD, CHECK, STATUS };

static const char* const COMMAND_WORDS[] = {"ADD", "CHECK", "STATUS"};
// First version of the spec that has the command.
static const char* const COMMAND_SINCE[] = {"0.3.0", "0.4.0", "1.1.0"};

// A runtime that starts us with stdin or stdout closed must not have a socket of ours in its place.
static void occupy_stdio(void) {
    int fd;
    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0) close(fd);
}

// DEL and GC: nothing of ours is to be undone by the plugin. The agent sees the pod go, and the
// rules go with the netns; so there is nothing that could fail.
static int succeed_silently(void) {
    struct fault fault;
    char* text = NULL;
    size_t size;
    // Some runtimes take a plugin that doesn't read its stdin for broken.
    if (input_read(moment_now() + DRAIN_DEADLINE_MS, &text, &size, &fault) == 0) free(text);
    return 0;
}

// `attachment` is the caller's, since `log` goes on pointing into it.
static int execute(enum command command, const struct netconf* conf, struct attachment* attachment,
                   struct log_context* log, struct fault* fault) {
    if (version_index(conf->cni_version) < version_index(COMMAND_SINCE[command]))
        return fault_set(fault, CNI_INCOMPATIBLE_VERSION, "raise cniVersion or don't ask",
                         "CNI %s knows no %s, which came with %s", conf->cni_version,
                         COMMAND_WORDS[command], COMMAND_SINCE[command]);
    // The plugin is able to serve also while the agent is away, so there is nothing to report.
    if (command == STATUS) return 0;

    if (attachment_read(attachment, fault) < 0) return -1;
    log->container_id = attachment->container_id;
    log->pod_namespace = attachment->args.pod_namespace;
    log->pod_name = attachment->args.pod_name;
    if (verdict_is_foregone(conf, attachment)) return 0;
    if (command == CHECK) return verdict_check(conf, attachment, log, fault);

    const moment start = moment_now();
    if (verdict_add(conf, attachment, log, fault) < 0) return -1;
    log_write(log, LOG_DEBUG, false, "ADD took %lld ms", (long long)(moment_now() - start));
    return 0;
}

static int run(enum command command) {
    static struct fault fault;
    struct netconf conf = {0};
    struct attachment attachment;
    struct log_context log = {.command = COMMAND_WORDS[command]};
    char* text = NULL;
    size_t size;
    int result = input_read(moment_now() + INPUT_DEADLINE_MS, &text, &size, &fault);
    if (result == 0) {
        result = netconf_parse(&conf, text, size, &fault);
        if (result == 0) {
            log.run_dir = conf.run_dir;
            log.level = conf.log_level;
            result = execute(command, &conf, &attachment, &log, &fault);
        }
    }
    int status;
    if (result < 0) {
        // The runtime first: it need not wait for the log.
        status = result_fault(conf.cni_version == NULL ? NEWEST_VERSION : conf.cni_version, &fault);
        log_write(&log, LOG_ERROR, !fault.from_agent, "%s failed with code %d: %s", log.command,
                  fault.code, fault.msg);
    } else {
        status = command == ADD ? result_previous(&conf) : 0;
    }
    netconf_free(&conf);
    free(text);
    return status;
}

int main(void) {
    static struct fault fault;
    char text[QUOTED_MAX];
    occupy_stdio();
    signal(SIGPIPE, SIG_IGN);
    const char* command = getenv("CNI_COMMAND");
    if (command == NULL) command = "";
    if (strcmp(command, "VERSION") == 0) return result_versions();
    if (strcmp(command, "DEL") == 0 || strcmp(command, "GC") == 0) return succeed_silently();
    for (enum command i = ADD; i <= STATUS; i++)
        if (strcmp(command, COMMAND_WORDS[i]) == 0) return run(i);
    fault_set(&fault, CNI_INVALID_ENVIRONMENT,
              "this is a CNI plugin: container runtimes start it, people don't",
              "CNI_COMMAND %s is none of ADD, DEL, CHECK, STATUS, GC, VERSION",
              quoted(text, command));
    return result_fault(NEWEST_VERSION, &fault);
}
