// SPDX-License-Identifier: Apache-2.0
#include "rule.h"

#include <linux/fib_rules.h>
#include <linux/rtnetlink.h>

#include <cerrno>
#include <tuple>

#include "address.h"
#include "args.h"
#include "fault.h"
#include "netlink.h"
#include "route.h"

namespace ambient {

namespace {

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

enum class Change { add, remove };

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

Napi::Value ruleAdd(const Napi::CallbackInfo& info) {
    changeRule(Args(info), Change::add);
    return info.Env().Undefined();
}

Napi::Value ruleDelete(const Napi::CallbackInfo& info) {
    changeRule(Args(info), Change::remove);
    return info.Env().Undefined();
}

} // namespace ambient
