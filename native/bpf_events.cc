// SPDX-License-Identifier: Apache-2.0
#include "bpf_events.h"

#include <arpa/inet.h>
#include <bpf/libbpf.h>

#include <cerrno>
#include <memory>
#include <optional>

#include "args.h"
#include "bpf_address.h"
#include "env.h"
#include "fault.h"
#include "loop.h"

namespace ambient {

namespace {

/** Events told in one call; more wait in the ring. */
constexpr size_t kBatch = 512;

struct FreeRing {
    void operator()(ring_buffer* ring) const { ring_buffer__free(ring); }
};

/** It owns itself while it is open. */
class EventReader final : public std::enable_shared_from_this<EventReader>,
                          public Closable,
                          public Poller::Listener {
  public:
    EventReader(Napi::Env env, int map, Napi::Function told)
        : env_(env), loop_(*EnvState::of(env).loop),
          told_(std::make_shared<Callback>(told, "ambient.events")) {
        ring_.reset(ring_buffer__new(map, &EventReader::collect, this, nullptr));
        if (ring_ == nullptr) fail(errno, "bpf", "open the ring buffer of events");
    }

    void start() {
        poller_.emplace(loop_, ring_buffer__epoll_fd(ring_.get()), *this);
        poller_->start(UV_READABLE);
        self_ = shared_from_this();
        loop_.add(this);
    }

    void close() {
        if (ring_ == nullptr) return;
        poller_.reset();
        ring_.reset();
        told_.reset();
        loop_.remove(this);
        self_.reset();
    }

    void shutdown() override { close(); }

    void ready(int, int) override {
        std::shared_ptr<EventReader> keep = self_;
        // -ENOSPC is how collect() ends a batch: what is left makes the fd readable again.
        ring_buffer__consume(ring_.get());
        if (batch_.empty()) return;
        std::shared_ptr<Callback> told = told_;
        Napi::HandleScope scope(env_);
        Napi::Array events = Napi::Array::New(env_, batch_.size());
        for (size_t i = 0; i < batch_.size(); i++)
            events.Set(static_cast<uint32_t>(i), object(batch_[i]));
        batch_.clear();
        if (told) told->call(env_.Global(), {events});
    }

  private:
    static int collect(void* self, void* data, size_t size) {
        auto& batch = static_cast<EventReader*>(self)->batch_;
        if (size >= sizeof(ambient_event))
            batch.push_back(*static_cast<const ambient_event*>(data));
        return batch.size() >= kBatch ? -ENOSPC : 0;
    }

    Napi::Object object(const ambient_event& event) const {
        Napi::Object flow = Napi::Object::New(env_);
        flow.Set("nanoseconds", bigint(env_, event.nanoseconds));
        flow.Set("cookie", bigint(env_, event.cookie));
        flow.Set("verdict", verdictName(event.verdict));
        flow.Set("protocol", event.protocol == IPPROTO_UDP ? "udp" : "tcp");
        flow.Set("source", bpfAddressText(event.source));
        flow.Set("sourcePort", static_cast<uint32_t>(ntohs(event.source_port)));
        flow.Set("destination", bpfAddressText(event.destination));
        flow.Set("destinationPort", static_cast<uint32_t>(ntohs(event.destination_port)));
        return flow;
    }

    Napi::Env env_;
    Loop& loop_;
    std::shared_ptr<Callback> told_;
    std::unique_ptr<ring_buffer, FreeRing> ring_;
    std::shared_ptr<EventReader> self_;
    std::optional<Poller> poller_;
    std::vector<ambient_event> batch_;
};

} // namespace

const char* verdictName(unsigned verdict) {
    static const char* const names[AMBIENT_VERDICTS] = {
        "outbound_captured",
        "outbound_dns",
        "outbound_local",
        "outbound_excluded",
        "outbound_refused_self",
        "outbound_refused_full",
        "outbound_refused_device",
        "outbound_lost_destination",
        "outbound_leak",
        "outbound_forged_mark",
        "outbound_unparsed",
        "inbound_captured",
        "inbound_hbone",
        "inbound_probe",
        "inbound_host_probe",
        "inbound_bypassed",
        "inbound_no_listener",
        "inbound_unparsed",
        "loop_refused",
    };
    return verdict < AMBIENT_VERDICTS ? names[verdict] : "unknown";
}

Napi::Function readEvents(Napi::Env env, int ringMap, Napi::Function told) {
    auto reader = std::make_shared<EventReader>(env, ringMap, told);
    reader->start();
    return method(env, "stop", [reader](const Napi::CallbackInfo& call) -> Napi::Value {
        reader->close();
        return call.Env().Undefined();
    });
}

} // namespace ambient
