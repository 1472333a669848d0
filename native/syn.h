// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <napi.h>

namespace ambient {

/** Sends one TCP SYN as a frame of its own out of an interface. */
Napi::Value synSend(const Napi::CallbackInfo& info);

} // namespace ambient
