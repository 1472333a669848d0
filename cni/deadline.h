// SPDX-License-Identifier: Apache-2.0
// Moments of the monotonic clock: everything that may wait is given one.
#ifndef CNI_DEADLINE_H
#define CNI_DEADLINE_H

#include <limits.h>
#include <stdint.h>
#include <time.h>

typedef int64_t moment; // milliseconds

static inline moment moment_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (moment)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

// Milliseconds left, for poll(); 0 when the moment has passed.
static inline int moment_left(moment deadline) {
    moment left = deadline - moment_now();
    return left <= 0 ? 0 : left > INT_MAX ? INT_MAX : (int)left;
}

#endif
