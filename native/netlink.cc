// SPDX-License-Identifier: Apache-2.0
#include "netlink.h"

#include <arpa/inet.h>
#include <endian.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <chrono>

#include "fault.h"
#include "netns_scope.h"

namespace ambient {

namespace {

/** Larger than any message the kernel builds for a dump (32 KiB). */
constexpr size_t kBufferSize = 64 * 1024;
/** The kernel answers in microseconds; a module being loaded may take longer. */
constexpr std::chrono::seconds kDeadline{5};
constexpr size_t kMaxRequest = 16 * 1024;

/** Text of the extended acknowledgement, "" when there is none. */
std::string extendedAck(const nlmsghdr& header, size_t fixed) {
    if ((header.nlmsg_flags & NLM_F_ACK_TLVS) == 0) return "";
    size_t skip = NLMSG_ALIGN(NLMSG_HDRLEN + fixed);
    if (header.nlmsg_len <= skip) return "";
    Attributes attributes(reinterpret_cast<const uint8_t*>(&header) + skip,
                          header.nlmsg_len - skip);
    std::optional<Attribute> text = attributes.find(NLMSGERR_ATTR_MSG);
    return text ? text->text() : "";
}

[[noreturn]] void failWithAnswer(int error, const nlmsghdr& header, size_t fixed,
                                 const std::string& what) {
    fail(error, "netlink", what, extendedAck(header, fixed));
}

void checkAcknowledgement(const nlmsghdr& header, const std::string& what) {
    const nlmsgerr* error = fixedPart<nlmsgerr>(header);
    if (error == nullptr) fail(EBADMSG, "recvmsg", what);
    if (error->error == 0) return;
    size_t fixed = sizeof(nlmsgerr);
    if ((header.nlmsg_flags & NLM_F_CAPPED) == 0) {
        fixed += error->msg.nlmsg_len - sizeof(nlmsghdr);
    }
    failWithAnswer(-error->error, header, fixed, what);
}

void setFlag(int fd, int option) {
    int one = 1;
    // Old kernels lack some of these; the code works without, messages are only poorer.
    (void)::setsockopt(fd, SOL_NETLINK, option, &one, sizeof(one));
}

} // namespace

Message::Message(uint16_t type, uint16_t flags) : bytes_(NLMSG_HDRLEN) {
    auto* header = reinterpret_cast<nlmsghdr*>(bytes_.data());
    header->nlmsg_type = type;
    header->nlmsg_flags = NLM_F_REQUEST | flags;
}

void Message::append(const void* data, size_t size) {
    if (bytes_.size() + size > kMaxRequest) fail(EMSGSIZE, "netlink", "build a netlink request");
    size_t at = bytes_.size();
    bytes_.resize(at + NLMSG_ALIGN(size));
    if (size > 0) std::memcpy(bytes_.data() + at, data, size);
}

Message& Message::put(uint16_t type, const void* data, size_t size) {
    nlattr header = {static_cast<uint16_t>(NLA_HDRLEN + size), type};
    append(&header, sizeof(header));
    append(data, size);
    return *this;
}

size_t Message::nest(uint16_t type) {
    size_t at = bytes_.size();
    put(type | NLA_F_NESTED, nullptr, 0);
    return at;
}

void Message::end(size_t nested) {
    auto* header = reinterpret_cast<nlattr*>(bytes_.data() + nested);
    header->nla_len = static_cast<uint16_t>(bytes_.size() - nested);
}

const std::vector<uint8_t>& Message::bytes(uint32_t sequence) {
    auto* header = reinterpret_cast<nlmsghdr*>(bytes_.data());
    header->nlmsg_len = static_cast<uint32_t>(bytes_.size());
    header->nlmsg_seq = sequence;
    return bytes_;
}

uint32_t Attribute::be32() const {
    return ntohl(as<uint32_t>());
}
uint64_t Attribute::be64() const {
    return be64toh(as<uint64_t>());
}

std::string Attribute::text() const {
    const char* start = reinterpret_cast<const char*>(data);
    return std::string(start, strnlen(start, size));
}

void Attributes::Iterator::settle() {
    nlattr header;
    if (size_ < sizeof(header)) {
        size_ = 0;
        return;
    }
    std::memcpy(&header, data_, sizeof(header));
    if (header.nla_len < NLA_HDRLEN || header.nla_len > size_) size_ = 0;
}

Attribute Attributes::Iterator::operator*() const {
    nlattr header;
    std::memcpy(&header, data_, sizeof(header));
    return {static_cast<uint16_t>(header.nla_type & NLA_TYPE_MASK), data_ + NLA_HDRLEN,
            static_cast<size_t>(header.nla_len - NLA_HDRLEN)};
}

Attributes::Iterator& Attributes::Iterator::operator++() {
    nlattr header;
    std::memcpy(&header, data_, sizeof(header));
    size_t step = NLA_ALIGN(header.nla_len);
    if (step >= size_) {
        size_ = 0;
        return *this;
    }
    data_ += step;
    size_ -= step;
    settle();
    return *this;
}

std::optional<Attribute> Attributes::find(uint16_t type) const {
    for (Attribute attribute : *this) {
        if (attribute.type == type) return attribute;
    }
    return std::nullopt;
}

NetlinkSocket::NetlinkSocket(int netns, int protocol)
    : fd_(socketIn(netns, AF_NETLINK, SOCK_RAW, protocol, "open a netlink socket")),
      buffer_(kBufferSize) {
    setFlag(fd_.get(), NETLINK_EXT_ACK);
    setFlag(fd_.get(), NETLINK_CAP_ACK);
    setFlag(fd_.get(), NETLINK_GET_STRICT_CHK);
    sockaddr_nl address = {};
    address.nl_family = AF_NETLINK;
    if (::bind(fd_.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
        fail(errno, "bind", "open a netlink socket");
    }
}

size_t NetlinkSocket::receive(const std::string& what) {
    using Clock = std::chrono::steady_clock;
    const Clock::time_point end = Clock::now() + kDeadline;
    for (;;) {
        sockaddr_nl from = {};
        iovec part = {buffer_.data(), buffer_.size()};
        msghdr message = {};
        message.msg_name = &from;
        message.msg_namelen = sizeof(from);
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        ssize_t size = ::recvmsg(fd_.get(), &message, 0);
        if (size >= 0) {
            if ((message.msg_flags & MSG_TRUNC) != 0) fail(EMSGSIZE, "recvmsg", what);
            // Only the kernel has port 0; any process may send to a netlink socket.
            if (from.nl_pid == 0) return static_cast<size_t>(size);
            continue;
        }
        if (errno == EINTR) continue;
        if (errno != EAGAIN) fail(errno, "recvmsg", what);
        auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now());
        pollfd poll = {fd_.get(), POLLIN, 0};
        if (left.count() <= 0 || ::poll(&poll, 1, static_cast<int>(left.count())) == 0) {
            fail(ETIMEDOUT, "recvmsg", what, "no answer from the kernel within 5 s");
        }
    }
}

bool NetlinkSocket::exchange(Message& message, const std::string& what,
                             const MessageHandler& answer) {
    send(message.bytes(++sequence_), what);
    return answers(what, answer);
}

void NetlinkSocket::batch(std::vector<Message>& messages, const std::string& what) {
    ++sequence_;
    std::vector<uint8_t> all;
    // One number for all: an error of the whole is told as one of the first message.
    for (Message& message : messages) {
        const std::vector<uint8_t>& bytes = message.bytes(sequence_);
        all.insert(all.end(), bytes.begin(), bytes.end());
    }
    send(all, what);
    answers(what, {});
}

void NetlinkSocket::send(const std::vector<uint8_t>& bytes, const std::string& what) {
    sockaddr_nl kernel = {};
    kernel.nl_family = AF_NETLINK;
    ssize_t sent;
    do {
        sent = ::sendto(fd_.get(), bytes.data(), bytes.size(), 0,
                        reinterpret_cast<sockaddr*>(&kernel), sizeof(kernel));
    } while (sent < 0 && errno == EINTR);
    if (sent < 0) fail(errno, "sendto", what);
}

bool NetlinkSocket::answers(const std::string& what, const MessageHandler& answer) {
    bool interrupted = false;
    for (parts_ = 0;;) {
        size_t left = receive(what);
        const uint8_t* at = buffer_.data();
        // The part that only ends the dump holds no entries.
        bool answered = false;
        while (left >= sizeof(nlmsghdr)) {
            const auto& header = *reinterpret_cast<const nlmsghdr*>(at);
            if (header.nlmsg_len < sizeof(nlmsghdr) || header.nlmsg_len > left) {
                fail(EBADMSG, "recvmsg", what);
            }
            const size_t step = NLMSG_ALIGN(header.nlmsg_len);
            const size_t consumed = step < left ? step : left;
            if (header.nlmsg_seq == sequence_) {
                if ((header.nlmsg_flags & NLM_F_DUMP_INTR) != 0) interrupted = true;
                if (header.nlmsg_type == NLMSG_DONE) {
                    const int* error = fixedPart<int>(header);
                    if (error != nullptr && *error < 0) {
                        failWithAnswer(-*error, header, sizeof(int), what);
                    }
                    return !interrupted;
                }
                if (header.nlmsg_type == NLMSG_ERROR) {
                    checkAcknowledgement(header, what);
                    return !interrupted;
                }
                if (answer) answer(header);
                answered = true;
            }
            at += consumed;
            left -= consumed;
        }
        if (answered) parts_++;
    }
}

void NetlinkSocket::request(Message& message, const std::string& what,
                            const MessageHandler& answer) {
    exchange(message, what, answer);
}

void NetlinkSocket::tooManyInterruptions(const std::string& what) {
    fail(EAGAIN, "netlink", what, "the table changed during every attempt to read it");
}

} // namespace ambient
