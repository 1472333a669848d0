// SPDX-License-Identifier: Apache-2.0
// A legacy table is one blob of entries: for each built-in chain its rules and, last, its policy;
// for each other chain an ERROR entry with its name, its rules and a RETURN; at the end an ERROR
// entry of no chain. Jumps are offsets into the blob, which any other rule may shift.
#include "xtables_reader.h"

#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>
// The order matters: the kernel's headers use what the ones above define.
#include <linux/netfilter_ipv4/ip_tables.h>
#include <linux/netfilter_ipv6/ip6_tables.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <map>

#include "digest.h"
#include "fault.h"
#include "netns_scope.h"
#include "unique_fd.h"

namespace ambient {

namespace {

/** Rounds of reading while the table's size keeps changing. */
constexpr int kAttempts = 10;

struct Ipv4 {
    using Entry = ipt_entry;
    using Info = ipt_getinfo;
    using Get = ipt_get_entries;
    static constexpr int family = AF_INET, level = IPPROTO_IP;
    static constexpr int getInfo = IPT_SO_GET_INFO, getEntries = IPT_SO_GET_ENTRIES;
    static constexpr const char* names = "/proc/thread-self/net/ip_tables_names";
    static const void* header(const Entry& entry) { return &entry.ip; }
    static constexpr size_t headerSize = sizeof(ipt_ip);
};

struct Ipv6 {
    using Entry = ip6t_entry;
    using Info = ip6t_getinfo;
    using Get = ip6t_get_entries;
    static constexpr int family = AF_INET6, level = IPPROTO_IPV6;
    static constexpr int getInfo = IP6T_SO_GET_INFO, getEntries = IP6T_SO_GET_ENTRIES;
    static constexpr const char* names = "/proc/thread-self/net/ip6_tables_names";
    static const void* header(const Entry& entry) { return &entry.ipv6; }
    static constexpr size_t headerSize = sizeof(ip6t_ip6);
};

constexpr const char* kHooks[NF_INET_NUMHOOKS] = {"PREROUTING", "INPUT", "FORWARD", "OUTPUT",
                                                  "POSTROUTING"};

template <class T> T at(const std::vector<uint8_t>& blob, size_t offset) {
    if (offset > blob.size() || blob.size() - offset < sizeof(T)) {
        fail(EPROTO, "getsockopt", "read iptables", "an entry reaches past the table");
    }
    T value;
    std::memcpy(&value, blob.data() + offset, sizeof(T));
    return value;
}

std::string textOf(const char* text, size_t max) {
    return std::string(text, ::strnlen(text, max));
}

/** A match or a target: what it is called, and its data. */
struct Extension {
    std::string name;
    uint8_t revision;
    size_t data, end;
};

/** Matches and targets begin alike: size, name, revision. */
Extension extensionAt(const std::vector<uint8_t>& blob, size_t offset, size_t limit) {
    const auto head = at<xt_entry_match>(blob, offset);
    const size_t size = head.u.user.match_size;
    if (size < sizeof(xt_entry_match) || offset + size > limit) {
        fail(EPROTO, "getsockopt", "read iptables", "a match or target reaches past its rule");
    }
    return {textOf(head.u.user.name, sizeof(head.u.user.name)), head.u.user.revision,
            offset + sizeof(xt_entry_match), offset + size};
}

template <class Family> class TableReader {
  public:
    TableReader(std::vector<uint8_t> blob, const typename Family::Info& info)
        : blob_(std::move(blob)), info_(info) {}

    XtTable read(const std::string& name) {
        locate();
        XtTable table;
        table.name = name;
        for (size_t i = 0; i < chains_.size(); i++) {
            readChain(chains_[i], table);
        }
        return table;
    }

  private:
    /** Entries `first` (inclusive) to `last` (exclusive), which is the policy or the RETURN. */
    struct Span {
        std::string name;
        size_t first, last;
        bool builtIn;
    };

    typename Family::Entry entryAt(size_t offset) const {
        auto entry = at<typename Family::Entry>(blob_, offset);
        if (entry.target_offset < sizeof(entry) || entry.next_offset < entry.target_offset ||
            entry.next_offset > blob_.size() - offset) {
            fail(EPROTO, "getsockopt", "read iptables", "a rule has impossible offsets");
        }
        return entry;
    }

    void locate() {
        for (unsigned hook = 0; hook < NF_INET_NUMHOOKS; hook++) {
            if ((info_.valid_hooks & (1U << hook)) == 0) continue;
            chains_.push_back({kHooks[hook], info_.hook_entry[hook], info_.underflow[hook], true});
        }
        size_t previous = 0;
        Span* open = nullptr;
        std::vector<Span> others;
        for (size_t offset = 0; offset < blob_.size();) {
            const auto entry = entryAt(offset);
            const size_t limit = offset + entry.next_offset;
            const Extension target = extensionAt(blob_, offset + entry.target_offset, limit);
            if (target.name == XT_ERROR_TARGET) {
                if (open != nullptr) open->last = previous;
                const size_t size =
                    std::min<size_t>(target.end - target.data, XT_FUNCTION_MAXNAMELEN);
                const auto* text = reinterpret_cast<const char*>(blob_.data() + target.data);
                others.push_back({textOf(text, size), limit, limit, false});
                byOffset_[limit] = others.back().name;
                open = &others.back();
            }
            previous = offset;
            offset = limit;
        }
        // The last one only ends the table.
        if (!others.empty()) others.pop_back();
        chains_.insert(chains_.end(), others.begin(), others.end());
    }

    void readChain(const Span& span, XtTable& table) const {
        table.chains.push_back({span.name, span.builtIn ? policy(span.last) : ""});
        for (size_t offset = span.first; offset < span.last;) {
            const auto entry = entryAt(offset);
            table.rules.push_back(readRule(span.name, offset, entry));
            offset += entry.next_offset;
        }
    }

    std::string policy(size_t offset) const {
        const auto entry = entryAt(offset);
        const auto target = at<xt_standard_target>(blob_, offset + entry.target_offset);
        return target.verdict == -NF_DROP - 1 ? "drop" : "accept";
    }

    XtRule readRule(const std::string& chain, size_t offset,
                    const typename Family::Entry& entry) const {
        XtRule rule;
        rule.chain = chain;
        Digest digest;
        digest.add(chain);
        digest.add(Family::header(entry), Family::headerSize);
        const size_t limit = offset + entry.next_offset;
        const size_t targetAt = offset + entry.target_offset;
        for (size_t match = offset + sizeof(entry); match < targetAt;) {
            const Extension extension = extensionAt(blob_, match, targetAt);
            add(digest, extension);
            if (extension.name == "comment") {
                rule.comment = textOf(reinterpret_cast<const char*>(blob_.data() + extension.data),
                                      extension.end - extension.data);
            }
            match = extension.end;
        }
        const Extension target = extensionAt(blob_, targetAt, limit);
        if (!target.name.empty()) {
            add(digest, target);
        } else {
            const int verdict = at<xt_standard_target>(blob_, targetAt).verdict;
            if (verdict < 0) {
                digest.add(&verdict, sizeof(verdict));
            } else if (static_cast<size_t>(verdict) != limit) {
                const auto found = byOffset_.find(static_cast<size_t>(verdict));
                if (found != byOffset_.end()) rule.jump = found->second;
                digest.add("jump " + rule.jump);
            }
        }
        rule.digest = digest.value();
        rule.packets = entry.counters.pcnt;
        return rule;
    }

    /** Kernels since 4.11 keep pointers of theirs out of what they show. */
    void add(Digest& digest, const Extension& extension) const {
        digest.add(extension.name);
        digest.add(&extension.revision, sizeof(extension.revision));
        digest.add(std::string(reinterpret_cast<const char*>(blob_.data() + extension.data),
                               extension.end - extension.data));
    }

    std::vector<uint8_t> blob_;
    const typename Family::Info& info_;
    std::vector<Span> chains_;
    std::map<size_t, std::string> byOffset_;
};

/** Names of the tables that exist; none on a kernel without ip_tables. */
std::vector<std::string> tableNames(const char* path) {
    UniqueFd fd(::open(path, O_RDONLY | O_CLOEXEC));
    if (!fd) {
        if (errno == ENOENT) return {};
        fail(errno, "open", "list iptables tables");
    }
    char text[1024];
    const ssize_t size = ::read(fd.get(), text, sizeof(text));
    if (size < 0) fail(errno, "read", "list iptables tables");
    std::vector<std::string> names;
    for (const char *from = text, *end = text + size; from < end;) {
        const char* to = std::find(from, end, '\n');
        if (to > from) names.emplace_back(from, to);
        from = to + 1;
    }
    std::sort(names.begin(), names.end());
    return names;
}

template <class Family> XtTable readTable(int socket, const std::string& name) {
    const std::string what = "read iptables table " + name;
    for (int attempt = 0; attempt < kAttempts; attempt++) {
        typename Family::Info info = {};
        if (name.size() >= sizeof(info.name)) fail(EINVAL, "getsockopt", what);
        std::memcpy(info.name, name.c_str(), name.size() + 1);
        socklen_t size = sizeof(info);
        if (::getsockopt(socket, Family::level, Family::getInfo, &info, &size) != 0) {
            fail(errno, "getsockopt", what);
        }
        std::vector<uint8_t> answer(offsetof(typename Family::Get, entrytable) + info.size);
        typename Family::Get request = {};
        std::memcpy(request.name, name.c_str(), name.size() + 1);
        request.size = info.size;
        std::memcpy(answer.data(), &request, offsetof(typename Family::Get, entrytable));
        size = static_cast<socklen_t>(answer.size());
        if (::getsockopt(socket, Family::level, Family::getEntries, answer.data(), &size) == 0) {
            answer.erase(answer.begin(),
                         answer.begin() + offsetof(typename Family::Get, entrytable));
            return TableReader<Family>(std::move(answer), info).read(name);
        }
        // It was replaced by a table of another size since.
        if (errno != EAGAIN) fail(errno, "getsockopt", what);
    }
    fail(EAGAIN, "getsockopt", what, "it changed during every attempt to read it");
}

template <class Family> std::vector<XtTable> readAll(int netns) {
    std::vector<std::string> names;
    UniqueFd socket;
    {
        NetnsScope scope(netns);
        names = tableNames(Family::names);
        if (names.empty()) return {};
        socket.reset(::socket(Family::family, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW));
        if (!socket) fail(errno, "socket", "read iptables");
    }
    std::vector<XtTable> tables;
    for (const std::string& name : names) {
        tables.push_back(readTable<Family>(socket.get(), name));
    }
    return tables;
}

} // namespace

std::vector<XtTable> readXtables(int netns, int family) {
    return family == AF_INET ? readAll<Ipv4>(netns) : readAll<Ipv6>(netns);
}

} // namespace ambient
