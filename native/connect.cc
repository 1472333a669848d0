// SPDX-License-Identifier: Apache-2.0
#include "connect.h"

#include <poll.h>

#include <cerrno>
#include <optional>

#include "args.h"
#include "env.h"
#include "fault.h"
#include "loop.h"
#include "socket.h"

namespace ambient {

namespace {

constexpr uint32_t kMaxTimeout = 10 * 60 * 1000;

/** One connect(2) in flight on the event loop; deletes itself when it is settled. */
class Connecting final : Closable, Poller::Listener, Timer::Listener {
  public:
    Connecting(Napi::Env env, UniqueFd fd, std::string target)
        : env_(env), loop_(*EnvState::of(env).loop), context_(env, "ambient.tcpConnect"),
          deferred_(Napi::Promise::Deferred::New(env)), fd_(std::move(fd)),
          target_(std::move(target)), poller_(loop_, fd_.get(), *this), timer_(loop_, *this) {
        loop_.add(this);
    }

    Napi::Promise wait(uint32_t timeout) {
        Napi::Promise promise = deferred_.Promise();
        poller_.start(UV_WRITABLE);
        timer_.start(timeout);
        return promise;
    }

    void shutdown() override { delete this; }

  private:
    ~Connecting() {
        poller_.close();
        loop_.remove(this);
    }

    void ready(int status, int) override {
        // libuv reports POLLERR as EBADF, whatever happened: the socket knows better.
        int error = 0;
        socklen_t size = sizeof(error);
        if (::getsockopt(fd_.get(), SOL_SOCKET, SO_ERROR, &error, &size) != 0) error = errno;
        settle(error != 0 ? error : -status);
    }

    void expired() override {
        // libuv runs timers before it looks at fds: after a long callback both may be due.
        pollfd polled = {fd_.get(), POLLOUT, 0};
        if (::poll(&polled, 1, 0) > 0) {
            ready(0, 0);
        } else {
            settle(ETIMEDOUT);
        }
    }

    void settle(int error) {
        poller_.close();
        timer_.close();
        UniqueFd fd = std::move(fd_);
        // JavaScript runs when the scope below ends, and must find a failed socket closed.
        if (error != 0) fd.reset();
        {
            Napi::HandleScope scope(env_);
            Napi::CallbackScope callback(env_, context_);
            if (error == 0) {
                deferred_.Resolve(Napi::Number::New(env_, fd.release()));
            } else {
                try {
                    fail(error, "connect", "connect to " + target_);
                } catch (const Fault& fault) {
                    deferred_.Reject(toError(env_, fault).Value());
                }
            }
        }
        delete this;
    }

    Napi::Env env_;
    Loop& loop_;
    Napi::AsyncContext context_;
    Napi::Promise::Deferred deferred_;
    UniqueFd fd_;
    std::string target_;
    Poller poller_;
    Timer timer_;
};

} // namespace

Napi::Value tcpConnect(const Napi::CallbackInfo& info) {
    Args args(info);
    const Fields options = args.object(1, "options");
    const uint32_t timeout = options.number("timeout", kMaxTimeout);
    try {
        SocketAddress to = socketAddress(options.family("family"), options.string("address"),
                                         static_cast<uint16_t>(options.number("port", 65535)));
        const std::string target = describe(to);
        UniqueFd fd = openSocket(args.netns(0), SOCK_STREAM, options, "connect to " + target);
        if (::connect(fd.get(), to.get(), to.size) != 0 && errno != EINPROGRESS) {
            fail(errno, "connect", "connect to " + target);
        }
        // A connection that is there already shows as writable at once.
        auto* connecting = new Connecting(info.Env(), std::move(fd), target);
        return connecting->wait(timeout);
    } catch (const Fault& fault) {
        Napi::Promise::Deferred deferred = Napi::Promise::Deferred::New(info.Env());
        deferred.Reject(toError(info.Env(), fault).Value());
        return deferred.Promise();
    }
}

} // namespace ambient
