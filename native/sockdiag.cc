// SPDX-License-Identifier: Apache-2.0
#include "sockdiag.h"

#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>

#include <cerrno>
#include <cstring>

#include "address.h"
#include "args.h"
#include "fault.h"
#include "netlink.h"

namespace ambient {

namespace {

/** Highest TCP state the kernel has (TCP_BOUND_INACTIVE). */
constexpr uint32_t kMaxState = 13;

struct Socket {
    int family;
    uint8_t state;
    uint16_t srcPort, dstPort;
    uint32_t uid, inode, queued, mark = 0;
    uint64_t cgroup = 0, cookie = 0;
    std::string src, dst;
};

void parseSocket(const nlmsghdr& header, std::vector<Socket>& result) {
    const auto* fixed = fixedPart<inet_diag_msg>(header);
    if (header.nlmsg_type != SOCK_DIAG_BY_FAMILY || fixed == nullptr) return;
    Socket socket = {};
    socket.family = fixed->idiag_family;
    socket.state = fixed->idiag_state;
    socket.src = formatIp(socket.family, fixed->id.idiag_src, sizeof(fixed->id.idiag_src));
    socket.dst = formatIp(socket.family, fixed->id.idiag_dst, sizeof(fixed->id.idiag_dst));
    socket.srcPort = ntohs(fixed->id.idiag_sport);
    socket.dstPort = ntohs(fixed->id.idiag_dport);
    socket.uid = fixed->idiag_uid;
    socket.inode = fixed->idiag_inode;
    socket.queued = fixed->idiag_rqueue;
    socket.cookie =
        static_cast<uint64_t>(fixed->id.idiag_cookie[1]) << 32 | fixed->id.idiag_cookie[0];
    for (Attribute attribute : Attributes::after<inet_diag_msg>(header)) {
        if (attribute.type == INET_DIAG_MARK) socket.mark = attribute.as<uint32_t>();
        if (attribute.type == INET_DIAG_CGROUP_ID) socket.cgroup = attribute.as<uint64_t>();
    }
    result.push_back(socket);
}

uint32_t stateMask(const Fields& filter) {
    if (!filter.has("states")) return UINT32_MAX;
    Napi::Value value = filter.raw().Get("states");
    if (!value.IsArray()) {
        throw Napi::TypeError::New(value.Env(), "filter.states must be an array");
    }
    Napi::Array states = value.As<Napi::Array>();
    uint32_t mask = 0;
    for (uint32_t i = 0; i < states.Length(); i++) {
        mask |= 1U << numberOf(states.Get(i), "filter.states[]", kMaxState);
    }
    return mask;
}

} // namespace

Napi::Value sockets(const Napi::CallbackInfo& info) {
    Args args(info);
    const Fields filter = args.object(1, "filter");
    const std::string protocol = filter.string("protocol");
    if (protocol != "tcp" && protocol != "udp") {
        throw Napi::TypeError::New(info.Env(), "filter.protocol must be \"tcp\" or \"udp\"");
    }
    inet_diag_req_v2 request = {};
    request.sdiag_protocol = protocol == "tcp" ? IPPROTO_TCP : IPPROTO_UDP;
    request.idiag_states = stateMask(filter);
    NetlinkSocket netlink(args.netns(0), NETLINK_SOCK_DIAG);
    std::vector<Socket> found;
    for (int family : {AF_INET, AF_INET6}) {
        request.sdiag_family = static_cast<uint8_t>(family);
        Message message(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP);
        message.fixed(request);
        try {
            std::vector<Socket> part =
                netlink.dump<Socket>(message, "list " + protocol + " sockets", parseSocket);
            found.insert(found.end(), part.begin(), part.end());
        } catch (const Fault& fault) {
            // A kernel without IPv6 has no handler for it.
            if (family == AF_INET || fault.error != ENOENT) throw;
        }
    }
    Napi::Array result = Napi::Array::New(info.Env(), found.size());
    Napi::String protocolName = Napi::String::New(info.Env(), protocol);
    for (size_t i = 0; i < found.size(); i++) {
        Napi::HandleScope scope(info.Env());
        Napi::Object socket = Napi::Object::New(info.Env());
        socket.Set("family", found[i].family == AF_INET ? 4 : 6);
        socket.Set("protocol", protocolName);
        socket.Set("state", static_cast<uint32_t>(found[i].state));
        socket.Set("src", found[i].src);
        socket.Set("srcPort", static_cast<uint32_t>(found[i].srcPort));
        socket.Set("dst", found[i].dst);
        socket.Set("dstPort", static_cast<uint32_t>(found[i].dstPort));
        socket.Set("uid", found[i].uid);
        socket.Set("inode", found[i].inode);
        socket.Set("mark", found[i].mark);
        socket.Set("queued", found[i].queued);
        socket.Set("cgroupId", bigint(info.Env(), found[i].cgroup));
        socket.Set("cookie", bigint(info.Env(), found[i].cookie));
        result.Set(static_cast<uint32_t>(i), socket);
    }
    return result;
}

Napi::Value socketDestroy(const Napi::CallbackInfo& info) {
    Args args(info);
    const Fields socket = args.object(1, "socket");
    inet_diag_req_v2 request = {};
    request.sdiag_family = static_cast<uint8_t>(socket.family("family"));
    request.sdiag_protocol = IPPROTO_TCP;
    request.idiag_states = UINT32_MAX;
    inet_diag_sockid& id = request.id;
    id.idiag_sport = htons(static_cast<uint16_t>(socket.number("srcPort", UINT16_MAX)));
    id.idiag_dport = htons(static_cast<uint16_t>(socket.number("dstPort", UINT16_MAX)));
    const IpBytes src = parseIp(request.sdiag_family, socket.string("src"));
    const IpBytes dst = parseIp(request.sdiag_family, socket.string("dst"));
    memcpy(id.idiag_src, src.bytes, src.size);
    memcpy(id.idiag_dst, dst.bytes, dst.size);
    // The cookie makes it this very socket: a tuple may have been taken by another one since it was
    // listed.
    const uint64_t cookie = socket.number64("cookie");
    id.idiag_cookie[0] = static_cast<uint32_t>(cookie);
    id.idiag_cookie[1] = static_cast<uint32_t>(cookie >> 32);
    NetlinkSocket netlink(args.netns(0), NETLINK_SOCK_DIAG);
    Message message(SOCK_DESTROY, NLM_F_ACK);
    message.fixed(request);
    try {
        netlink.request(message, "destroy a tcp socket");
    } catch (const Fault& fault) {
        if (fault.error != ENOENT && fault.error != ESTALE) throw;
        return Napi::Boolean::New(info.Env(), false);
    }
    return Napi::Boolean::New(info.Env(), true);
}

} // namespace ambient
