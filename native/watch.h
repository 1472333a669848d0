// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <napi.h>

namespace ambient {

Napi::Value routeWatch(const Napi::CallbackInfo& info);
Napi::Value nftWatch(const Napi::CallbackInfo& info);

} // namespace ambient
