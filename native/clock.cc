// SPDX-License-Identifier: Apache-2.0
#include "clock.h"

#include <sys/timex.h>

#include <cerrno>

#include "fault.h"

namespace ambient {

/** adjtimex(2) that changes nothing needs no capability; a seccomp profile may refuse it all the
 * same. */
Napi::Value clockState(const Napi::CallbackInfo& info) {
    timex state = {};
    const int word = ::adjtimex(&state);
    if (word < 0) fail(errno, "adjtimex", "read how the node's clock is kept");
    Napi::Object result = Napi::Object::New(info.Env());
    result.Set("synchronised", word != TIME_ERROR && (state.status & STA_UNSYNC) == 0);
    result.Set("maxErrorMs", static_cast<double>(state.maxerror) / 1000);
    return result;
}

} // namespace ambient
