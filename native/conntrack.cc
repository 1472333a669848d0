// SPDX-License-Identifier: Apache-2.0
#include "conntrack.h"

#include <arpa/inet.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>

#include <cerrno>
#include <optional>

#include "address.h"
#include "args.h"
#include "fault.h"
#include "netlink.h"

namespace ambient {

namespace {

struct Tuple {
    int family;
    std::string src, dst;
    uint16_t srcPort, dstPort;
};

struct Source {
    std::string address;
    uint16_t port;
};

void putTuple(Message& message, const Tuple& tuple) {
    const bool ipv4 = tuple.family == AF_INET;
    const IpBytes src = parseIp(tuple.family, tuple.src);
    const IpBytes dst = parseIp(tuple.family, tuple.dst);
    const uint16_t srcPort = htons(tuple.srcPort);
    const uint16_t dstPort = htons(tuple.dstPort);
    const size_t whole = message.nest(CTA_TUPLE_ORIG);
    const size_t ip = message.nest(CTA_TUPLE_IP);
    message.put(ipv4 ? CTA_IP_V4_SRC : CTA_IP_V6_SRC, src.bytes, src.size);
    message.put(ipv4 ? CTA_IP_V4_DST : CTA_IP_V6_DST, dst.bytes, dst.size);
    message.end(ip);
    const size_t proto = message.nest(CTA_TUPLE_PROTO);
    message.put8(CTA_PROTO_NUM, IPPROTO_TCP);
    message.put(CTA_PROTO_SRC_PORT, &srcPort, sizeof(srcPort));
    message.put(CTA_PROTO_DST_PORT, &dstPort, sizeof(dstPort));
    message.end(proto);
    message.end(whole);
}

/** Nothing when an attribute is missing. */
std::optional<Source> sourceOf(const nlmsghdr& header, uint16_t direction, int family) {
    const auto tuple = Attributes::after<nfgenmsg>(header).find(direction);
    if (!tuple) return {};
    const auto ip = Attributes(*tuple).find(CTA_TUPLE_IP);
    const auto proto = Attributes(*tuple).find(CTA_TUPLE_PROTO);
    if (!ip || !proto) return {};
    const auto src = Attributes(*ip).find(family == AF_INET ? CTA_IP_V4_SRC : CTA_IP_V6_SRC);
    const auto port = Attributes(*proto).find(CTA_PROTO_SRC_PORT);
    if (!src || !port) return {};
    return Source{formatIp(family, src->data, src->size), ntohs(port->as<uint16_t>())};
}

/**
 * A connection that conntrack met in mid-stream began for it with whoever spoke first: its own
 * direction may be the other one.
 */
std::optional<Source> answering(const nlmsghdr& header, const Tuple& asked) {
    const auto original = sourceOf(header, CTA_TUPLE_ORIG, asked.family);
    if (!original) return {};
    const bool same = original->port == asked.srcPort && original->address == asked.src;
    return same ? sourceOf(header, CTA_TUPLE_REPLY, asked.family) : original;
}

Tuple tupleOf(const Napi::Value& value) {
    if (!value.IsObject()) {
        throw Napi::TypeError::New(value.Env(), "connections[] must be objects");
    }
    const Fields fields(value.As<Napi::Object>(), "connections[]");
    const std::string src = fields.string("src");
    const int family = familyOfText(src);
    const IpBytes bytes = parseIp(family, src);
    return {family, formatIp(family, bytes.bytes, bytes.size), fields.string("dst"),
            static_cast<uint16_t>(fields.number("srcPort", UINT16_MAX)),
            static_cast<uint16_t>(fields.number("dstPort", UINT16_MAX))};
}

std::optional<Source> ask(NetlinkSocket& netlink, const Tuple& tuple) {
    nfgenmsg fixed = {};
    fixed.nfgen_family = static_cast<uint8_t>(tuple.family);
    fixed.version = NFNETLINK_V0;
    Message message(NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET, NLM_F_ACK);
    message.fixed(fixed);
    putTuple(message, tuple);
    std::optional<Source> source;
    try {
        netlink.request(message, "ask conntrack for a connection",
                        [&](const nlmsghdr& header) { source = answering(header, tuple); });
    } catch (const Fault& fault) {
        if (fault.error != ENOENT) throw;
    }
    return source;
}

} // namespace

Napi::Value conntrackReplies(const Napi::CallbackInfo& info) {
    Args args(info);
    const int netns = args.netns(0);
    if (!info[1].IsArray()) {
        throw Napi::TypeError::New(info.Env(), "connections must be an array");
    }
    const Napi::Array connections = info[1].As<Napi::Array>();
    NetlinkSocket netlink(netns, NETLINK_NETFILTER);
    Napi::Array result = Napi::Array::New(info.Env(), connections.Length());
    for (uint32_t i = 0; i < connections.Length(); i++) {
        Napi::HandleScope scope(info.Env());
        const std::optional<Source> source = ask(netlink, tupleOf(connections.Get(i)));
        if (!source) {
            result.Set(i, info.Env().Undefined());
            continue;
        }
        Napi::Object endpoint = Napi::Object::New(info.Env());
        endpoint.Set("address", source->address);
        endpoint.Set("port", static_cast<uint32_t>(source->port));
        result.Set(i, endpoint);
    }
    return result;
}

} // namespace ambient
