// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

namespace ambient {

/** FNV-1a, 64 bit. It tells a changed thing from an unchanged one; it is no defence against
 * forgery. */
class Digest {
  public:
    void add(const void* data, size_t size);
    /** With its length, so that two texts cannot trade bytes. */
    void add(const std::string& text);
    uint64_t value() const { return value_; }

  private:
    uint64_t value_ = 0xcbf29ce484222325;
};

/** 16 hex digits. */
std::string digestText(uint64_t value);

} // namespace ambient
