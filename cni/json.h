// SPDX-License-Identifier: Apache-2.0
// The little that jansson doesn't offer.
#ifndef CNI_JSON_H
#define CNI_JSON_H

#include <jansson.h>
#include <stdbool.h>

// Where the value of a member of the outermost object stands in the text, so that it can be passed
// on byte for byte. The text must be a valid JSON object. With equal keys the last one counts, as
// jansson has it. False when no key is spelt literally so (an escaped spelling is not looked for).
bool json_member_span(const char* text, size_t size, const char* key, const char** value,
                      size_t* value_size);

// "a string", "an array", ... for messages.
const char* json_type_name(const json_t* value);

#endif
