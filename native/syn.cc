// SPDX-License-Identifier: Apache-2.0
// A SYN as a remote would send it: what capture does with it is seen without a remote to send it.
#include "syn.h"

#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <vector>

#include "address.h"
#include "args.h"
#include "fault.h"
#include "netns_scope.h"

namespace ambient {

namespace {

constexpr uint8_t kTtl = 64;
constexpr uint16_t kWindow = 64240;
constexpr uint32_t kSequence = 0x0a3b1e47;

/** One's-complement sum of RFC 1071, over what is added. */
class Checksum {
  public:
    void add(const void* data, size_t size) {
        const auto* bytes = static_cast<const uint8_t*>(data);
        for (size_t i = 0; i < size; i++)
            sum_ += static_cast<uint32_t>(bytes[i]) << (i % 2 == 0 ? 8 : 0);
    }
    uint16_t value() const {
        uint32_t sum = sum_;
        while (sum >> 16 != 0)
            sum = (sum & 0xffff) + (sum >> 16);
        return htons(static_cast<uint16_t>(~sum));
    }

  private:
    uint32_t sum_ = 0;
};

class Frame {
  public:
    template <class T> void put(const T& part) {
        const auto* bytes = reinterpret_cast<const uint8_t*>(&part);
        bytes_.insert(bytes_.end(), bytes, bytes + sizeof(part));
    }
    const std::vector<uint8_t>& bytes() const { return bytes_; }

  private:
    std::vector<uint8_t> bytes_;
};

void putMac(uint8_t* to, const std::string& text, const char* name) {
    unsigned part[ETH_ALEN];
    char rest = 0;
    if (std::sscanf(text.c_str(), "%2x:%2x:%2x:%2x:%2x:%2x%c", &part[0], &part[1], &part[2],
                    &part[3], &part[4], &part[5], &rest) != ETH_ALEN)
        fail(EINVAL, "sendto", std::string("read ") + name, text);
    for (size_t i = 0; i < ETH_ALEN; i++)
        to[i] = static_cast<uint8_t>(part[i]);
}

tcphdr synHeader(uint16_t srcPort, uint16_t dstPort, const IpBytes& src, const IpBytes& dst) {
    tcphdr tcp = {};
    tcp.source = htons(srcPort);
    tcp.dest = htons(dstPort);
    tcp.seq = htonl(kSequence);
    tcp.doff = sizeof(tcp) / 4;
    tcp.syn = 1;
    tcp.window = htons(kWindow);
    // The pseudo-header of RFC 9293 3.1 and RFC 8200 8.1: addresses, protocol, length.
    Checksum checksum;
    checksum.add(src.bytes, src.size);
    checksum.add(dst.bytes, dst.size);
    const uint16_t rest[] = {htons(IPPROTO_TCP), htons(sizeof(tcp))};
    checksum.add(rest, sizeof(rest));
    checksum.add(&tcp, sizeof(tcp));
    tcp.check = checksum.value();
    return tcp;
}

void putIp4(Frame& frame, const IpBytes& src, const IpBytes& dst) {
    iphdr ip = {};
    ip.version = 4;
    ip.ihl = sizeof(ip) / 4;
    ip.tot_len = htons(sizeof(ip) + sizeof(tcphdr));
    ip.frag_off = htons(IP_DF);
    ip.ttl = kTtl;
    ip.protocol = IPPROTO_TCP;
    std::memcpy(&ip.saddr, src.bytes, src.size);
    std::memcpy(&ip.daddr, dst.bytes, dst.size);
    Checksum checksum;
    checksum.add(&ip, sizeof(ip));
    ip.check = checksum.value();
    frame.put(ip);
}

void putIp6(Frame& frame, const IpBytes& src, const IpBytes& dst) {
    ip6_hdr ip = {};
    ip.ip6_flow = htonl(6U << 28);
    ip.ip6_plen = htons(sizeof(tcphdr));
    ip.ip6_nxt = IPPROTO_TCP;
    ip.ip6_hlim = kTtl;
    std::memcpy(&ip.ip6_src, src.bytes, src.size);
    std::memcpy(&ip.ip6_dst, dst.bytes, dst.size);
    frame.put(ip);
}

} // namespace

Napi::Value synSocket(const Napi::CallbackInfo& info) {
    const int netns = Args(info).netns(0);
    UniqueFd fd;
    {
        NetnsScope scope(netns);
        // Protocol 0: it receives nothing.
        fd.reset(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
    }
    if (!fd) fail(errno, "socket", "open a packet socket");
    // Past the interface's own filters: it is to arrive whatever another tool would do with a
    // stranger.
    const int one = 1;
    if (::setsockopt(fd.get(), SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof(one)) != 0)
        fail(errno, "setsockopt", "send past the queue of an interface");
    return Napi::Number::New(info.Env(), fd.release());
}

Napi::Value synSend(const Napi::CallbackInfo& info) {
    Args args(info);
    const int socket = args.fd(0, "socket");
    const Fields syn = args.object(1, "syn");
    const int family = syn.family("family");
    const IpBytes src = parseIp(family, syn.string("src"));
    const IpBytes dst = parseIp(family, syn.string("dst"));

    ether_header ethernet = {};
    putMac(ethernet.ether_shost, syn.string("srcMac"), "srcMac");
    putMac(ethernet.ether_dhost, syn.string("dstMac"), "dstMac");
    ethernet.ether_type = htons(family == AF_INET ? ETHERTYPE_IP : ETHERTYPE_IPV6);
    Frame frame;
    frame.put(ethernet);
    if (family == AF_INET) {
        putIp4(frame, src, dst);
    } else {
        putIp6(frame, src, dst);
    }
    frame.put(synHeader(static_cast<uint16_t>(syn.number("srcPort", UINT16_MAX)),
                        static_cast<uint16_t>(syn.number("dstPort", UINT16_MAX)), src, dst));

    sockaddr_ll to = {};
    to.sll_family = AF_PACKET;
    to.sll_ifindex = static_cast<int>(syn.number("ifindex", INT32_MAX));
    to.sll_halen = ETH_ALEN;
    std::memcpy(to.sll_addr, ethernet.ether_dhost, ETH_ALEN);
    const auto& bytes = frame.bytes();
    if (::sendto(socket, bytes.data(), bytes.size(), 0, reinterpret_cast<const sockaddr*>(&to),
                 sizeof(to)) < 0)
        fail(errno, "sendto", "send a SYN out of interface " + std::to_string(to.sll_ifindex));
    return info.Env().Undefined();
}

} // namespace ambient
