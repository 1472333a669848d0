// SPDX-License-Identifier: Apache-2.0
#include "route.h"

#include <linux/rtnetlink.h>

#include <cerrno>

#include "address.h"
#include "args.h"
#include "fault.h"
#include "netlink.h"

namespace ambient {

namespace {

struct Route {
    uint32_t table, oif = 0, priority = 0;
    uint8_t type, scope, prefix;
    std::string dst, gateway, src;
};

std::string typeName(uint8_t type) {
    switch (type) {
    case RTN_UNICAST:
        return "unicast";
    case RTN_LOCAL:
        return "local";
    case RTN_BROADCAST:
        return "broadcast";
    case RTN_ANYCAST:
        return "anycast";
    case RTN_MULTICAST:
        return "multicast";
    case RTN_BLACKHOLE:
        return "blackhole";
    case RTN_UNREACHABLE:
        return "unreachable";
    case RTN_PROHIBIT:
        return "prohibit";
    case RTN_THROW:
        return "throw";
    default:
        return std::to_string(type);
    }
}

uint8_t routeType(const std::string& name) {
    if (name == "unicast") return RTN_UNICAST;
    if (name == "local") return RTN_LOCAL;
    fail(EINVAL, "netlink", "read route type \"" + name + "\"");
}

uint8_t routeScope(const Fields& spec, uint8_t type) {
    const std::string name = spec.stringOr("scope", "");
    if (name == "global") return RT_SCOPE_UNIVERSE;
    if (name == "link") return RT_SCOPE_LINK;
    if (name == "host") return RT_SCOPE_HOST;
    if (!name.empty()) fail(EINVAL, "netlink", "read route scope \"" + name + "\"");
    if (type == RTN_LOCAL) return RT_SCOPE_HOST;
    return spec.has("gateway") ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK;
}

enum class Change { add, remove };

void changeRoute(NetlinkSocket& socket, const Fields& spec, Change change) {
    const bool adding = change == Change::add;
    const int family = spec.family("family");
    const uint32_t table = spec.number("table");
    const std::string dst = spec.string("dst");
    const IpBytes to = parseIp(family, dst);

    rtmsg fixed = {};
    fixed.rtm_family = static_cast<uint8_t>(family);
    fixed.rtm_dst_len =
        static_cast<uint8_t>(spec.number("prefix", static_cast<uint32_t>(to.size * 8)));
    fixed.rtm_table = shortTable(table);
    fixed.rtm_type = routeType(spec.string("type"));
    // For a deletion these are wildcards: whoever made the route, it goes.
    fixed.rtm_protocol = adding ? RTPROT_STATIC : RTPROT_UNSPEC;
    fixed.rtm_scope = adding || spec.has("scope") ? routeScope(spec, fixed.rtm_type)
                                                  : static_cast<uint8_t>(RT_SCOPE_NOWHERE);

    Message message(adding ? RTM_NEWROUTE : RTM_DELROUTE,
                    adding ? NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE : NLM_F_ACK);
    message.fixed(fixed)
        .put(RTA_DST, to.bytes, to.size)
        .put32(RTA_TABLE, table)
        .put32(RTA_OIF, spec.number("oif", INT32_MAX));
    for (auto [key, attribute] :
         {std::pair("gateway", RTA_GATEWAY), std::pair("src", RTA_PREFSRC)}) {
        if (!spec.has(key)) continue;
        IpBytes ip = parseIp(family, spec.string(key));
        message.put(static_cast<uint16_t>(attribute), ip.bytes, ip.size);
    }
    const std::string what = std::string(adding ? "replace" : "delete") + " route " + dst + "/" +
                             std::to_string(fixed.rtm_dst_len) + " in table " +
                             std::to_string(table);
    try {
        socket.request(message, what);
    } catch (const Fault& fault) {
        // IPv6 has a word of its own for an absent default route.
        if (adding || fault.error != ENOENT) throw;
        fail(ESRCH, "netlink", what);
    }
}

void parseRoute(const nlmsghdr& header, int family, uint32_t table, std::vector<Route>& result) {
    const auto* fixed = fixedPart<rtmsg>(header);
    if (header.nlmsg_type != RTM_NEWROUTE || fixed == nullptr) return;
    // Without IPv6 in the kernel the dump of another family comes instead.
    if (fixed->rtm_family != family || (fixed->rtm_flags & RTM_F_CLONED) != 0) return;
    Route route = {};
    route.table = fixed->rtm_table;
    route.type = fixed->rtm_type;
    route.scope = fixed->rtm_scope;
    route.prefix = fixed->rtm_dst_len;
    route.dst = anyIp(family);
    for (Attribute attribute : Attributes::after<rtmsg>(header)) {
        if (attribute.type == RTA_TABLE) route.table = attribute.as<uint32_t>();
        if (attribute.type == RTA_OIF) route.oif = attribute.as<uint32_t>();
        if (attribute.type == RTA_PRIORITY) route.priority = attribute.as<uint32_t>();
        if (attribute.type == RTA_DST) route.dst = formatIp(family, attribute.data, attribute.size);
        if (attribute.type == RTA_GATEWAY) {
            route.gateway = formatIp(family, attribute.data, attribute.size);
        }
        if (attribute.type == RTA_PREFSRC) {
            route.src = formatIp(family, attribute.data, attribute.size);
        }
    }
    if (route.table == table) result.push_back(route);
}

} // namespace

uint8_t shortTable(uint32_t table) {
    return table < 256 ? static_cast<uint8_t>(table) : static_cast<uint8_t>(RT_TABLE_UNSPEC);
}

Napi::Value routes(const Napi::CallbackInfo& info) {
    Args args(info);
    const int family = args.family(1);
    const uint32_t table = args.number(2, "table");
    NetlinkSocket socket(args.netns(0), NETLINK_ROUTE);
    rtmsg fixed = {};
    fixed.rtm_family = static_cast<uint8_t>(family);
    Message message(RTM_GETROUTE, NLM_F_DUMP);
    // Filters in the kernel (strict checking), so that a big main table costs nothing here.
    message.fixed(fixed).put32(RTA_TABLE, table);
    std::vector<Route> found;
    try {
        found = socket.dump<Route>(message, "list routes of table " + std::to_string(table),
                                   [&](const nlmsghdr& header, std::vector<Route>& result) {
                                       parseRoute(header, family, table, result);
                                   });
    } catch (const Fault& fault) {
        // A table that was never used does not exist: it holds no routes.
        if (fault.error != ENOENT) throw;
    }
    Napi::Array result = Napi::Array::New(info.Env(), found.size());
    for (size_t i = 0; i < found.size(); i++) {
        Napi::Object route = Napi::Object::New(info.Env());
        route.Set("family", family == AF_INET ? 4 : 6);
        route.Set("table", found[i].table);
        route.Set("type", typeName(found[i].type));
        route.Set("scope", scopeName(found[i].scope));
        route.Set("dst", found[i].dst);
        route.Set("prefix", static_cast<uint32_t>(found[i].prefix));
        route.Set("oif", found[i].oif);
        route.Set("gateway", found[i].gateway);
        route.Set("src", found[i].src);
        route.Set("priority", found[i].priority);
        result.Set(static_cast<uint32_t>(i), route);
    }
    return result;
}

Napi::Value routeReplace(const Napi::CallbackInfo& info) {
    Args args(info);
    NetlinkSocket socket(args.netns(0), NETLINK_ROUTE);
    if (!info[1].IsArray()) {
        changeRoute(socket, args.object(1, "route"), Change::add);
        return info.Env().Undefined();
    }
    Napi::Array routes = info[1].As<Napi::Array>();
    for (uint32_t i = 0; i < routes.Length(); i++) {
        Napi::Value route = routes.Get(i);
        if (!route.IsObject()) throw Napi::TypeError::New(info.Env(), "route must be an object");
        changeRoute(socket, Fields(route.As<Napi::Object>(), "route"), Change::add);
    }
    return info.Env().Undefined();
}

Napi::Value routeDelete(const Napi::CallbackInfo& info) {
    Args args(info);
    NetlinkSocket socket(args.netns(0), NETLINK_ROUTE);
    changeRoute(socket, args.object(1, "route"), Change::remove);
    return info.Env().Undefined();
}

} // namespace ambient
