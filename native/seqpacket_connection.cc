// SPDX-License-Identifier: Apache-2.0
#include "seqpacket_connection.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "args.h"
#include "env.h"
#include "fault.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

namespace ambient {

namespace {

/** SCM_MAX_FD of the kernel: with room for all, a peer cannot make the kernel drop some silently.
 */
constexpr size_t kMaxFds = 253;
/** Datagrams taken per wake-up, so that one busy peer does not starve the loop. */
constexpr int kBatch = 32;

std::vector<UniqueFd> attachedFds(msghdr& message) {
    std::vector<UniqueFd> fds;
    for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr;
         part = CMSG_NXTHDR(&message, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
        const size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            std::memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof(fd));
            fds.emplace_back(fd);
        }
    }
    return fds;
}

} // namespace

SeqpacketConnection::SeqpacketConnection(Napi::Env env, UniqueFd fd)
    : env_(env), loop_(*EnvState::of(env).loop), fd_(std::move(fd)) {}

std::shared_ptr<SeqpacketConnection> SeqpacketConnection::create(Napi::Env env, UniqueFd fd) {
    std::shared_ptr<SeqpacketConnection> connection(new SeqpacketConnection(env, std::move(fd)));
    connection->self_ = connection;
    connection->loop_.add(connection.get());
    return connection;
}

Napi::Object SeqpacketConnection::object() {
    ucred credentials = {};
    socklen_t size = sizeof(credentials);
    if (::getsockopt(fd_.get(), SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) {
        fail(errno, "getsockopt", "read the peer's credentials");
    }
    Napi::Object peer = Napi::Object::New(env_);
    peer.Set("pid", credentials.pid);
    peer.Set("uid", credentials.uid);
    peer.Set("gid", credentials.gid);

    std::shared_ptr<SeqpacketConnection> self = shared_from_this();
    Napi::Object object = Napi::Object::New(env_);
    object.Set("peer", peer);
    object.Set("send", method(env_, "send", [self](const Napi::CallbackInfo& info) -> Napi::Value {
                   if (!info[0].IsBuffer()) {
                       throw Napi::TypeError::New(info.Env(), "message must be a Buffer");
                   }
                   auto message = info[0].As<Napi::Buffer<uint8_t>>();
                   std::optional<int> attached;
                   if (!info[1].IsUndefined()) attached = Args(info).fd(1, "fd");
                   self->send(message.Data(), message.Length(), attached);
                   return info.Env().Undefined();
               }));
    object.Set("peerPidfd",
               method(env_, "peerPidfd", [self](const Napi::CallbackInfo& info) -> Napi::Value {
                   return Napi::Number::New(info.Env(), self->peerPidfd());
               }));
    object.Set("close",
               method(env_, "close", [self](const Napi::CallbackInfo& info) -> Napi::Value {
                   self->close();
                   return info.Env().Undefined();
               }));
    return object;
}

void SeqpacketConnection::start(Napi::Value value) {
    if (!value.IsObject()) throw Napi::TypeError::New(env_, "a SeqpacketHandler must be an object");
    Fields handler(value.As<Napi::Object>(), "handler");
    packet_ = std::make_shared<Callback>(handler.function("packet"), "ambient.seqpacket");
    end_ = std::make_shared<Callback>(handler.function("end"), "ambient.seqpacket");
    handler_ = Napi::Persistent(handler.raw());
    // The callee may have closed the connection before it returned the handler.
    if (!fd_) return;
    poller_.emplace(loop_, fd_.get(), *this);
    poller_->start(UV_READABLE);
}

void SeqpacketConnection::close() {
    if (!fd_) return;
    poller_.reset();
    fd_.reset();
    handler_.Reset();
    packet_.reset();
    end_.reset();
    loop_.remove(this);
    self_.reset();
}

void SeqpacketConnection::ready(int, int) {
    // JavaScript may close the connection while we are in here.
    std::shared_ptr<SeqpacketConnection> keep = self_;
    for (int i = 0; i < kBatch && fd_; i++) {
        Napi::HandleScope scope(env_);
        if (!receive()) return;
    }
}

/** Takes one datagram; false when there is nothing more to take for now. */
bool SeqpacketConnection::receive() {
    uint8_t data[kMaxDatagram + 1];
    alignas(cmsghdr) uint8_t control[CMSG_SPACE(kMaxFds * sizeof(int))];
    iovec part = {data, sizeof(data)};
    msghdr message = {};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    ssize_t size = ::recvmsg(fd_.get(), &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (size < 0) {
        if (errno == EINTR) return true;
        if (errno == EAGAIN) return false;
        // A peer that dies with unread data of ours resets the connection, and the kernel reports
        // that before the datagrams it sent: read those first.
        if (errno == ECONNRESET && readError_ == 0) {
            readError_ = errno;
            return true;
        }
        finish(errno);
        return false;
    }
    std::vector<UniqueFd> fds = attachedFds(message);
    // An empty datagram looks like the end of file, and is no message of any protocol here.
    if (size == 0) {
        finish(readError_);
        return false;
    }
    const bool truncated = size > static_cast<ssize_t>(kMaxDatagram) ||
                           (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0;
    const size_t kept = static_cast<size_t>(size) > kMaxDatagram ? kMaxDatagram : size;
    Napi::Array numbers = Napi::Array::New(env_, fds.size());
    for (size_t i = 0; i < fds.size(); i++) {
        numbers.Set(static_cast<uint32_t>(i), Napi::Number::New(env_, fds[i].get()));
    }
    Napi::Value buffer = Napi::Buffer<uint8_t>::Copy(env_, data, kept);
    for (UniqueFd& fd : fds)
        fd.release();
    // The callee may close the connection, which drops packet_.
    std::shared_ptr<Callback> packet = packet_;
    packet->call(handler_.Value(), {buffer, numbers, Napi::Boolean::New(env_, truncated)});
    return true;
}

void SeqpacketConnection::finish(int error) {
    Napi::Object handler = handler_.Value();
    std::shared_ptr<Callback> end = end_;
    close();
    Napi::Value reason = env_.Undefined();
    if (error != 0) {
        try {
            fail(error, "recvmsg", "read from the peer");
        } catch (const Fault& fault) {
            reason = toError(env_, fault).Value();
        }
    }
    end->call(handler, {reason});
}

void SeqpacketConnection::send(const uint8_t* data, size_t size, std::optional<int> attached) {
    constexpr const char* what = "send to the peer";
    if (!fd_) fail(EBADF, "sendmsg", what, "the connection is closed");
    if (size == 0) fail(EINVAL, "sendmsg", what, "an empty datagram reads as the end of file");
    iovec part = {const_cast<uint8_t*>(data), size};
    alignas(cmsghdr) uint8_t control[CMSG_SPACE(sizeof(int))] = {};
    msghdr message = {};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    if (attached) {
        message.msg_control = control;
        message.msg_controllen = sizeof(control);
        cmsghdr* header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int));
        std::memcpy(CMSG_DATA(header), &*attached, sizeof(int));
    }
    ssize_t sent;
    do {
        sent = ::sendmsg(fd_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (sent < 0 && errno == EINTR);
    if (sent >= 0) return;
    // Which of these a dead peer gives depends on what it had left unread.
    const bool gone = errno == ECONNRESET || errno == ECONNREFUSED || errno == ENOTCONN;
    fail(gone ? EPIPE : errno, "sendmsg", what);
}

int SeqpacketConnection::peerPidfd() const {
    if (!fd_) fail(EBADF, "getsockopt", "open the peer's pidfd", "the connection is closed");
    int pidfd = -1;
    socklen_t size = sizeof(pidfd);
    if (::getsockopt(fd_.get(), SOL_SOCKET, SO_PEERPIDFD, &pidfd, &size) != 0) return -1;
    return pidfd;
}

} // namespace ambient
