// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <linux/netlink.h>

#include <cstdint>
#include <cstring>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "unique_fd.h"

namespace ambient {

/** A netlink request under construction: header, fixed part, attributes. */
class Message {
  public:
    Message(uint16_t type, uint16_t flags);

    /** Appends the fixed part that follows the netlink header (ifinfomsg, rtmsg, ...). */
    template <class T> Message& fixed(const T& value) {
        append(&value, sizeof(value));
        return *this;
    }
    Message& put(uint16_t type, const void* data, size_t size);
    Message& put8(uint16_t type, uint8_t value) { return put(type, &value, sizeof(value)); }
    Message& put32(uint16_t type, uint32_t value) { return put(type, &value, sizeof(value)); }
    /** With the terminating NUL. */
    Message& putString(uint16_t type, const std::string& value) {
        return put(type, value.c_str(), value.size() + 1);
    }
    /** Opens a nested attribute; give the result to `end`. */
    size_t nest(uint16_t type);
    void end(size_t nested);

    const std::vector<uint8_t>& bytes(uint32_t sequence);

  private:
    void append(const void* data, size_t size);

    std::vector<uint8_t> bytes_;
};

/** One attribute as received: a view that lives as long as the receive buffer. */
struct Attribute {
    uint16_t type;
    const uint8_t* data;
    size_t size;

    /** Host byte order; 0 when the attribute is too short. */
    template <class T> T as() const {
        T value = {};
        if (size >= sizeof(T)) std::memcpy(&value, data, sizeof(T));
        return value;
    }
    uint32_t be32() const;
    uint64_t be64() const;
    std::string text() const;
};

/** Iterates over attributes; stops at the first one that does not fit. */
class Attributes {
  public:
    Attributes(const uint8_t* data, size_t size) : data_(data), size_(size) {}
    explicit Attributes(const Attribute& nested) : Attributes(nested.data, nested.size) {}
    /** The attributes behind the fixed part `T` of a message. */
    template <class T> static Attributes after(const nlmsghdr& header) {
        size_t skip = NLMSG_LENGTH(NLMSG_ALIGN(sizeof(T)));
        const uint8_t* start = reinterpret_cast<const uint8_t*>(&header);
        if (header.nlmsg_len <= skip) return Attributes(start, 0);
        return Attributes(start + skip, header.nlmsg_len - skip);
    }

    class Iterator {
      public:
        Iterator(const uint8_t* data, size_t size) : data_(data), size_(size) { settle(); }
        Attribute operator*() const;
        Iterator& operator++();
        bool operator!=(const Iterator& other) const { return size_ != other.size_; }

      private:
        void settle();
        const uint8_t* data_;
        size_t size_;
    };
    Iterator begin() const { return Iterator(data_, size_); }
    Iterator end() const { return Iterator(data_, 0); }
    std::optional<Attribute> find(uint16_t type) const;

  private:
    const uint8_t* data_;
    size_t size_;
};

/** The fixed part of a message, or nullptr when the message is too short for it. */
template <class T> const T* fixedPart(const nlmsghdr& header) {
    if (header.nlmsg_len < NLMSG_LENGTH(sizeof(T))) return nullptr;
    return reinterpret_cast<const T*>(NLMSG_DATA(&header));
}

/** Answers of one request go through this; the header stays valid during the call. */
using MessageHandler = std::function<void(const nlmsghdr&)>;

/** A netlink socket inside a netns, for requests and dumps. Made per call, never shared. */
class NetlinkSocket {
  public:
    NetlinkSocket(int netns, int protocol);

    /** Sends a request and waits for its acknowledgement. @throws Fault with the ext-ACK text. */
    void request(Message& message, const std::string& what, const MessageHandler& answer = {});

    /**
     * Sends a transaction and waits for its acknowledgement, which one of the messages asks for:
     * more would fill the queue. @throws Fault for the first that failed, or for all of it.
     */
    void batch(std::vector<Message>& messages, const std::string& what);

    /**
     * Collects a dump; starts over when the kernel says that the table changed under it
     * (NLM_F_DUMP_INTR), because such a dump may lack entries.
     */
    template <class T>
    std::vector<T> dump(Message& message, const std::string& what,
                        const std::function<void(const nlmsghdr&, std::vector<T>&)>& parse) {
        std::vector<T> result;
        for (int attempt = 0; attempt < kDumpAttempts; attempt++) {
            result.clear();
            if (exchange(message, what, [&](const nlmsghdr& header) { parse(header, result); })) {
                return result;
            }
        }
        tooManyInterruptions(what);
    }

    /** Whether the last dump came in more than one part, between which the table may have changed.
     */
    bool inParts() const { return parts_ > 1; }

  private:
    static constexpr int kDumpAttempts = 10;

    void send(const std::vector<uint8_t>& bytes, const std::string& what);
    /** False when the dump was interrupted. */
    bool exchange(Message& message, const std::string& what, const MessageHandler& answer);
    bool answers(const std::string& what, const MessageHandler& answer);
    size_t receive(const std::string& what);
    [[noreturn]] static void tooManyInterruptions(const std::string& what);

    UniqueFd fd_;
    uint32_t sequence_ = 0;
    uint32_t parts_ = 0;
    std::vector<uint8_t> buffer_;
};

} // namespace ambient
