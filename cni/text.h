// SPDX-License-Identifier: Apache-2.0
// Text from anywhere as a JSON string.
#ifndef CNI_TEXT_H
#define CNI_TEXT_H

#include <jansson.h>

// Never NULL for want of UTF-8: what isn't printable ASCII is then shown as `?`.
json_t* text_json(const char* text);

#endif
