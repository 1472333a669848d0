// SPDX-License-Identifier: Apache-2.0
#include "args.h"

#include <sys/socket.h>

#include <climits>
#include <cmath>

namespace ambient {

namespace {

[[noreturn]] void refuse(Napi::Env env, const std::string& message) {
    throw Napi::TypeError::New(env, message);
}

int familyOf(Napi::Value value, const std::string& name) {
    uint32_t family = numberOf(value, name, 6);
    if (family == 4) return AF_INET;
    if (family == 6) return AF_INET6;
    refuse(value.Env(), name + " must be 4 or 6, not " + std::to_string(family));
}

Napi::Function functionOf(Napi::Value value, const std::string& name) {
    if (!value.IsFunction()) refuse(value.Env(), name + " must be a function");
    return value.As<Napi::Function>();
}

} // namespace

std::string stringOf(Napi::Value value, const std::string& name, size_t max) {
    if (!value.IsString()) refuse(value.Env(), name + " must be a string");
    std::string text = value.As<Napi::String>().Utf8Value();
    if (text.size() > max) {
        refuse(value.Env(), name + " is longer than " + std::to_string(max) + " bytes");
    }
    if (text.find('\0') != std::string::npos) refuse(value.Env(), name + " holds a NUL byte");
    return text;
}

uint32_t numberOf(Napi::Value value, const std::string& name, uint32_t max) {
    if (!value.IsNumber()) refuse(value.Env(), name + " must be a number");
    double number = value.As<Napi::Number>().DoubleValue();
    if (!(number >= 0) || number > max || number != std::floor(number)) {
        refuse(value.Env(), name + " must be a whole number from 0 to " + std::to_string(max));
    }
    return static_cast<uint32_t>(number);
}

Napi::BigInt bigint(Napi::Env env, uint64_t value) {
    return Napi::BigInt::New(env, value);
}

bool Fields::has(const char* key) const {
    return !get(key).IsUndefined();
}

std::string Fields::string(const char* key) const {
    return stringOf(get(key), name_ + "." + key);
}

std::string Fields::stringOr(const char* key, const char* otherwise) const {
    return has(key) ? string(key) : otherwise;
}

uint32_t Fields::number(const char* key, uint32_t max) const {
    return numberOf(get(key), name_ + "." + key, max);
}

std::optional<uint32_t> Fields::optionalNumber(const char* key, uint32_t max) const {
    if (!has(key)) return std::nullopt;
    return number(key, max);
}

uint64_t Fields::number64(const char* key) const {
    Napi::Value value = get(key);
    bool lossless = false;
    const uint64_t number = value.IsBigInt() ? value.As<Napi::BigInt>().Uint64Value(&lossless) : 0;
    if (!lossless) refuse(object_.Env(), name_ + "." + key + " must be a bigint of 64 bits");
    return number;
}

bool Fields::flag(const char* key) const {
    Napi::Value value = get(key);
    if (value.IsUndefined()) return false;
    if (!value.IsBoolean()) refuse(object_.Env(), name_ + "." + key + " must be a boolean");
    return value.As<Napi::Boolean>().Value();
}

Napi::Function Fields::function(const char* key) const {
    return functionOf(get(key), name_ + "." + key);
}

std::optional<Fields> Fields::object(const char* key) const {
    Napi::Value value = get(key);
    if (value.IsUndefined()) return std::nullopt;
    if (!value.IsObject()) refuse(object_.Env(), name_ + "." + key + " must be an object");
    return Fields(value.As<Napi::Object>(), name_ + "." + key);
}

int Fields::family(const char* key) const {
    return familyOf(get(key), name_ + "." + key);
}

int Args::fd(size_t index, const char* name) const {
    return static_cast<int>(numberOf(at(index), name, INT_MAX));
}

int Args::netns(size_t index) const {
    return at(index).IsNull() ? -1 : fd(index, "netns");
}

std::string Args::string(size_t index, const char* name, size_t max) const {
    return stringOf(at(index), name, max);
}

uint32_t Args::number(size_t index, const char* name, uint32_t max) const {
    return numberOf(at(index), name, max);
}

int Args::family(size_t index) const {
    return familyOf(at(index), "family");
}

Fields Args::object(size_t index, const char* name) const {
    if (!at(index).IsObject()) refuse(env(), std::string(name) + " must be an object");
    return Fields(at(index).As<Napi::Object>(), name);
}

Napi::Function Args::function(size_t index, const char* name) const {
    return functionOf(at(index), name);
}

} // namespace ambient
