// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <napi.h>

#include <string>

namespace ambient {

/** A failed system call, independent of JavaScript so that any thread may throw it. */
struct Fault {
    int error;
    std::string syscall;
    std::string message;
};

/**
 * Throws a Fault whose message is "what: text of the errno[: detail] (CODE)".
 * `what` is a verb phrase that names the object: "add address 10.0.0.1/24 to eth0".
 */
[[noreturn]] void fail(int error, const char* syscall, const std::string& what,
                       const std::string& detail = "");

/** "EPERM" for EPERM; "E4711" for a number without a name. */
std::string errnoName(int error);

/** The JavaScript error for a fault: an instance of the class given to setErrorClass. */
Napi::Error toError(Napi::Env env, const Fault& fault);

/** Injects the class NativeError(message, code, errno, syscall). */
Napi::Value setErrorClass(const Napi::CallbackInfo& info);

/** Turns what C++ throws into JavaScript errors; every function JavaScript calls goes through it.
 */
template <class Body> Napi::Value guard(const Napi::CallbackInfo& info, Body&& body) {
    try {
        return body(info);
    } catch (const Fault& fault) {
        throw toError(info.Env(), fault);
    } catch (const Napi::Error&) {
        throw;
    } catch (const std::exception& error) {
        throw Napi::Error::New(info.Env(), error.what());
    }
}

template <Napi::Value (*Function)(const Napi::CallbackInfo&)>
Napi::Value guarded(const Napi::CallbackInfo& info) {
    return guard(info, Function);
}

/** A JavaScript function that keeps `body` and what it captures until it is collected. */
template <class Body> Napi::Function method(Napi::Env env, const char* name, Body body) {
    return Napi::Function::New(
        env, [body](const Napi::CallbackInfo& info) { return guard(info, body); }, name);
}

} // namespace ambient
