// SPDX-License-Identifier: Apache-2.0
// What the image has on its PATH: `install-cni`, the agent, and `ambient-cni`, the commands for
// people. Both are Node with our program; only a program can give V8 its limits before it starts.
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef NODE
#define NODE "/usr/local/bin/node"
#endif
#ifndef PROGRAM
#define PROGRAM "/app/agent.mjs"
#endif

#define MIB (1ULL << 20)
#define HEAP_MIB 96ULL

// GOMEMLIMIT as Go writes it, in bytes; 0 for none and for what is none: the agent refuses that by
// name.
static unsigned long long memory_limit(const char* text) {
    static const struct {
        const char* name;
        unsigned shift;
    } units[] = {{"", 0}, {"B", 0}, {"KiB", 10}, {"MiB", 20}, {"GiB", 30}, {"TiB", 40}};
    if (!text || *text < '0' || *text > '9') return 0;
    char* unit;
    errno = 0;
    unsigned long long number = strtoull(text, &unit, 10);
    if (errno) return 0;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (strcmp(unit, units[i].name)) continue;
        return number > ~0ULL >> units[i].shift ? ~0ULL : number << units[i].shift;
    }
    return 0;
}

// Half of the container's memory for JavaScript's heap, 96 MiB at most: without a limit of the
// container the chart hands out the node's memory.
static unsigned long long heap_mib(void) {
    unsigned long long half = memory_limit(getenv("GOMEMLIMIT")) / 2 / MIB;
    return half > 0 && half < HEAP_MIB ? half : HEAP_MIB;
}

// A command runs in the agent's own container: when memory is short there, the kernel shall not end
// the agent.
static void be_the_first_to_die(void) {
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0) return;
    if (write(fd, "1000", 4) < 0) { /* Then not: the command works all the same. */
    }
    close(fd);
}

int main(int argc, char** argv) {
    const char* slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
    const char* name = slash ? slash + 1 : argc > 0 ? argv[0] : "";
    bool named_agent = !strcmp(name, "install-cni");
    bool agent = named_agent || (argc > 1 && !strcmp(argv[1], "install-cni"));

    char heap[48];
    snprintf(heap, sizeof heap, "--max-old-space-size=%llu", heap_mib());
    char** args = calloc((size_t)argc + 8, sizeof *args);
    if (!args) {
        fprintf(stderr, "%s: out of memory\n", name);
        return 1;
    }
    size_t count = 0;
    args[count++] = NODE;
    // A library's business, not that of who reads the log.
    args[count++] = "--disable-warning=DEP0040";
    if (agent) {
        args[count++] = "--max-semi-space-size=2";
        args[count++] = heap;
    } else {
        be_the_first_to_die();
    }
    args[count++] = PROGRAM;
    if (named_agent) args[count++] = "install-cni";
    for (int i = 1; i < argc; i++)
        args[count++] = argv[i];

    // One thread allocates nearly all: more arenas only cost memory. And what is large goes back
    // when it is freed, as glibc does until it has seen a few large blocks come and go (4 MB less
    // in use after the start).
    setenv("MALLOC_ARENA_MAX", "1", 0);
    setenv("MALLOC_MMAP_THRESHOLD_", "131072", 0);
    setenv("MALLOC_TRIM_THRESHOLD_", "131072", 0);
    execv(NODE, args);
    fprintf(stderr, "%s: can't start %s: %s\n", name, NODE, strerror(errno));
    return errno == ENOENT ? 127 : 126;
}
