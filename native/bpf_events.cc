// SPDX-License-Identifier: Apache-2.0
#include "bpf_events.h"

#include <arpa/inet.h>
#include <bpf/libbpf.h>

#include <cerrno>
#include <memory>
#include <vector>

#include "args.h"
#include "bpf_address.h"
#include "bpf_table.h"
#include "fault.h"

namespace ambient {

namespace {

struct FreeRing {
    void operator()(ring_buffer* ring) const { ring_buffer__free(ring); }
};

/** The programs wake nobody: who reads comes often enough. */
class EventReader final {
  public:
    explicit EventReader(int map) {
        ring_.reset(ring_buffer__new(map, &EventReader::collect, this, nullptr));
        if (ring_ == nullptr) fail(errno, "bpf", "open the ring buffer of events");
    }
    EventReader(const EventReader&) = delete;
    EventReader& operator=(const EventReader&) = delete;

    void close() { ring_.reset(); }

    /** The oldest events, `most` at most; the rest stay in the ring. */
    const std::vector<ambient_event>& read(size_t most) {
        batch_.clear();
        most_ = most;
        // -ENOSPC is how collect() ends a batch.
        if (ring_ != nullptr && most > 0) ring_buffer__consume(ring_.get());
        return batch_;
    }

  private:
    static int collect(void* self, void* data, size_t size) {
        auto& reader = *static_cast<EventReader*>(self);
        if (size >= sizeof(ambient_event))
            reader.batch_.push_back(*static_cast<const ambient_event*>(data));
        return reader.batch_.size() >= reader.most_ ? -ENOSPC : 0;
    }

    std::unique_ptr<ring_buffer, FreeRing> ring_;
    std::vector<ambient_event> batch_;
    size_t most_ = 0;
};

Napi::Object flowObject(Napi::Env env, const ambient_event& event) {
    Napi::Object flow = Napi::Object::New(env);
    flow.Set("nanoseconds", bigint(env, event.nanoseconds));
    flow.Set("cookie", bigint(env, event.cookie));
    flow.Set("verdict", verdictName(event.verdict));
    flow.Set("protocol", event.protocol == IPPROTO_UDP ? "udp" : "tcp");
    flow.Set("source", bpfAddressText(event.source));
    flow.Set("sourcePort", static_cast<uint32_t>(ntohs(event.source_port)));
    flow.Set("destination", bpfAddressText(event.destination));
    flow.Set("destinationPort", static_cast<uint32_t>(ntohs(event.destination_port)));
    return flow;
}

} // namespace

const char* verdictName(unsigned verdict) {
    static const char* const names[AMBIENT_TOLD] = {
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
        "outbound_ztunnel",
        "outbound_to_prober",
        "outbound_draining",
        "outbound_family",
        "inbound_draining",
        "inbound_family",
    };
    return verdict < AMBIENT_TOLD ? names[verdict] : "unknown";
}

Napi::Object openEvents(Napi::Env env, int ringMap) {
    auto reader = std::make_shared<EventReader>(ringMap);
    Napi::Object object = Napi::Object::New(env);
    object.Set("read", method(env, "read", [reader](const Napi::CallbackInfo& call) -> Napi::Value {
                   const auto& batch = reader->read(Args(call).number(0, "most"));
                   Napi::Array flows = Napi::Array::New(call.Env(), batch.size());
                   for (size_t i = 0; i < batch.size(); i++)
                       flows.Set(static_cast<uint32_t>(i), flowObject(call.Env(), batch[i]));
                   return flows;
               }));
    object.Set("close",
               method(env, "close", [reader](const Napi::CallbackInfo& call) -> Napi::Value {
                   reader->close();
                   return call.Env().Undefined();
               }));
    return object;
}

void tellUntil(const BpfNode& node, uint64_t nanoseconds) {
    put(node, "monitor", uint32_t{AMBIENT_MONITOR_UNTIL}, nanoseconds);
}

uint64_t lostEvents(const BpfNode& node) {
    uint64_t lost = 0;
    get(node, "monitor", uint32_t{AMBIENT_MONITOR_LOST}, lost);
    return lost;
}

} // namespace ambient
