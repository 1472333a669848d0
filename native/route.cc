// SPDX-License-Identifier: Apache-2.0
#include "route.h"

#include <linux/fib_rules.h>
#include <linux/rtnetlink.h>

#include <cerrno>
#include <tuple>

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

struct Rule {
    uint32_t priority = 0, table = 0, mark = 0, mask = 0;
    uint8_t toPrefix;
    std::string iif, to;

    bool operator==(const Rule& o) const {
        return std::tie(priority, table, mark, mask, toPrefix, iif, to) ==
               std::tie(o.priority, o.table, o.mark, o.mask, o.toPrefix, o.iif, o.to);
    }
};

constexpr int kAttempts = 20;

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

uint8_t shortTable(uint32_t table) {
    return table < 256 ? static_cast<uint8_t>(table) : static_cast<uint8_t>(RT_TABLE_UNSPEC);
}

enum class Change { add, remove };

void changeRoute(const Args& args, Change change) {
    const Fields spec = args.object(1, "route");
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
    NetlinkSocket socket(args.netns(0), NETLINK_ROUTE);
    try {
        socket.request(message, what);
    } catch (const Fault& fault) {
        // IPv6 has a word of its own for an absent default route.
        if (adding || fault.error != ENOENT) throw;
        fail(ESRCH, "netlink", what);
    }
}

void changeRule(const Args& args, Change change) {
    const Fields spec = args.object(1, "rule");
    const bool adding = change == Change::add;
    const int family = spec.family("family");
    const uint32_t table = spec.number("table");
    const uint32_t priority = spec.number("priority");

    fib_rule_hdr fixed = {};
    fixed.family = static_cast<uint8_t>(family);
    fixed.table = shortTable(table);
    fixed.action = FR_ACT_TO_TBL;
    IpBytes to;
    if (spec.has("to")) {
        to = parseIp(family, spec.string("to"));
        const uint32_t bits = static_cast<uint32_t>(to.size * 8);
        fixed.dst_len = static_cast<uint8_t>(spec.optionalNumber("toPrefix", bits).value_or(bits));
    }
    // No FRA_PROTOCOL: the kernel counts it as part of a rule's identity, and upstream's agent sets
    // none. With one, its rule and ours would both be there.
    Message message(adding ? RTM_NEWRULE : RTM_DELRULE,
                    adding ? NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL : NLM_F_ACK);
    message.fixed(fixed).put32(FRA_TABLE, table).put32(FRA_PRIORITY, priority);
    if (to.size > 0) message.put(FRA_DST, to.bytes, to.size);
    if (auto mark = spec.optionalNumber("fwmark")) message.put32(FRA_FWMARK, *mark);
    if (auto mask = spec.optionalNumber("fwmask")) message.put32(FRA_FWMASK, *mask);
    if (spec.has("iif")) {
        message.putString(FRA_IIFNAME, requireInterfaceName(spec.string("iif")));
    }
    NetlinkSocket socket(args.netns(0), NETLINK_ROUTE);
    socket.request(message, std::string(adding ? "add" : "delete") + " rule of priority " +
                                std::to_string(priority) + " for table " + std::to_string(table));
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

void parseRule(const nlmsghdr& header, int family, std::vector<Rule>& result) {
    const auto* fixed = fixedPart<fib_rule_hdr>(header);
    if (header.nlmsg_type != RTM_NEWRULE || fixed == nullptr || fixed->family != family) return;
    Rule rule = {};
    rule.table = fixed->table;
    rule.toPrefix = fixed->dst_len;
    for (Attribute attribute : Attributes::after<fib_rule_hdr>(header)) {
        if (attribute.type == FRA_PRIORITY) rule.priority = attribute.as<uint32_t>();
        if (attribute.type == FRA_TABLE) rule.table = attribute.as<uint32_t>();
        if (attribute.type == FRA_FWMARK) rule.mark = attribute.as<uint32_t>();
        if (attribute.type == FRA_FWMASK) rule.mask = attribute.as<uint32_t>();
        if (attribute.type == FRA_IIFNAME) rule.iif = attribute.text();
        if (attribute.type == FRA_DST) rule.to = formatIp(family, attribute.data, attribute.size);
    }
    result.push_back(rule);
}

std::vector<Rule> readRules(NetlinkSocket& socket, int family) {
    const std::string what = "list policy rules";
    fib_rule_hdr fixed = {};
    fixed.family = static_cast<uint8_t>(family);
    Message message(RTM_GETRULE, NLM_F_DUMP);
    message.fixed(fixed);
    const auto read = [&] {
        return socket.dump<Rule>(message, what,
                                 [&](const nlmsghdr& header, std::vector<Rule>& result) {
                                     parseRule(header, family, result);
                                 });
    };
    std::vector<Rule> rules = read();
    // This dump goes on by position and never says NLM_F_DUMP_INTR: a rule deleted between two
    // parts hides another one (seen on 6.18, with 400 rules or more). Two equal readings are
    // believed.
    for (int attempt = 0; socket.inParts(); attempt++) {
        if (attempt == kAttempts) {
            fail(EAGAIN, "netlink", what, "they changed during every attempt to read them");
        }
        std::vector<Rule> again = read();
        if (again == rules) break;
        rules = std::move(again);
    }
    return rules;
}

} // namespace

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

Napi::Value rules(const Napi::CallbackInfo& info) {
    Args args(info);
    const int family = args.family(1);
    NetlinkSocket socket(args.netns(0), NETLINK_ROUTE);
    std::vector<Rule> found = readRules(socket, family);
    Napi::Array result = Napi::Array::New(info.Env(), found.size());
    for (size_t i = 0; i < found.size(); i++) {
        Napi::Object rule = Napi::Object::New(info.Env());
        rule.Set("family", family == AF_INET ? 4 : 6);
        rule.Set("priority", found[i].priority);
        rule.Set("table", found[i].table);
        rule.Set("fwmark", found[i].mark);
        rule.Set("fwmask", found[i].mask);
        rule.Set("iif", found[i].iif);
        rule.Set("to", found[i].to);
        rule.Set("toPrefix", static_cast<uint32_t>(found[i].toPrefix));
        result.Set(static_cast<uint32_t>(i), rule);
    }
    return result;
}

Napi::Value routeReplace(const Napi::CallbackInfo& info) {
    changeRoute(Args(info), Change::add);
    return info.Env().Undefined();
}

Napi::Value routeDelete(const Napi::CallbackInfo& info) {
    changeRoute(Args(info), Change::remove);
    return info.Env().Undefined();
}

Napi::Value ruleAdd(const Napi::CallbackInfo& info) {
    changeRule(Args(info), Change::add);
    return info.Env().Undefined();
}

Napi::Value ruleDelete(const Napi::CallbackInfo& info) {
    changeRule(Args(info), Change::remove);
    return info.Env().Undefined();
}

} // namespace ambient
