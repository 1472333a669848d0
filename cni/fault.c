// SPDX-License-Identifier: Apache-2.0
#include "fault.h"

#include <stdarg.h>
#include <stdio.h>

int fault_set(struct fault* fault, int code, const char* details, const char* format, ...) {
    va_list args;
    fault->code = code;
    fault->from_agent = false;
    va_start(args, format);
    vsnprintf(fault->msg, sizeof fault->msg, format, args);
    va_end(args);
    snprintf(fault->details, sizeof fault->details, "%s", details);
    return -1;
}

const char* quoted(char out[QUOTED_MAX], const char* value) {
    size_t n = 0;
    out[n++] = '"';
    for (; *value != '\0' && n < QUOTED_MAX - 6; value++)
        out[n++] = *value >= ' ' && *value <= '~' ? *value : '?';
    out[n++] = '"';
    for (int dots = 0; *value != '\0' && dots < 3; dots++)
        out[n++] = '.';
    out[n] = '\0';
    return out;
}
