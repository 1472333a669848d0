// SPDX-License-Identifier: Apache-2.0
// What the benchmark's programs have in common as processes: time, CPU, pinning, their end.
#pragma once

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static inline void die(const char* what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

static inline void usage(const char* text) {
    fprintf(stderr, "usage: %s\n", text);
    exit(2);
}

// Seconds on a clock that nobody sets.
static inline double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

// User and system time of this process so far, in seconds.
static inline double cpu_seconds(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_utime.tv_sec + usage.ru_stime.tv_sec +
           (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

// Puts this process ahead of whatever else the machine does meanwhile, where it may. The scheduler
// groups processes by session, and between groups only the group's own nice value counts: so it
// gets a session.
static inline void hurry(void) {
    setpriority(PRIO_PROCESS, 0, -20);
    // Fails for the leader of a process group, which has a session already or shares its shell's.
    if (setsid() < 0 && getsid(0) != getpid()) return;
    FILE* group = fopen("/proc/self/autogroup", "w");
    if (!group) return;
    fputs("-20", group);
    fclose(group);
}

static inline void pin_to(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) < 0) die("pin to a CPU");
    hurry();
}
