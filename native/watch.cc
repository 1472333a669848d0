// SPDX-License-Identifier: Apache-2.0
// Subscriptions to netlink multicast groups. Only the kind of a change is passed on: whoever cares
// reads the kernel's state afresh, so that lost messages (ENOBUFS) can do no harm.
#include "watch.h"

#include <array>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "args.h"
#include "env.h"
#include "fault.h"
#include "loop.h"
#include "netns_scope.h"

namespace ambient {

namespace {

constexpr size_t kBufferSize = 32 * 1024;
/** Datagrams read per wake-up. */
constexpr int kBatch = 64;

using Kinds = std::set<std::string>;
/** The kinds of change that a message type can announce; nullptr: this type says nothing. */
using Classify = const char* (*)(uint16_t type);

const char* routeKind(uint16_t type) {
    switch (type) {
    case RTM_NEWLINK:
    case RTM_DELLINK:
        return "link";
    case RTM_NEWADDR:
    case RTM_DELADDR:
        return "address";
    case RTM_NEWROUTE:
    case RTM_DELROUTE:
        return "route";
    case RTM_NEWRULE:
    case RTM_DELRULE:
        return "rule";
    case RTM_NEWTFILTER:
    case RTM_DELTFILTER:
    case RTM_DELQDISC:
        return "filter";
    default:
        return nullptr;
    }
}

const char* nftKind(uint16_t type) {
    // It closes every transaction.
    constexpr uint16_t generation = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWGEN;
    return type == generation ? "nft" : nullptr;
}

/** One subscription. It owns itself while it is open. */
class Watch final : public std::enable_shared_from_this<Watch>,
                    public Closable,
                    public Poller::Listener {
  public:
    Watch(Napi::Env env, UniqueFd fd, Napi::Function changed, Classify classify, Kinds all)
        : env_(env), loop_(*EnvState::of(env).loop), fd_(std::move(fd)),
          changed_(std::make_shared<Callback>(changed, "ambient.watch")), classify_(classify),
          all_(std::move(all)) {}

    void start() {
        poller_.emplace(loop_, fd_.get(), *this);
        poller_->start(UV_READABLE);
        self_ = shared_from_this();
        loop_.add(this);
    }

    void close() {
        if (!fd_) return;
        poller_.reset();
        fd_.reset();
        changed_.reset();
        loop_.remove(this);
        self_.reset();
    }

    void shutdown() override { close(); }

    void ready(int, int) override {
        std::shared_ptr<Watch> keep = self_;
        const Kinds kinds = receive();
        for (const std::string& kind : kinds) {
            std::shared_ptr<Callback> changed = changed_;
            if (!changed) return;
            Napi::HandleScope scope(env_);
            changed->call(env_.Global(), {Napi::String::New(env_, kind)});
        }
    }

  private:
    /** The kinds of all changes that are queued, each once. */
    Kinds receive() {
        Kinds kinds;
        bool drained = false;
        // On the stack: a node watches two sockets per pod, and most of them never say anything.
        alignas(nlmsghdr) std::array<uint8_t, kBufferSize> buffer;
        for (int i = 0; i < kBatch; i++) {
            ssize_t size = ::recv(fd_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
            if (size < 0 && errno == EINTR) continue;
            if (size < 0 && errno == ENOBUFS) {
                overrun_ = true;
                continue;
            }
            if (size < 0) {
                drained = true;
                break;
            }
            size_t left = static_cast<size_t>(size);
            for (const uint8_t* at = buffer.data(); left >= sizeof(nlmsghdr);) {
                const auto& header = *reinterpret_cast<const nlmsghdr*>(at);
                if (header.nlmsg_len < sizeof(nlmsghdr) || header.nlmsg_len > left) break;
                if (const char* kind = classify_(header.nlmsg_type)) kinds.insert(kind);
                const size_t step = std::min<size_t>(NLMSG_ALIGN(header.nlmsg_len), left);
                at += step;
                left -= step;
            }
        }
        if (overrun_) kinds = all_;
        if (drained) overrun_ = false;
        return kinds;
    }

    Napi::Env env_;
    Loop& loop_;
    UniqueFd fd_;
    std::shared_ptr<Watch> self_;
    std::optional<Poller> poller_;
    std::shared_ptr<Callback> changed_;
    Classify classify_;
    Kinds all_;
    /** Until its queue is empty, an overrun socket loses more without a second ENOBUFS. */
    bool overrun_ = false;
};

Napi::Value watch(const Napi::CallbackInfo& info, int protocol, const std::vector<int>& groups,
                  Classify classify, Kinds all) {
    Args args(info);
    Napi::Function changed = args.function(1, "changed");
    constexpr const char* what = "watch for changes";
    UniqueFd fd = socketIn(args.netns(0), AF_NETLINK, SOCK_RAW, protocol, what);
    sockaddr_nl address = {};
    address.nl_family = AF_NETLINK;
    if (::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
        fail(errno, "bind", what);
    }
    for (int group : groups) {
        if (::setsockopt(fd.get(), SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)) !=
            0) {
            fail(errno, "setsockopt", what);
        }
    }
    auto watch = std::make_shared<Watch>(info.Env(), std::move(fd), changed, classify, all);
    watch->start();
    return method(info.Env(), "stop", [watch](const Napi::CallbackInfo& call) -> Napi::Value {
        watch->close();
        return call.Env().Undefined();
    });
}

} // namespace

Napi::Value routeWatch(const Napi::CallbackInfo& info) {
    return watch(info, NETLINK_ROUTE,
                 {RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV4_ROUTE,
                  RTNLGRP_IPV6_ROUTE, RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_RULE, RTNLGRP_TC},
                 routeKind,
                 {routeKind(RTM_NEWLINK), routeKind(RTM_NEWADDR), routeKind(RTM_NEWROUTE),
                  routeKind(RTM_NEWRULE), routeKind(RTM_NEWTFILTER)});
}

Napi::Value nftWatch(const Napi::CallbackInfo& info) {
    constexpr uint16_t generation = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWGEN;
    return watch(info, NETLINK_NETFILTER, {NFNLGRP_NFTABLES}, nftKind, {nftKind(generation)});
}

} // namespace ambient
