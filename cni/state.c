// SPDX-License-Identifier: Apache-2.0
#include "state.h"

#include "json.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool no(char* why, size_t size, const char* format, ...)
    __attribute__((format(printf, 3, 4)));

static bool no(char* why, size_t size, const char* format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(why, size, format, args);
    va_end(args);
    return false;
}

static bool read_boot_id(char out[64]) {
    const int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    const ssize_t size = read(fd, out, 63);
    close(fd);
    if (size <= 0) return false;
    out[size] = '\0';
    out[strcspn(out, "\n")] = '\0';
    return true;
}

// Reads up to `size` bytes; fewer only at the end of the file.
static ssize_t read_fully(int fd, char* out, size_t size) {
    size_t used = 0;
    while (used < size) {
        const ssize_t got = read(fd, out + used, size - used);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return -1;
        if (got == 0) break;
        used += (size_t)got;
    }
    return (ssize_t)used;
}

bool state_text_is_clear(const char* text, size_t size, const char* boot_id, const char* name,
                         char* why, size_t why_size) {
    size_t index;
    const json_t* item;
    bool clear = false;
    json_t* root = json_loadb(text, size, 0, NULL);
    const json_t* schema = json_object_get(root, "schema");
    const char* written_boot = json_string_value(json_object_get(root, "bootId"));
    const json_t* list = json_object_get(root, "clear");
    if (json_integer_value(schema) != 1 || written_boot == NULL || !json_is_array(list)) {
        no(why, why_size, "the agent's published state is not of schema 1");
    } else if (strcmp(written_boot, boot_id) != 0) {
        no(why, why_size, "the agent's published state is from before this boot");
    } else {
        json_array_foreach(list, index, item) {
            const char* entry = json_string_value(item);
            if (entry != NULL && strcmp(entry, name) == 0) clear = true;
        }
        if (!clear) no(why, why_size, "namespace %s may hold pods of the mesh", name);
    }
    json_decref(root);
    return clear;
}

bool state_is_clear(const char* run_dir, const char* name, char* why, size_t why_size) {
    char path[PATH_MAX];
    char boot_id[64];
    struct stat stat;
    snprintf(path, sizeof path, "%s/ambient-cni-state.json", run_dir);
    if (!read_boot_id(boot_id)) return no(why, why_size, "the node's boot id can't be read");

    // O_NONBLOCK: a FIFO in its place must not hold us up.
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return no(why, why_size, "the agent published no state (%s: %s)", path, strerror(errno));
    // What lets a pod pass must come from root, and from nobody else.
    if (fstat(fd, &stat) < 0 || !S_ISREG(stat.st_mode) || stat.st_uid != 0 ||
        (stat.st_mode & (S_IWGRP | S_IWOTH)) != 0 || stat.st_size > STATE_MAX) {
        close(fd);
        return no(why, why_size, "%s is not a file of at most %d bytes that only root can write",
                  path, STATE_MAX);
    }
    char* text = malloc((size_t)stat.st_size + 1);
    const ssize_t size = text == NULL ? -1 : read_fully(fd, text, (size_t)stat.st_size);
    close(fd);
    const bool clear = size < 0
                           ? no(why, why_size, "%s can't be read", path)
                           : state_text_is_clear(text, (size_t)size, boot_id, name, why, why_size);
    free(text);
    return clear;
}
