// SPDX-License-Identifier: Apache-2.0
#include "link.h"

#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>

#include <cerrno>
#include <cstdio>

#include "address.h"
#include "args.h"
#include "fault.h"
#include "netlink.h"

namespace ambient {

namespace {

struct Link {
    int index = 0, peer = 0;
    unsigned flags = 0;
    uint32_t mtu = 0;
    std::string name, kind, mac;
};

struct Address {
    uint32_t ifindex;
    int family;
    uint8_t prefix, scope;
    std::string text;
};

std::string formatMac(const Attribute& attribute) {
    std::string text;
    for (size_t i = 0; i < attribute.size; i++) {
        char part[4];
        std::snprintf(part, sizeof(part), i == 0 ? "%02x" : ":%02x", attribute.data[i]);
        text += part;
    }
    return text;
}

void parseLink(const nlmsghdr& header, std::vector<Link>& result) {
    const auto* fixed = fixedPart<ifinfomsg>(header);
    if (header.nlmsg_type != RTM_NEWLINK || fixed == nullptr) return;
    Link link;
    link.index = fixed->ifi_index;
    link.flags = fixed->ifi_flags;
    for (Attribute attribute : Attributes::after<ifinfomsg>(header)) {
        if (attribute.type == IFLA_IFNAME) link.name = attribute.text();
        if (attribute.type == IFLA_MTU) link.mtu = attribute.as<uint32_t>();
        if (attribute.type == IFLA_ADDRESS) link.mac = formatMac(attribute);
        if (attribute.type == IFLA_LINK) link.peer = attribute.as<int>();
        if (attribute.type == IFLA_LINKINFO) {
            std::optional<Attribute> kind = Attributes(attribute).find(IFLA_INFO_KIND);
            if (kind) link.kind = kind->text();
        }
    }
    result.push_back(link);
}

void parseAddress(const nlmsghdr& header, std::vector<Address>& result) {
    const auto* fixed = fixedPart<ifaddrmsg>(header);
    if (header.nlmsg_type != RTM_NEWADDR || fixed == nullptr) return;
    const int family = fixed->ifa_family;
    if (family != AF_INET && family != AF_INET6) return;
    Attributes attributes = Attributes::after<ifaddrmsg>(header);
    // On a point-to-point link IFA_ADDRESS is the peer and IFA_LOCAL is ours.
    std::optional<Attribute> local = attributes.find(IFA_LOCAL);
    if (!local) local = attributes.find(IFA_ADDRESS);
    if (!local) return;
    result.push_back({fixed->ifa_index, family, fixed->ifa_prefixlen, fixed->ifa_scope,
                      formatIp(family, local->data, local->size)});
}

uint32_t indexOf(NetlinkSocket& socket, const std::string& name) {
    Message message(RTM_GETLINK, NLM_F_ACK);
    message.fixed(ifinfomsg{}).putString(IFLA_IFNAME, requireInterfaceName(name));
    std::vector<Link> found;
    socket.request(message, "find interface " + name,
                   [&](const nlmsghdr& header) { parseLink(header, found); });
    if (found.empty()) fail(ENODEV, "netlink", "find interface " + name);
    return static_cast<uint32_t>(found.front().index);
}

/**
 * A device that just got its carrier drops what it is given until the kernel's link watch has run,
 * some time later: the first SYN of a fresh veth pair is lost, and the next comes after a second. A
 * request for one link (rtnl_getlink, not a dump) makes the kernel catch up for that link. The end
 * that was brought up first needs it as much, and may live in another netns.
 */
void settleCarrier(NetlinkSocket& socket, const std::string& name) {
    Message own(RTM_GETLINK, NLM_F_ACK);
    own.fixed(ifinfomsg{}).putString(IFLA_IFNAME, name);
    bool veth = false;
    std::optional<uint32_t> peerNetns;
    ifinfomsg peer = {};
    socket.request(own, "find interface " + name, [&](const nlmsghdr& header) {
        for (Attribute attribute : Attributes::after<ifinfomsg>(header)) {
            if (attribute.type == IFLA_LINK) peer.ifi_index = attribute.as<int>();
            if (attribute.type == IFLA_LINK_NETNSID) peerNetns = attribute.as<uint32_t>();
            if (attribute.type == IFLA_LINKINFO) {
                std::optional<Attribute> kind = Attributes(attribute).find(IFLA_INFO_KIND);
                veth = kind && kind->text() == "veth";
            }
        }
    });
    if (!veth || peer.ifi_index == 0) return;
    Message other(RTM_GETLINK, NLM_F_ACK);
    other.fixed(peer);
    if (peerNetns) other.put32(IFLA_TARGET_NETNSID, *peerNetns);
    try {
        socket.request(other, "find the peer of " + name);
    } catch (const Fault&) {
        // The peer's netns may be none of our business or on its way out: it settles by itself.
    }
}

enum class Change { add, remove };

void changeAddress(const Args& args, Change change) {
    const std::string ifname = args.string(1, "ifname");
    const std::string text = args.string(2, "address");
    const int family = familyOfText(text);
    const IpBytes ip = parseIp(family, text);
    const bool adding = change == Change::add;

    NetlinkSocket socket(args.netns(0), NETLINK_ROUTE);
    ifaddrmsg fixed = {};
    fixed.ifa_family = static_cast<uint8_t>(family);
    fixed.ifa_prefixlen =
        static_cast<uint8_t>(args.number(3, "prefix", static_cast<uint32_t>(ip.size * 8)));
    fixed.ifa_index = indexOf(socket, ifname);
    fixed.ifa_scope = family == AF_INET && ip.bytes[0] == 127 ? RT_SCOPE_HOST : RT_SCOPE_UNIVERSE;

    Message message(adding ? RTM_NEWADDR : RTM_DELADDR,
                    adding ? NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL : NLM_F_ACK);
    message.fixed(fixed).put(IFA_LOCAL, ip.bytes, ip.size).put(IFA_ADDRESS, ip.bytes, ip.size);
    if (adding && family == AF_INET6) message.put32(IFA_FLAGS, IFA_F_NODAD);
    const std::string object =
        text + "/" + std::to_string(fixed.ifa_prefixlen) + (adding ? " to " : " from ") + ifname;
    socket.request(message, (adding ? "add address " : "delete address ") + object);
}

} // namespace

Napi::Value links(const Napi::CallbackInfo& info) {
    Args args(info);
    NetlinkSocket socket(args.netns(0), NETLINK_ROUTE);
    Message message(RTM_GETLINK, NLM_F_DUMP);
    message.fixed(ifinfomsg{});
    std::vector<Link> found = socket.dump<Link>(message, "list links", parseLink);
    Napi::Array result = Napi::Array::New(info.Env(), found.size());
    for (size_t i = 0; i < found.size(); i++) {
        Napi::Object link = Napi::Object::New(info.Env());
        link.Set("index", found[i].index);
        link.Set("name", found[i].name);
        link.Set("kind", found[i].kind);
        link.Set("up", (found[i].flags & IFF_UP) != 0);
        link.Set("loopback", (found[i].flags & IFF_LOOPBACK) != 0);
        link.Set("mtu", found[i].mtu);
        link.Set("mac", found[i].mac);
        link.Set("peer", found[i].peer);
        result.Set(static_cast<uint32_t>(i), link);
    }
    return result;
}

Napi::Value vethAdd(const Napi::CallbackInfo& info) {
    Args args(info);
    const std::string name = args.string(1, "name");
    const std::string peer = args.string(2, "peerName");
    const int peerNetns = args.fd(3, "peerNetns");
    NetlinkSocket socket(args.netns(0), NETLINK_ROUTE);
    Message message(RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL);
    message.fixed(ifinfomsg{}).putString(IFLA_IFNAME, requireInterfaceName(name));
    size_t linkInfo = message.nest(IFLA_LINKINFO);
    message.putString(IFLA_INFO_KIND, "veth");
    size_t data = message.nest(IFLA_INFO_DATA);
    size_t peerInfo = message.nest(VETH_INFO_PEER);
    message.fixed(ifinfomsg{})
        .putString(IFLA_IFNAME, requireInterfaceName(peer))
        .put32(IFLA_NET_NS_FD, static_cast<uint32_t>(peerNetns));
    message.end(peerInfo);
    message.end(data);
    message.end(linkInfo);
    socket.request(message, "add veth pair " + name + ", " + peer);
    return info.Env().Undefined();
}

Napi::Value linkUp(const Napi::CallbackInfo& info) {
    Args args(info);
    const std::string name = args.string(1, "name");
    NetlinkSocket socket(args.netns(0), NETLINK_ROUTE);
    ifinfomsg fixed = {};
    fixed.ifi_flags = IFF_UP;
    fixed.ifi_change = IFF_UP;
    Message message(RTM_NEWLINK, NLM_F_ACK);
    message.fixed(fixed).putString(IFLA_IFNAME, requireInterfaceName(name));
    socket.request(message, "bring " + name + " up");
    settleCarrier(socket, name);
    return info.Env().Undefined();
}

Napi::Value linkDelete(const Napi::CallbackInfo& info) {
    Args args(info);
    const std::string name = args.string(1, "name");
    NetlinkSocket socket(args.netns(0), NETLINK_ROUTE);
    Message message(RTM_DELLINK, NLM_F_ACK);
    message.fixed(ifinfomsg{}).putString(IFLA_IFNAME, requireInterfaceName(name));
    socket.request(message, "delete link " + name);
    return info.Env().Undefined();
}

Napi::Value addresses(const Napi::CallbackInfo& info) {
    Args args(info);
    NetlinkSocket socket(args.netns(0), NETLINK_ROUTE);
    Message message(RTM_GETADDR, NLM_F_DUMP);
    message.fixed(ifaddrmsg{});
    std::vector<Address> found = socket.dump<Address>(message, "list addresses", parseAddress);
    Napi::Array result = Napi::Array::New(info.Env(), found.size());
    for (size_t i = 0; i < found.size(); i++) {
        Napi::Object address = Napi::Object::New(info.Env());
        address.Set("ifindex", found[i].ifindex);
        address.Set("family", found[i].family == AF_INET ? 4 : 6);
        address.Set("address", found[i].text);
        address.Set("prefix", static_cast<uint32_t>(found[i].prefix));
        address.Set("scope", scopeName(found[i].scope));
        result.Set(static_cast<uint32_t>(i), address);
    }
    return result;
}

Napi::Value addressAdd(const Napi::CallbackInfo& info) {
    changeAddress(Args(info), Change::add);
    return info.Env().Undefined();
}

Napi::Value addressDelete(const Napi::CallbackInfo& info) {
    changeAddress(Args(info), Change::remove);
    return info.Env().Undefined();
}

} // namespace ambient
