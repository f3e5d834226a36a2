/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Packet headers, and bounded access to them.
 *
 * On netkit a packet begins with 14 bytes of Ethernet header in l3 mode too (its addresses are zero there), so that
 * NK_ETH_HLEN is the same in both modes. On a device without Ethernet headers (tun, WireGuard, IP tunnels) it is 0.
 */
#ifndef NKFORM_PACKET_H
#define NKFORM_PACKET_H

#include "nkform.h"

#ifndef NK_ETH_HLEN
#define NK_ETH_HLEN 14
#endif

/* What follows the Ethernet header (IEEE 802 numbers). */
#define NK_ETH_IPV4 nk_be16(0x0800)
#define NK_ETH_ARP nk_be16(0x0806)
#define NK_ETH_IPV6 nk_be16(0x86dd)
#define NK_ETH_VLAN nk_be16(0x8100)
#define NK_ETH_SERVICE_VLAN nk_be16(0x88a8)
#define NK_ETH_OLD_SERVICE_VLAN nk_be16(0x9100)

/* What follows an IP header (IANA protocol numbers). */
#define NK_IP_HOP_BY_HOP 0
#define NK_IP_TCP 6
#define NK_IP_UDP 17
#define NK_IP_ICMPV6 58

struct nk_eth {
	struct nk_mac destination;
	struct nk_mac source;
	__be16 protocol;
};

/*
 * The verifier takes a packet to begin 2 bytes behind a multiple of 8 (NET_IP_ALIGN), so that an IP header is aligned if
 * an Ethernet header is before it. Without one it is aligned to 2 bytes, and kernels that were built without
 * HAVE_EFFICIENT_UNALIGNED_ACCESS refuse programs that read more than that at once.
 */
#if NK_ETH_HLEN
#define NK_IP_HEADER
#else
#define NK_IP_HEADER __attribute__((packed, aligned(2)))
#endif

/* RFC 826, for IPv4 over Ethernet. Its addresses are aligned to two bytes only. */
struct nk_arp {
	__be16 hardware;
	__be16 protocol;
	__u8 hardware_size;
	__u8 protocol_size;
	__be16 operation;
	struct nk_mac sender_mac;
	__be32 sender_ip;
	struct nk_mac target_mac;
	__be32 target_ip;
} __attribute__((packed, aligned(2)));

#define NK_ARP_ETHERNET nk_be16(1)
#define NK_ARP_REQUEST nk_be16(1)
#define NK_ARP_REPLY nk_be16(2)

/* RFC 791 */
struct nk_ipv4 {
	__u8 version_length; /* version in the upper half, header length in words of 4 bytes in the lower */
	__u8 tos;
	__be16 total_length;
	__be16 id;
	__be16 fragment;
	__u8 ttl;
	__u8 protocol;
	__be16 checksum;
	__be32 source;
	__be32 destination;
} NK_IP_HEADER;

#define NK_IPV4_PLAIN 0x45 /* version 4, no options */
#define NK_IPV4_FRAGMENT nk_be16(0x3fff) /* more fragments, or an offset */

/* RFC 8200 */
struct nk_ipv6 {
	__u8 version; /* in the upper half */
	__u8 flow[3];
	__be16 payload_length;
	__u8 next_header;
	__u8 hop_limit;
	__be64 source[2];
	__be64 destination[2];
} NK_IP_HEADER;

struct nk_udp {
	__be16 source;
	__be16 destination;
	__be16 length;
	__be16 checksum;
};

/*
 * One of the two ends of the packet's memory. The field is declared with 32 bits and the kernel makes a pointer of it;
 * a compiler that knows of 32 bits may cut the pointer, so it is not told. That of bcc is not let have any assembly.
 */
#ifdef NK_BCC
#define nk_packet(skb, field) ((void *)(unsigned long)(skb)->field)
#else
#define nk_packet(skb, field)                                                                                \
	({                                                                                                    \
		void *nk_pointer;                                                                             \
		asm volatile("%0 = *(u32 *)(%1 + %2)"                                                         \
			     : "=r"(nk_pointer)                                                               \
			     : "r"(skb), "i"(__builtin_offsetof(struct __sk_buff, field)));                   \
		nk_pointer;                                                                                   \
	})
#endif

/* SIZE bytes at OFFSET, or NULL where the packet, as far as it lies in one piece, is shorter. */
NK_INLINE void *nk_at(struct __sk_buff *skb, __u32 offset, __u32 size)
{
	void *data = nk_packet(skb, data);
	void *end = nk_packet(skb, data_end);

	return data + offset + size > end ? NULL : data + offset;
}

/*
 * Sees to it that so many bytes from the beginning lie in one piece, if the packet has as many. Pointers into the packet
 * that were got before are void afterwards.
 */
NK_INLINE void nk_gather(struct __sk_buff *skb, __u32 bytes)
{
	if (!nk_at(skb, 0, bytes))
		bpf_skb_pull_data(skb, bytes);
}

NK_INLINE int nk_same_mac(struct nk_mac one, __be16 a, __be16 b, __be16 c)
{
	return one.a == a && one.b == b && one.c == c;
}

#endif
