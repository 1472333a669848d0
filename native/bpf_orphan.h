// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <napi.h>

namespace ambient {

Napi::Value bpfNetnsLinked(const Napi::CallbackInfo& info);
Napi::Value bpfFilterState(const Napi::CallbackInfo& info);
Napi::Value bpfFilterDetach(const Napi::CallbackInfo& info);

} // namespace ambient
