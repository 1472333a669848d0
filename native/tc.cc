// SPDX-License-Identifier: Apache-2.0
// TC filters through libbpf, from a thread in the pod's netns: libbpf opens its socket where it is
// called.
#include "tc.h"

#include <bpf/libbpf.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <net/if.h>

#include <cerrno>

#include "bpf_loader.h"
#include "fault.h"
#include "netlink.h"
#include "netns_scope.h"

namespace ambient {

namespace {

/**
 * First of all: a filter before ours that says TC_ACT_OK would end the chain. Filters without a
 * priority get ever smaller numbers from the top, so that nobody has 1 by chance.
 */
constexpr uint32_t kPriority = 1;
constexpr uint32_t kHandle = 0x539;

bpf_tc_hook hookOf(uint32_t ifindex, bpf_tc_attach_point point) {
    bpf_tc_hook hook = {};
    hook.sz = sizeof(hook);
    hook.ifindex = static_cast<int>(ifindex);
    hook.attach_point = point;
    return hook;
}

bpf_tc_opts place() {
    bpf_tc_opts options = {};
    options.sz = sizeof(options);
    options.handle = kHandle;
    options.priority = kPriority;
    return options;
}

bpf_tc_attach_point pointOf(bool ingress) {
    return ingress ? BPF_TC_INGRESS : BPF_TC_EGRESS;
}

uint32_t programAt(uint32_t ifindex, bool ingress) {
    quietLibbpf();
    bpf_tc_hook hook = hookOf(ifindex, pointOf(ingress));
    bpf_tc_opts options = place();
    const int error = bpf_tc_query(&hook, &options);
    // EINVAL: there is no clsact on the interface.
    if (error == -ENOENT || error == -EINVAL || error == -EOPNOTSUPP) return 0;
    if (error == -ENODEV) fail(ENODEV, "netlink", "look at interface " + std::to_string(ifindex));
    if (error != 0)
        fail(-error, "netlink", "look at the TC filters of interface " + std::to_string(ifindex));
    return options.prog_id;
}

/** How many filters of anybody's are on either side of the interface's clsact. */
size_t filtersOn(NetlinkSocket& socket, uint32_t ifindex) {
    size_t count = 0;
    for (const uint32_t parent :
         {TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS), TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_EGRESS)}) {
        tcmsg fixed = {};
        fixed.tcm_ifindex = static_cast<int>(ifindex);
        fixed.tcm_parent = parent;
        Message message(RTM_GETTFILTER, NLM_F_DUMP);
        message.fixed(fixed);
        count += socket
                     .dump<int>(message, "list TC filters",
                                [](const nlmsghdr& header, std::vector<int>& found) {
                                    if (header.nlmsg_type == RTM_NEWTFILTER) found.push_back(1);
                                })
                     .size();
    }
    return count;
}

} // namespace

void tcAttach(int netns, uint32_t ifindex, bool ingress, int program) {
    NetnsScope scope(netns);
    const std::string what = "attach a BPF program to interface " + std::to_string(ifindex);
    bpf_tc_hook hook = hookOf(ifindex, pointOf(ingress));
    // Of the two directions this one is attached first.
    if (ingress) {
        const int error = bpf_tc_hook_create(&hook);
        if (error != 0 && error != -EEXIST) fail(-error, "netlink", what, "clsact can't be added");
    }
    bpf_tc_opts options = place();
    options.prog_fd = program;
    options.flags = BPF_TC_F_REPLACE;
    const int error = bpf_tc_attach(&hook, &options);
    if (error != 0) fail(-error, "netlink", what);
}

TcState tcState(int netns, uint32_t ifindex) {
    NetnsScope scope(netns);
    return {programAt(ifindex, true), programAt(ifindex, false)};
}

void tcDetach(int netns, uint32_t ifindex) {
    NetnsScope scope(netns);
    bool ours = false;
    for (const bool ingress : {true, false}) {
        if (programAt(ifindex, ingress) == 0) continue;
        ours = true;
        bpf_tc_hook hook = hookOf(ifindex, pointOf(ingress));
        bpf_tc_opts options = place();
        if (const int error = bpf_tc_detach(&hook, &options); error != 0 && error != -ENOENT) {
            fail(-error, "netlink", "detach from interface " + std::to_string(ifindex));
        }
    }
    NetlinkSocket socket(kOwnNetns, NETLINK_ROUTE);
    if (!ours || filtersOn(socket, ifindex) > 0) return;
    bpf_tc_hook hook =
        hookOf(ifindex, static_cast<bpf_tc_attach_point>(BPF_TC_INGRESS | BPF_TC_EGRESS));
    if (const int error = bpf_tc_hook_destroy(&hook);
        error != 0 && error != -ENOENT && error != -EINVAL) {
        fail(-error, "netlink", "remove clsact from interface " + std::to_string(ifindex));
    }
}

} // namespace ambient
