// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <napi.h>

namespace ambient {

Napi::Value seqpacketListen(const Napi::CallbackInfo& info);
Napi::Value seqpacketConnect(const Napi::CallbackInfo& info);

} // namespace ambient
