// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <napi.h>

namespace ambient {

Napi::Value enterNetns(const Napi::CallbackInfo& info);
Napi::Value enterRoot(const Napi::CallbackInfo& info);

} // namespace ambient
