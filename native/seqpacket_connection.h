// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <napi.h>

#include <memory>
#include <optional>
#include <string>

#include "loop.h"
#include "unique_fd.h"

namespace ambient {

/** Larger than any message of a sane peer; what exceeds it is delivered cut and marked. */
constexpr size_t kMaxDatagram = 4096;

/** One connected SEQPACKET socket. It owns itself while it is open. */
class SeqpacketConnection final : public std::enable_shared_from_this<SeqpacketConnection>,
                                  public Closable,
                                  public Poller::Listener {
  public:
    static std::shared_ptr<SeqpacketConnection> create(Napi::Env env, UniqueFd fd);
    ~SeqpacketConnection() = default;

    /** What JavaScript sees: `peer`, `send`, `peerPidfd`, `close`. */
    Napi::Object object();
    /** Begins to read. @throws TypeError when the value is no SeqpacketHandler. */
    void start(Napi::Value handler);
    void close();

  private:
    SeqpacketConnection(Napi::Env env, UniqueFd fd);

    void shutdown() override { close(); }
    void ready(int status, int events) override;
    bool receive();
    void finish(int error);
    void send(const uint8_t* data, size_t size, std::optional<int> attached);
    int peerPidfd() const;

    Napi::Env env_;
    Loop& loop_;
    UniqueFd fd_;
    std::shared_ptr<SeqpacketConnection> self_;
    std::optional<Poller> poller_;
    std::shared_ptr<Callback> packet_, end_;
    Napi::ObjectReference handler_;
    int readError_ = 0;
};

} // namespace ambient
