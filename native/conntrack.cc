// SPDX-License-Identifier: Apache-2.0
#include "conntrack.h"

#include <arpa/inet.h>
#include <linux/netfilter/nf_conntrack_common.h>
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

/** Who sends the packets of the reply direction; nothing when an attribute is missing. */
std::optional<Source> replySource(const nlmsghdr& header, int family) {
    const auto reply = Attributes::after<nfgenmsg>(header).find(CTA_TUPLE_REPLY);
    if (!reply) return {};
    const auto ip = Attributes(*reply).find(CTA_TUPLE_IP);
    const auto proto = Attributes(*reply).find(CTA_TUPLE_PROTO);
    if (!ip || !proto) return {};
    const auto src = Attributes(*ip).find(family == AF_INET ? CTA_IP_V4_SRC : CTA_IP_V6_SRC);
    const auto port = Attributes(*proto).find(CTA_PROTO_SRC_PORT);
    if (!src || !port) return {};
    return Source{formatIp(family, src->data, src->size), ntohs(port->as<uint16_t>())};
}

} // namespace

Napi::Value conntrackReply(const Napi::CallbackInfo& info) {
    Args args(info);
    const Fields fields = args.object(1, "connection");
    Tuple tuple = {};
    tuple.src = fields.string("src");
    tuple.dst = fields.string("dst");
    tuple.srcPort = static_cast<uint16_t>(fields.number("srcPort", UINT16_MAX));
    tuple.dstPort = static_cast<uint16_t>(fields.number("dstPort", UINT16_MAX));
    tuple.family = familyOfText(tuple.src);
    nfgenmsg fixed = {};
    fixed.nfgen_family = static_cast<uint8_t>(tuple.family);
    fixed.version = NFNETLINK_V0;
    Message message(NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET, NLM_F_ACK);
    message.fixed(fixed);
    putTuple(message, tuple);
    std::optional<Source> source;
    try {
        NetlinkSocket(args.netns(0), NETLINK_NETFILTER)
            .request(message, "ask conntrack for a connection",
                     [&](const nlmsghdr& header) { source = replySource(header, tuple.family); });
    } catch (const Fault& fault) {
        if (fault.error != ENOENT) throw;
    }
    if (!source) return info.Env().Undefined();
    Napi::Object result = Napi::Object::New(info.Env());
    result.Set("address", source->address);
    result.Set("port", static_cast<uint32_t>(source->port));
    return result;
}

} // namespace ambient
