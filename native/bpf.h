// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <napi.h>

namespace ambient {

Napi::Value bpfOpen(const Napi::CallbackInfo& info);
Napi::Value bpfVerify(const Napi::CallbackInfo& info);
Napi::Value bpfCgroupFlags(const Napi::CallbackInfo& info);
Napi::Value bpfRemove(const Napi::CallbackInfo& info);

} // namespace ambient
