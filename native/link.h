// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <napi.h>

namespace ambient {

Napi::Value links(const Napi::CallbackInfo& info);
Napi::Value vethAdd(const Napi::CallbackInfo& info);
Napi::Value linkUp(const Napi::CallbackInfo& info);
Napi::Value linkDelete(const Napi::CallbackInfo& info);
Napi::Value addresses(const Napi::CallbackInfo& info);
Napi::Value addressAdd(const Napi::CallbackInfo& info);
Napi::Value addressDelete(const Napi::CallbackInfo& info);

} // namespace ambient
