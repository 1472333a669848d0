// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <napi.h>

namespace ambient {

Napi::Value fileExchange(const Napi::CallbackInfo& info);
Napi::Value fileMove(const Napi::CallbackInfo& info);

} // namespace ambient
