// SPDX-License-Identifier: Apache-2.0
// Deletes objects of nf_tables in one transaction. A kernel trap: whoever closes a netlink socket
// of this family waits until what was deleted in its netns is freed (nft_rcv_nl_event), some 10 ms:
// on a thread, so that pods don't wait for each other.
#include "nft_delete.h"

#include <arpa/inet.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>

#include <cerrno>
#include <endian.h>
#include <optional>
#include <string>
#include <vector>

#include "args.h"
#include "fault.h"
#include "netlink.h"
#include "nft_reader.h"

namespace ambient {

namespace {

constexpr const char* kWhat = "delete objects of nf_tables";
/** If all of them fail, the errors must fit into the socket's queue. */
constexpr uint32_t kMaxObjects = 200;

Message message(uint16_t type, uint16_t flags, uint8_t family, uint16_t resource) {
    nfgenmsg fixed = {};
    fixed.nfgen_family = family;
    fixed.version = NFNETLINK_V0;
    fixed.res_id = htons(resource);
    Message built(type, flags);
    built.fixed(fixed);
    return built;
}

/** Errors are told of every message; that it went well, of the last. */
Message objectOf(Napi::Value value, bool last) {
    const auto deletion = [last](uint16_t type, uint8_t family) {
        const auto number = static_cast<uint16_t>(NFNL_SUBSYS_NFTABLES << 8 | type);
        return message(number, last ? NLM_F_ACK : 0, family, 0);
    };
    if (!value.IsObject()) throw Napi::TypeError::New(value.Env(), "objects must be objects");
    const Fields object(value.As<Napi::Object>(), "object");
    const std::string what = object.string("what");
    const std::optional<uint8_t> family = nftFamily(object.string("family"));
    if (!family) fail(EINVAL, "netlink", kWhat, "no such family");
    const std::string table = object.string("table");
    // Without a name the kernel deletes everything.
    if (table.empty()) fail(EINVAL, "netlink", kWhat, "a table has no name");
    if (what == "table") {
        Message built = deletion(NFT_MSG_DELTABLE, *family);
        built.putString(NFTA_TABLE_NAME, table);
        return built;
    }
    const std::string chain = object.string("chain");
    if (chain.empty()) fail(EINVAL, "netlink", kWhat, "a chain has no name");
    if (what == "chain") {
        Message built = deletion(NFT_MSG_DELCHAIN, *family);
        built.putString(NFTA_CHAIN_TABLE, table).putString(NFTA_CHAIN_NAME, chain);
        return built;
    }
    if (what != "rules" && what != "rule") fail(EINVAL, "netlink", kWhat, "no such kind of object");
    Message built = deletion(NFT_MSG_DELRULE, *family);
    built.putString(NFTA_RULE_TABLE, table).putString(NFTA_RULE_CHAIN, chain);
    if (what == "rule") {
        const uint64_t handle = htobe64(object.number64("handle"));
        built.put(NFTA_RULE_HANDLE, &handle, sizeof(handle));
    }
    return built;
}

class Deleting final : public Napi::AsyncWorker {
  public:
    Deleting(Napi::Env env, int netns, std::vector<Message> batch)
        : AsyncWorker(env, "ambient.nftDelete"), deferred_(Napi::Promise::Deferred::New(env)),
          // The caller may close its fd before a thread is free.
          socket_(std::in_place, netns, NETLINK_NETFILTER), batch_(std::move(batch)) {}

    Napi::Promise promise() const { return deferred_.Promise(); }

  private:
    void Execute() override {
        try {
            socket_->batch(batch_, kWhat);
        } catch (const Fault& fault) {
            fault_ = fault;
        }
        socket_.reset();
    }

    void OnOK() override {
        if (fault_)
            deferred_.Reject(toError(Env(), *fault_).Value());
        else
            deferred_.Resolve(Env().Undefined());
    }

    Napi::Promise::Deferred deferred_;
    std::optional<NetlinkSocket> socket_;
    std::vector<Message> batch_;
    std::optional<Fault> fault_;
};

} // namespace

Napi::Value nftDelete(const Napi::CallbackInfo& info) {
    Args args(info);
    Napi::Env env = info.Env();
    const int netns = args.netns(0);
    if (!info[1].IsArray()) throw Napi::TypeError::New(env, "objects must be an array");
    Napi::Array objects = info[1].As<Napi::Array>();
    if (objects.Length() > kMaxObjects)
        throw Napi::TypeError::New(env, "objects are more than 200");
    if (objects.Length() == 0) {
        Napi::Promise::Deferred nothing = Napi::Promise::Deferred::New(env);
        nothing.Resolve(env.Undefined());
        return nothing.Promise();
    }
    std::vector<Message> batch;
    batch.push_back(message(NFNL_MSG_BATCH_BEGIN, 0, AF_UNSPEC, NFNL_SUBSYS_NFTABLES));
    for (uint32_t i = 0; i < objects.Length(); i++) {
        batch.push_back(objectOf(objects.Get(i), i + 1 == objects.Length()));
    }
    batch.push_back(message(NFNL_MSG_BATCH_END, 0, AF_UNSPEC, NFNL_SUBSYS_NFTABLES));
    auto* deleting = new Deleting(env, netns, std::move(batch));
    Napi::Promise promise = deleting->promise();
    deleting->Queue();
    return promise;
}

} // namespace ambient
