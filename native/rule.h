// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <napi.h>

namespace ambient {

Napi::Value rules(const Napi::CallbackInfo& info);
Napi::Value ruleAdd(const Napi::CallbackInfo& info);
Napi::Value ruleDelete(const Napi::CallbackInfo& info);

} // namespace ambient
