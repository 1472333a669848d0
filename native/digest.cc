// SPDX-License-Identifier: Apache-2.0
#include "digest.h"

#include <cstdio>

namespace ambient {

void Digest::add(const void* data, size_t size) {
    const auto* bytes = static_cast<const uint8_t*>(data);
    for (size_t i = 0; i < size; i++)
        value_ = (value_ ^ bytes[i]) * 0x100000001b3;
}

void Digest::add(const std::string& text) {
    const uint32_t size = static_cast<uint32_t>(text.size());
    add(&size, sizeof(size));
    add(text.data(), text.size());
}

std::string digestText(uint64_t value) {
    char text[17];
    std::snprintf(text, sizeof(text), "%016llx", static_cast<unsigned long long>(value));
    return text;
}

} // namespace ambient
