// SPDX-License-Identifier: Apache-2.0
#include "fault.h"

#include <cstring>

#include "env.h"

namespace ambient {

std::string errnoName(int error) {
    const char* name = strerrorname_np(error);
    return name != nullptr ? name : "E" + std::to_string(error);
}

void fail(int error, const char* syscall, const std::string& what, const std::string& detail) {
    const char* text = strerrordesc_np(error);
    std::string message = what + ": " + (text != nullptr ? text : "unknown error");
    if (!detail.empty()) message += ": " + detail;
    message += " (" + errnoName(error) + ")";
    throw Fault{error, syscall, message};
}

Napi::Error toError(Napi::Env env, const Fault& fault) {
    // Node's own errors carry the negative errno.
    Napi::String message = Napi::String::New(env, fault.message);
    Napi::String code = Napi::String::New(env, errnoName(fault.error));
    Napi::Number number = Napi::Number::New(env, -fault.error);
    Napi::String syscall = Napi::String::New(env, fault.syscall);
    Napi::FunctionReference& errorClass = EnvState::of(env).errorClass;
    if (!errorClass.IsEmpty()) {
        return Napi::Error(env, errorClass.New({message, code, number, syscall}));
    }
    Napi::Error error = Napi::Error::New(env, fault.message);
    error.Set("code", code);
    error.Set("errno", number);
    error.Set("syscall", syscall);
    return error;
}

Napi::Value setErrorClass(const Napi::CallbackInfo& info) {
    if (info.Length() < 1 || !info[0].IsFunction()) {
        throw Napi::TypeError::New(info.Env(), "setErrorClass needs a class");
    }
    EnvState::of(info.Env()).errorClass = Napi::Persistent(info[0].As<Napi::Function>());
    return info.Env().Undefined();
}

} // namespace ambient
