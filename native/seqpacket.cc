// SPDX-License-Identifier: Apache-2.0
#include "seqpacket.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>

#include "args.h"
#include "env.h"
#include "fault.h"
#include "seqpacket_connection.h"

namespace ambient {

namespace {

constexpr int kBacklog = 64;
/** Connections accepted per wake-up. */
constexpr int kBatch = 16;

sockaddr_un unixAddress(const std::string& path, const std::string& what) {
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    if (path.empty()) fail(EINVAL, "bind", what, "the path is empty");
    if (path.size() >= sizeof(address.sun_path)) {
        fail(ENAMETOOLONG, "bind", what, "a socket path has at most 107 bytes");
    }
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    return address;
}

UniqueFd unixSocket(const std::string& what) {
    UniqueFd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd) fail(errno, "socket", what);
    return fd;
}

/** A listening socket. It owns itself while it is open. */
class Server final : public std::enable_shared_from_this<Server>,
                     public Closable,
                     public Poller::Listener {
  public:
    static std::shared_ptr<Server> create(Napi::Env env, UniqueFd fd, Napi::Function accepted) {
        std::shared_ptr<Server> server(new Server(env, std::move(fd), accepted));
        server->poller_.emplace(server->loop_, server->fd_.get(), *server);
        server->poller_->start(UV_READABLE);
        server->self_ = server;
        server->loop_.add(server.get());
        return server;
    }
    ~Server() = default;

    void close() {
        if (!fd_) return;
        poller_.reset();
        fd_.reset();
        spare_.reset();
        accepted_.reset();
        loop_.remove(this);
        self_.reset();
    }

  private:
    Server(Napi::Env env, UniqueFd fd, Napi::Function accepted)
        : env_(env), loop_(*EnvState::of(env).loop), fd_(std::move(fd)), spare_(openSpare()),
          accepted_(std::make_shared<Callback>(accepted, "ambient.seqpacket")) {}

    static int openSpare() { return ::open("/dev/null", O_RDONLY | O_CLOEXEC); }

    void shutdown() override { close(); }

    void ready(int, int) override {
        std::shared_ptr<Server> keep = self_;
        for (int i = 0; i < kBatch && fd_; i++) {
            Napi::HandleScope scope(env_);
            UniqueFd peer(::accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
            if (peer) {
                greet(std::move(peer));
            } else if (errno == EMFILE || errno == ENFILE) {
                turnAway();
            } else if (errno != EINTR && errno != ECONNABORTED) {
                return;
            }
        }
    }

    /** Out of fds: end the connection with the spare one, or the loop would spin on it for ever. */
    void turnAway() {
        spare_.reset();
        UniqueFd(::accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
        spare_.reset(openSpare());
    }

    void greet(UniqueFd peer) {
        std::shared_ptr<SeqpacketConnection> connection =
            SeqpacketConnection::create(env_, std::move(peer));
        try {
            Napi::Object object = connection->object();
            // The callee may close the server, which drops accepted_.
            std::shared_ptr<Callback> accepted = accepted_;
            Napi::Value handler = accepted->call(env_.Global(), {object});
            if (handler.IsEmpty()) {
                connection->close();
            } else {
                connection->start(handler);
            }
        } catch (const Fault& fault) {
            // The peer's fault (it is gone already) or a full epoll set: this connection only.
            connection->close();
        } catch (const Napi::Error& error) {
            connection->close();
            napi_fatal_exception(env_, error.Value());
        }
    }

    Napi::Env env_;
    Loop& loop_;
    UniqueFd fd_, spare_;
    std::shared_ptr<Server> self_;
    std::optional<Poller> poller_;
    std::shared_ptr<Callback> accepted_;
};

} // namespace

Napi::Value seqpacketListen(const Napi::CallbackInfo& info) {
    Args args(info);
    const std::string path = args.string(0, "path");
    const mode_t mode = args.number(1, "mode", 07777);
    Napi::Function accepted = args.function(2, "accepted");
    const std::string what = "listen on " + path;
    sockaddr_un address = unixAddress(path, what);
    UniqueFd fd = unixSocket(what);
    // bind(2) gives the file the mode of the socket less the umask: no moment with a wider mode.
    if (::fchmod(fd.get(), mode) != 0) fail(errno, "fchmod", what);
    if (::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
        fail(errno, "bind", what);
    }
    if (::chmod(path.c_str(), mode) != 0 || ::listen(fd.get(), kBacklog) != 0) {
        int error = errno;
        ::unlink(path.c_str());
        fail(error, "listen", what);
    }
    std::shared_ptr<Server> server = Server::create(info.Env(), std::move(fd), accepted);
    Napi::Object object = Napi::Object::New(info.Env());
    object.Set("close",
               method(info.Env(), "close", [server](const Napi::CallbackInfo& call) -> Napi::Value {
                   server->close();
                   return call.Env().Undefined();
               }));
    return object;
}

Napi::Value seqpacketConnect(const Napi::CallbackInfo& info) {
    Args args(info);
    const std::string path = args.string(0, "path");
    const std::string what = "connect to " + path;
    sockaddr_un address = unixAddress(path, what);
    UniqueFd fd = unixSocket(what);
    if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
        fail(errno, "connect", what);
    }
    std::shared_ptr<SeqpacketConnection> connection =
        SeqpacketConnection::create(info.Env(), std::move(fd));
    try {
        Napi::Object object = connection->object();
        connection->start(info[1]);
        return object;
    } catch (...) {
        connection->close();
        throw;
    }
}

} // namespace ambient
