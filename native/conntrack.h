// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <napi.h>

namespace ambient {

Napi::Value conntrackReplies(const Napi::CallbackInfo& info);

} // namespace ambient
