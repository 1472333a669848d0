// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <napi.h>

namespace ambient {

Napi::Value mountBpffs(const Napi::CallbackInfo& info);
Napi::Value bpffsCreate(const Napi::CallbackInfo& info);

} // namespace ambient
