// SPDX-License-Identifier: Apache-2.0
#include "ipset.h"

#include <linux/netfilter.h>
#include <linux/netfilter/ipset/ip_set.h>
#include <linux/netfilter/nfnetlink.h>

#include <cerrno>

#include "args.h"
#include "fault.h"
#include "netlink.h"

namespace ambient {

namespace {

/** What every kernel with ipsets speaks; it answers younger protocols too. */
constexpr uint8_t kProtocol = 6;

} // namespace

Napi::Value ipsetDestroy(const Napi::CallbackInfo& info) {
    Args args(info);
    const std::string name = args.string(1, "name");
    const std::string what = "destroy ipset " + name;
    // Without a name the kernel destroys all.
    if (name.empty() || name.size() >= IPSET_MAXNAMELEN) fail(EINVAL, "netlink", what);
    nfgenmsg fixed = {};
    fixed.nfgen_family = NFPROTO_IPV4;
    fixed.version = NFNETLINK_V0;
    // NLM_F_EXCL: a set that does not exist is an error.
    Message message(NFNL_SUBSYS_IPSET << 8 | IPSET_CMD_DESTROY, NLM_F_ACK | NLM_F_EXCL);
    message.fixed(fixed).put8(IPSET_ATTR_PROTOCOL, kProtocol).putString(IPSET_ATTR_SETNAME, name);
    bool found = true;
    try {
        NetlinkSocket(args.netns(0), NETLINK_NETFILTER).request(message, what);
    } catch (const Fault& fault) {
        // Errors of its own begin where errno ends.
        if (fault.error == IPSET_ERR_BUSY) fail(EBUSY, "netlink", what, "a rule uses it");
        if (fault.error != ENOENT) throw;
        found = false;
    }
    return Napi::Boolean::New(info.Env(), found);
}

} // namespace ambient
