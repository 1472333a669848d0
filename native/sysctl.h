// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <napi.h>

namespace ambient {

Napi::Value sysctlGet(const Napi::CallbackInfo& info);
Napi::Value sysctlSet(const Napi::CallbackInfo& info);

} // namespace ambient
