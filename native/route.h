// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <napi.h>

#include <cstdint>

namespace ambient {

/** A table's number as it fits the fixed part of a request; the whole one goes into an attribute.
 */
uint8_t shortTable(uint32_t table);

Napi::Value routes(const Napi::CallbackInfo& info);
Napi::Value routeReplace(const Napi::CallbackInfo& info);
Napi::Value routeDelete(const Napi::CallbackInfo& info);

} // namespace ambient
