// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <napi.h>

#include <cstdint>
#include <optional>
#include <string>

namespace ambient {

/** Longest string argument taken where nothing else is said: a path. */
constexpr size_t kMaxString = 4096;

/** The properties of one object argument, checked; errors are TypeErrors that name the property. */
class Fields {
  public:
    Fields(Napi::Object object, std::string name) : object_(object), name_(std::move(name)) {}

    bool has(const char* key) const;
    std::string string(const char* key) const;
    std::string stringOr(const char* key, const char* otherwise) const;
    uint32_t number(const char* key, uint32_t max = UINT32_MAX) const;
    std::optional<uint32_t> optionalNumber(const char* key, uint32_t max = UINT32_MAX) const;
    /** A BigInt of at most 64 bits. */
    uint64_t number64(const char* key) const;
    bool flag(const char* key) const;
    Napi::Function function(const char* key) const;
    std::optional<Fields> object(const char* key) const;
    /** `family`: 4 or 6, returned as AF_INET or AF_INET6. */
    int family(const char* key) const;
    Napi::Object raw() const { return object_; }

  private:
    Napi::Value get(const char* key) const { return object_.Get(key); }

    Napi::Object object_;
    std::string name_;
};

/** The arguments of one call, checked. */
class Args {
  public:
    explicit Args(const Napi::CallbackInfo& info) : info_(info) {}

    Napi::Env env() const { return info_.Env(); }
    int fd(size_t index, const char* name) const;
    /** An fd, or -1 for null: the netns of the process. */
    int netns(size_t index) const;
    std::string string(size_t index, const char* name, size_t max = kMaxString) const;
    uint32_t number(size_t index, const char* name, uint32_t max = UINT32_MAX) const;
    int family(size_t index) const;
    Fields object(size_t index, const char* name) const;
    Napi::Function function(size_t index, const char* name) const;

  private:
    Napi::Value at(size_t index) const { return info_[index]; }

    const Napi::CallbackInfo& info_;
};

/** The string of a value. @throws TypeError when it is none, is too long or holds a NUL. */
std::string stringOf(Napi::Value value, const std::string& name, size_t max = kMaxString);
uint32_t numberOf(Napi::Value value, const std::string& name, uint32_t max);
Napi::BigInt bigint(Napi::Env env, uint64_t value);

} // namespace ambient
