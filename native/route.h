// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <napi.h>

namespace ambient {

Napi::Value routes(const Napi::CallbackInfo& info);
Napi::Value routeReplace(const Napi::CallbackInfo& info);
Napi::Value routeDelete(const Napi::CallbackInfo& info);
Napi::Value rules(const Napi::CallbackInfo& info);
Napi::Value ruleAdd(const Napi::CallbackInfo& info);
Napi::Value ruleDelete(const Napi::CallbackInfo& info);

} // namespace ambient
