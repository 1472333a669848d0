// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <napi.h>

namespace ambient {

/** Calls back with batches of flow events from a ring buffer; returns the function that ends it. */
Napi::Function readEvents(Napi::Env env, int ringMap, Napi::Function told);

/** Name of a verdict as metrics and events spell it. */
const char* verdictName(unsigned verdict);

} // namespace ambient
