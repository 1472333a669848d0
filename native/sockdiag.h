// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <napi.h>

namespace ambient {

Napi::Value sockets(const Napi::CallbackInfo& info);
Napi::Value socketDestroy(const Napi::CallbackInfo& info);

} // namespace ambient
