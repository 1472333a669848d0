// SPDX-License-Identifier: Apache-2.0
// The configuration that the runtime writes to our stdin.
#ifndef CNI_INPUT_H
#define CNI_INPUT_H

#include "deadline.h"
#include "fault.h"

enum { INPUT_MAX = 1 << 20 };

// Reads fd 0 to its end. *text is the caller's to free and ends in a NUL that *size doesn't count.
int input_read(moment deadline, char** text, size_t* size, struct fault* fault);

#endif
