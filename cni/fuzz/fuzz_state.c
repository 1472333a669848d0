// SPDX-License-Identifier: Apache-2.0
// A state file lets a namespace pass only if it is for this boot and names it.
#include "../state.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    char why[256];
    char* text = malloc(size == 0 ? 1 : size);
    memcpy(text, data, size);
    // Both words can be escaped, but then a backslash is there.
    const bool plain = memchr(text, '\\', size) == NULL;
    if (state_text_is_clear(text, size, "boot", "shop", why, sizeof why)) {
        if (plain && (memmem(text, size, "\"boot\"", 6) == NULL ||
                      memmem(text, size, "\"shop\"", 6) == NULL))
            abort();
    }
    free(text);
    return 0;
}
