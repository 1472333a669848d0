// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <napi.h>

namespace ambient {

Napi::Value closeFd(const Napi::CallbackInfo& info);
Napi::Value netnsOpen(const Napi::CallbackInfo& info);
Napi::Value netnsCreate(const Napi::CallbackInfo& info);
Napi::Value netnsIdentify(const Napi::CallbackInfo& info);
Napi::Value netnsCookie(const Napi::CallbackInfo& info);
Napi::Value openFds(const Napi::CallbackInfo& info);

} // namespace ambient
