// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <napi.h>

namespace ambient {

class Loop;

/** What one JavaScript environment (main thread or worker) owns. */
struct EnvState {
    explicit EnvState(Napi::Env env);

    static EnvState& of(Napi::Env env) { return *env.GetInstanceData<EnvState>(); }

    Napi::FunctionReference errorClass;
    /** Outlives this struct until its last handle is closed; it deletes itself. */
    Loop* loop;
};

} // namespace ambient
