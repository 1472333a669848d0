// SPDX-License-Identifier: Apache-2.0
#include "input.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int read_all(moment deadline, char* buffer, size_t* size, struct fault* fault) {
    size_t used = 0;
    for (;;) {
        struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
        int ready = poll(&in, 1, moment_left(deadline));
        if (ready < 0 && errno == EINTR) continue;
        if (ready == 0)
            return fault_set(fault, CNI_IO_FAILURE,
                             "the runtime must write the configuration and close stdin",
                             "stdin was not closed in time, after %zu bytes", used);
        // One byte more than allowed tells "too large" from "exactly full".
        ssize_t got = read(STDIN_FILENO, buffer + used, INPUT_MAX + 1 - used);
        if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        if (got < 0)
            return fault_set(fault, CNI_IO_FAILURE, "the runtime must pass the configuration",
                             "cannot read stdin: %s", strerror(errno));
        if (got == 0) break;
        used += (size_t)got;
        if (used > INPUT_MAX)
            return fault_set(fault, CNI_DECODE_FAILURE,
                             "look for a network configuration or prevResult that has grown",
                             "the configuration on stdin is larger than %d bytes", INPUT_MAX);
    }
    buffer[used] = '\0';
    *size = used;
    return 0;
}

int input_read(moment deadline, char** text, size_t* size, struct fault* fault) {
    // Untouched pages of this cost nothing.
    char* buffer = malloc(INPUT_MAX + 2);
    if (buffer == NULL)
        return fault_set(fault, CNI_IO_FAILURE, "the node is short of memory", "out of memory");
    if (read_all(deadline, buffer, size, fault) < 0) {
        free(buffer);
        return -1;
    }
    *text = buffer;
    return 0;
}
