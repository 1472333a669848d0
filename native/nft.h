// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <napi.h>

namespace ambient {

Napi::Value nftTables(const Napi::CallbackInfo& info);
Napi::Value nftChains(const Napi::CallbackInfo& info);
Napi::Value nftTable(const Napi::CallbackInfo& info);
Napi::Value nftSet(const Napi::CallbackInfo& info);

} // namespace ambient
