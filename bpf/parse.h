/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * A packet as far as its TCP header, through IPv4 options and IPv6 extension headers. It is read from the
 * frame itself: skb->protocol is what a sender on AF_PACKET claims.
 */
#ifndef AMBIENT_PARSE_H
#define AMBIENT_PARSE_H

#include "address.h"

#define ETH_HEADER 14
#define ETH_TYPE_OFFSET 12
#define ETH_IPV4 0x0800
#define ETH_IPV6 0x86dd
#define ETH_VLAN 0x8100
#define ETH_QINQ 0x88a8
#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_ACK 0x10
#define TCP_HEADER 20
/* Longest TCP header: a fragment that begins within it could change what was read of the first one. */
#define TCP_HEADER_MAX 60
#define MAX_TAGS 2
#define MAX_EXTENSIONS 8

enum parsed {
	NOT_IP,
	/* IP, but no TCP; addresses and protocol are known. */
	NOT_TCP,
	TCP,
	/* A part of a TCP segment without its header. */
	LATER_FRAGMENT,
	/* Too short, or tagged, or with more headers than anybody sends. */
	UNPARSED,
};

struct packet {
	struct ambient_address source;
	struct ambient_address destination;
	/* Offsets from the beginning of the frame. */
	__u32 network;
	__u32 transport;
	/* Network order. */
	__u16 source_port;
	__u16 destination_port;
	__u32 fragment_id;
	__u8 protocol;
	__u8 tcp_flags;
	bool ipv4;
	bool first_fragment;
};

static __always_inline bool is_syn(const struct packet *p)
{
	return (p->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

static __always_inline __u32 source_offset(const struct packet *p)
{
	return p->network + (p->ipv4 ? 12 : 8);
}

static __always_inline __u32 destination_offset(const struct packet *p)
{
	return p->network + (p->ipv4 ? 16 : 24);
}

struct ipv4_header {
	__u8 version_length;
	__u8 tos;
	__u16 total;
	__u16 id;
	__u16 fragment;
	__u8 ttl;
	__u8 protocol;
	__u16 checksum;
	__u32 source;
	__u32 destination;
};

struct ipv6_header {
	__u32 version;
	__u16 payload;
	__u8 next;
	__u8 hops;
	struct ambient_address source;
	struct ambient_address destination;
};

struct tcp_start {
	__u16 source;
	__u16 destination;
	__u32 sequence;
	__u32 acknowledged;
	__u8 offset;
	__u8 flags;
};

static __always_inline enum parsed parse_tcp(struct __sk_buff *skb, struct packet *p)
{
	struct tcp_start tcp;

	if (bpf_skb_load_bytes(skb, p->transport, &tcp, sizeof(tcp)))
		return UNPARSED;
	p->source_port = tcp.source;
	p->destination_port = tcp.destination;
	p->tcp_flags = tcp.flags;
	return TCP;
}

static __always_inline enum parsed parse_ipv4(struct __sk_buff *skb, struct packet *p)
{
	struct ipv4_header ip;
	__u16 fragment;

	if (bpf_skb_load_bytes(skb, p->network, &ip, sizeof(ip)) || ip.version_length >> 4 != 4 ||
	    (ip.version_length & 15) < 5)
		return UNPARSED;
	p->ipv4 = true;
	p->source = mapped(ip.source);
	p->destination = mapped(ip.destination);
	p->protocol = ip.protocol;
	p->fragment_id = ip.id;
	p->transport = p->network + (ip.version_length & 15) * 4;
	if (p->protocol != IPPROTO_TCP)
		return NOT_TCP;
	fragment = bpf_ntohs(ip.fragment);
	if (fragment & 0x1fff)
		return (fragment & 0x1fff) * 8 < TCP_HEADER_MAX ? UNPARSED : LATER_FRAGMENT;
	p->first_fragment = fragment & 0x2000;
	return parse_tcp(skb, p);
}

/* Hop-by-hop, routing, fragment, AH, destination options, mobility, HIP, shim6. */
static __always_inline bool is_extension(__u8 next)
{
	return next == 0 || next == 43 || next == 44 || next == 51 || next == 60 || next == 135 ||
	       next == 139 || next == 140;
}

static __always_inline enum parsed parse_ipv6(struct __sk_buff *skb, struct packet *p)
{
	struct ipv6_header ip;
	__u16 offset = 0;
	__u8 next;

	if (bpf_skb_load_bytes(skb, p->network, &ip, sizeof(ip)) || (bpf_ntohl(ip.version) >> 28) != 6)
		return UNPARSED;
	p->ipv4 = false;
	p->source = ip.source;
	p->destination = ip.destination;
	p->transport = p->network + sizeof(ip);
	next = ip.next;
	for (int i = 0; i < MAX_EXTENSIONS; i++) {
		struct {
			__u8 next;
			__u8 length;
			__u16 fragment;
			__u32 id;
		} extension;

		if (!is_extension(next)) {
			p->protocol = next;
			if (next != IPPROTO_TCP)
				return NOT_TCP;
			if (offset)
				return offset < TCP_HEADER_MAX ? UNPARSED : LATER_FRAGMENT;
			return parse_tcp(skb, p);
		}
		if (bpf_skb_load_bytes(skb, p->transport, &extension, sizeof(extension)))
			return UNPARSED;
		if (next == 44) {
			p->fragment_id = extension.id;
			p->first_fragment = bpf_ntohs(extension.fragment) & 1;
			offset = bpf_ntohs(extension.fragment) & 0xfff8;
			p->transport += 8;
			/* What follows in a later fragment is data, whatever the header before it was. */
			if (offset && is_extension(extension.next))
				return UNPARSED;
		} else {
			p->transport += next == 51 ? (extension.length + 2) * 4 : (extension.length + 1) * 8;
		}
		next = extension.next;
	}
	return UNPARSED;
}

/* `ethernet`: a constant, so that each program holds one of the two ways. */
static __always_inline enum parsed parse(struct __sk_buff *skb, bool ethernet, bool tags, struct packet *p)
{
	__u16 type = 0;
	__u8 version;

	p->network = 0;
	if (ethernet) {
		p->network = ETH_HEADER;
		if (bpf_skb_load_bytes(skb, ETH_TYPE_OFFSET, &type, sizeof(type)))
			return UNPARSED;
		for (int i = 0; i < MAX_TAGS; i++) {
			if (type != bpf_htons(ETH_VLAN) && type != bpf_htons(ETH_QINQ))
				break;
			if (!tags || bpf_skb_load_bytes(skb, p->network + 2, &type, sizeof(type)))
				return UNPARSED;
			p->network += 4;
		}
		if (type == bpf_htons(ETH_VLAN) || type == bpf_htons(ETH_QINQ))
			return UNPARSED;
		if (type == bpf_htons(ETH_IPV4))
			return parse_ipv4(skb, p);
		return type == bpf_htons(ETH_IPV6) ? parse_ipv6(skb, p) : NOT_IP;
	}
	if (bpf_skb_load_bytes(skb, 0, &version, sizeof(version)))
		return UNPARSED;
	if (version >> 4 == 4)
		return parse_ipv4(skb, p);
	return version >> 4 == 6 ? parse_ipv6(skb, p) : NOT_IP;
}

#endif
