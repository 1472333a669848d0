// SPDX-License-Identifier: Apache-2.0
#include "log.h"

#include "agent.h"
#include "text.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { LOG_FILE_MAX = 10 << 20, RELAY_DEADLINE_MS = 1000 };

static int open_log(const char* path) {
    return open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0640);
}

// Moves a full log aside, once even when several plugins see it full: the second finds, under the
// lock, that its file is no longer the one at the path.
static void rotate(int fd, const char* path) {
    char aside[RUN_PATH_SIZE + 2];
    struct stat held, there;
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) return;
    snprintf(aside, sizeof aside, "%s.1", path);
    if (fstat(fd, &held) == 0 && stat(path, &there) == 0 && held.st_ino == there.st_ino &&
        held.st_dev == there.st_dev)
        rename(path, aside);
}

static void append(const char* run_dir, const char* line, size_t size) {
    char path[RUN_PATH_SIZE];
    struct stat stat;
    snprintf(path, sizeof path, "%s/istio-cni.log", run_dir);
    int fd = open_log(path);
    if (fd >= 0 && fstat(fd, &stat) == 0 && S_ISREG(stat.st_mode) && stat.st_size > LOG_FILE_MAX) {
        rotate(fd, path);
        close(fd);
        fd = open_log(path);
    }
    if (fd < 0) return;
    // A log that can't be written is no reason to fail a pod.
    if (fstat(fd, &stat) == 0 && S_ISREG(stat.st_mode)) (void)!write(fd, line, size);
    close(fd);
}

// Upstream's wire format: an array of strings, each an encoded entry.
static void relay_to_agent(const char* run_dir, const char* line) {
    static struct agent_reply reply;
    char path[RUN_PATH_SIZE];
    snprintf(path, sizeof path, "%s/log.sock", run_dir);
    json_t* entries = json_pack("[s]", line);
    char* body = json_dumps(entries, JSON_COMPACT);
    json_decref(entries);
    if (body == NULL) return;
    agent_post(path, "/log", body, strlen(body), moment_now() + RELAY_DEADLINE_MS, &reply);
    free(body);
}

static json_t* timestamp(void) {
    char text[40];
    struct timespec now;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    const size_t size = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(text + size, sizeof text - size, ".%03ldZ", now.tv_nsec / 1000000);
    return json_string(text);
}

void log_write(const struct log_context* context, enum log_level level, bool relay,
               const char* format, ...) {
    static const char* const words[] = {"debug", "info", "warn", "error"};
    char message[8192];
    va_list args;
    if (level < context->level || level >= LOG_NONE) return;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);

    json_t* entry = json_object();
    json_object_set_new(entry, "level", json_string(words[level]));
    json_object_set_new(entry, "time", timestamp());
    json_object_set_new(entry, "scope", json_string("cni-plugin"));
    json_object_set_new(entry, "msg", text_json(message));
    json_object_set_new(entry, "command", text_json(context->command));
    if (context->pod_name != NULL && context->pod_name[0] != '\0') {
        json_object_set_new(entry, "podNamespace", text_json(context->pod_namespace));
        json_object_set_new(entry, "pod", text_json(context->pod_name));
    }
    if (context->container_id != NULL)
        json_object_set_new(entry, "containerId", text_json(context->container_id));
    char* line = json_dumps(entry, JSON_COMPACT);
    json_decref(entry);
    if (line == NULL) return;

    if (context->run_dir != NULL && relay) relay_to_agent(context->run_dir, line);
    // One write per line, so that lines of several plugins don't mix.
    const size_t size = strlen(line);
    line[size] = '\n'; // over the NUL: nothing below needs it
    if (level >= LOG_WARN) (void)!write(STDERR_FILENO, line, size + 1);
    if (context->run_dir != NULL) append(context->run_dir, line, size + 1);
    free(line);
}
