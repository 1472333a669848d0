// SPDX-License-Identifier: Apache-2.0
// What the agent left behind for the time it is away: namespaces whose pods need no mesh.
#ifndef CNI_STATE_H
#define CNI_STATE_H

#include <stdbool.h>
#include <stddef.h>

enum { STATE_MAX = 4 << 20 };

// Whether the published state, written since this boot, lists the namespace as clear. When false,
// `why` gets the reason in words.
bool state_is_clear(const char* run_dir, const char* name, char* why, size_t why_size);

// The decision alone, for a file's text; `boot_id` without newline.
bool state_text_is_clear(const char* text, size_t size, const char* boot_id, const char* name,
                         char* why, size_t why_size);

#endif
