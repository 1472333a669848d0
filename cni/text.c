// SPDX-License-Identifier: Apache-2.0
#include "text.h"

#include <stdlib.h>
#include <string.h>

json_t* text_json(const char* text) {
    json_t* value = json_string(text);
    if (value != NULL) return value;
    char* copy = strdup(text);
    if (copy == NULL) return json_null();
    for (char* at = copy; *at != '\0'; at++)
        if (*at < ' ' || *at > '~') *at = '?';
    value = json_string(copy);
    free(copy);
    return value;
}
