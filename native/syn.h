// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <napi.h>

namespace ambient {

/** A socket for `synSend`, in a netns. Closing it waits for an RCU grace period (packet_release).
 */
Napi::Value synSocket(const Napi::CallbackInfo& info);

/** Sends one TCP SYN as a frame of its own out of an interface. */
Napi::Value synSend(const Napi::CallbackInfo& info);

} // namespace ambient
