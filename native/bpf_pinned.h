// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <napi.h>

namespace ambient {

Napi::Value bpfPinned(const Napi::CallbackInfo& info);
Napi::Value bpfVersions(const Napi::CallbackInfo& info);

} // namespace ambient
