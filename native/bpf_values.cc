// SPDX-License-Identifier: Apache-2.0
#include "bpf_values.h"

#include <cerrno>
#include <cstring>

#include "bpf_address.h"
#include "fault.h"

namespace ambient {

namespace {

std::vector<std::string> strings(Napi::Object object, const char* key) {
    std::vector<std::string> all;
    Napi::Value value = object.Get(key);
    if (!value.IsArray())
        throw Napi::TypeError::New(object.Env(), std::string(key) + " must be an array");
    Napi::Array array = value.As<Napi::Array>();
    for (uint32_t i = 0; i < array.Length(); i++)
        all.push_back(stringOf(array.Get(i), key));
    return all;
}

ambient_address optionalAddress(const Fields& fields, const char* key) {
    const std::string text = fields.stringOr(key, "");
    return text.empty() ? ambient_address{} : bpfAddress(text);
}

template <size_t Size> void copyText(char (&to)[Size], const std::string& text, const char* name) {
    if (text.size() > Size)
        fail(EINVAL, "bpf", std::string("keep ") + name, "it is too long: " + text);
    std::memcpy(to, text.data(), text.size());
}

template <size_t Size> std::string textOf(const char (&from)[Size]) {
    return std::string(from, ::strnlen(from, Size));
}

void range(const Fields& knobs, const char* key, ambient_address& first, ambient_address* mask) {
    const ambient_exclude_key parsed = excludeKey(0, knobs.string(key));
    const uint32_t bits = parsed.prefix_bits - 64;
    auto* bytes = reinterpret_cast<uint8_t*>(&first);
    ambient_address masked = {};
    auto* maskBytes = reinterpret_cast<uint8_t*>(&masked);
    for (uint32_t bit = 0; bit < bits; bit++)
        maskBytes[bit / 8] |= static_cast<uint8_t>(0x80 >> bit % 8);
    first = parsed.address;
    for (size_t i = 0; i < 16; i++)
        bytes[i] &= maskBytes[i];
    if (mask != nullptr) *mask = masked;
}

constexpr std::pair<const char*, uint32_t> kFlags[] = {
    {"ipv6", AMBIENT_POD_IPV6},         {"inbound", AMBIENT_POD_INBOUND},
    {"dns", AMBIENT_POD_DNS},           {"dnsListed", AMBIENT_POD_DNS_LISTED},
    {"draining", AMBIENT_POD_DRAINING}, {"retiring", AMBIENT_POD_RETIRING},
    {"beside", AMBIENT_POD_BESIDE},
};

} // namespace

uint64_t uint64Of(Napi::Value value, const char* name) {
    if (!value.IsBigInt())
        throw Napi::TypeError::New(value.Env(), std::string(name) + " must be a bigint");
    bool lossless = false;
    return value.As<Napi::BigInt>().Uint64Value(&lossless);
}

/** A netns cookie. @throws TypeError. */
uint64_t cookieAt(const Napi::CallbackInfo& info, size_t index) {
    return uint64Of(info[index], "cookie");
}

/** cgroup ids. @throws TypeError. */
std::vector<uint64_t> idsAt(const Napi::CallbackInfo& info, size_t index, const char* name) {
    if (!info[index].IsArray())
        throw Napi::TypeError::New(info.Env(), std::string(name) + " must be an array");
    Napi::Array list = info[index].As<Napi::Array>();
    std::vector<uint64_t> ids;
    for (uint32_t i = 0; i < list.Length(); i++)
        ids.push_back(uint64Of(list.Get(i), name));
    return ids;
}

BpfPod podOf(const Args& args, size_t index, uint64_t cookie) {
    const Fields fields = args.object(index, "pod");
    BpfPod pod;
    pod.pod.ip4 = optionalAddress(fields, "ip4");
    pod.pod.ip6 = optionalAddress(fields, "ip6");
    pod.pod.shadow4 = optionalAddress(fields, "shadow4");
    pod.pod.shadow6 = optionalAddress(fields, "shadow6");
    pod.pod.probe4 = bpfAddress(fields.string("probe4"));
    pod.pod.probe6 = bpfAddress(fields.string("probe6"));
    for (const auto& [name, flag] : kFlags)
        if (fields.flag(name)) pod.pod.flags |= flag;
    copyText(pod.pod.sysctls, fields.string("sysctls"), "sysctls");
    copyText(pod.pod.plan, fields.string("plan"), "plan");
    for (const std::string& local : strings(fields.raw(), "locals"))
        pod.locals.push_back(bpfAddress(local));
    for (const std::string& server : strings(fields.raw(), "nameservers"))
        pod.nameservers.push_back(bpfAddress(server));
    for (const std::string& cidr : strings(fields.raw(), "excludes"))
        pod.excludes.push_back(excludeKey(cookie, cidr));
    if (!pod.excludes.empty()) pod.pod.flags |= AMBIENT_POD_EXCLUDES;
    return pod;
}

Napi::Object toObject(Napi::Env env, const ambient_pod& pod) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("ip4", bpfAddressText(pod.ip4));
    object.Set("ip6", bpfAddressText(pod.ip6));
    object.Set("shadow4", bpfAddressText(pod.shadow4));
    object.Set("shadow6", bpfAddressText(pod.shadow6));
    object.Set("probe4", bpfAddressText(pod.probe4));
    object.Set("probe6", bpfAddressText(pod.probe6));
    for (const auto& [name, flag] : kFlags)
        object.Set(name, (pod.flags & flag) != 0);
    object.Set("sysctls", textOf(pod.sysctls));
    object.Set("plan", textOf(pod.plan));
    return object;
}

ambient_knobs knobsOf(const Fields& fields) {
    ambient_knobs knobs = {};
    knobs.ztunnel_mark = fields.number("ztunnelMark");
    knobs.local_mark = fields.number("localMark");
    knobs.mark_mask = fields.number("markMask");
    knobs.verify_mark = fields.number("verifyMark");
    knobs.port_outbound = static_cast<uint16_t>(fields.number("outboundPort", UINT16_MAX));
    knobs.port_inbound = static_cast<uint16_t>(fields.number("inboundPort", UINT16_MAX));
    knobs.port_hbone = static_cast<uint16_t>(fields.number("hbonePort", UINT16_MAX));
    knobs.port_dns = static_cast<uint16_t>(fields.number("dnsPort", UINT16_MAX));
    range(fields, "shadow4", knobs.shadow4, &knobs.shadow4_mask);
    range(fields, "shadow6", knobs.shadow6, &knobs.shadow6_mask);
    range(fields, "spread4", knobs.spread4, nullptr);
    range(fields, "spread6", knobs.spread6, nullptr);
    return knobs;
}

} // namespace ambient
