/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * What every program stands on: types, the packet's context, helpers of the kernel, verdicts.
 *
 * It takes no header of the system, so that a program compiles alike on every machine. With the bcc engine (NK_BCC is
 * defined) types, context and helpers come from bcc itself.
 */
#ifndef NKFORM_H
#define NKFORM_H

#ifndef NK_BCC

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef signed char __s8;
typedef short __s16;
typedef int __s32;
typedef long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u64 __be64;

#define NULL ((void *)0)

/* The kernel's view of a packet for programs (include/uapi/linux/bpf.h); the kernel rewrites each access. */
struct __sk_buff {
	__u32 len;
	__u32 pkt_type;
	__u32 mark;
	__u32 queue_mapping;
	__u32 protocol;
	__u32 vlan_present;
	__u32 vlan_tci;
	__u32 vlan_proto;
	__u32 priority;
	__u32 ingress_ifindex;
	__u32 ifindex;
	__u32 tc_index;
	__u32 cb[5];
	__u32 hash;
	__u32 tc_classid;
	__u32 data;
	__u32 data_end;
	__u32 napi_id;
	__u32 family;
	__u32 remote_ip4;
	__u32 local_ip4;
	__u32 remote_ip6[4];
	__u32 local_ip6[4];
	__u32 remote_port;
	__u32 local_port;
	__u32 data_meta;
	__u64 flow_keys;
	__u64 tstamp;
	__u32 wire_len;
	__u32 gso_segs;
	__u64 sk;
	__u32 gso_size;
};

/* Kinds of maps (enum bpf_map_type). */
enum {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_HASH = 5,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_LRU_PERCPU_HASH = 10,
	BPF_MAP_TYPE_LPM_TRIE = 11,
};

#define BPF_ANY 0

/* Helpers, by their numbers (enum bpf_func_id). */
static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_map_update_elem)(void *map, const void *key, const void *value, __u64 flags) = (void *)2;
static long (*bpf_map_delete_elem)(void *map, const void *key) = (void *)3;
static __u64 (*bpf_ktime_get_ns)(void) = (void *)5;
static __u32 (*bpf_get_prandom_u32)(void) = (void *)7;
static long (*bpf_skb_store_bytes)(struct __sk_buff *skb, __u32 offset, const void *from, __u32 len, __u64 flags) =
	(void *)9;
static long (*bpf_redirect)(__u32 ifindex, __u64 flags) = (void *)23;
static long (*bpf_skb_load_bytes)(const struct __sk_buff *skb, __u32 offset, void *to, __u32 len) = (void *)26;
static long (*bpf_skb_pull_data)(struct __sk_buff *skb, __u32 len) = (void *)39;
static long (*bpf_redirect_peer)(__u32 ifindex, __u64 flags) = (void *)155;

/* How a map is told to the loader: by the types of a structure that is never filled (libbpf's BTF-defined maps). */
#define __uint(name, value) int(*name)[value]
#define __type(name, value) typeof(value) *name

#endif /* NK_BCC */

/* bcc declares this helper without its last arguments; so it has a name of ours. */
static long (*nk_redirect_neigh)(__u32 ifindex, void *params, int size, __u64 flags) = (void *)152;

#define NK_INLINE static inline __attribute__((always_inline))

/*
 * Verdicts of a program, the same on netkit, tcx and clsact. A program that has no opinion says NK_NEXT; NK_PASS ends
 * the chain.
 */
enum nk_verdict {
	NK_NEXT = -1,
	NK_PASS = 0,
	NK_DROP = 2,
	NK_REDIRECT = 7,
};

/*
 * Ends the chain and lets the packet go on. The kernel takes tc_classid over into the packet's tc_index then, and what
 * stands there at that moment is whatever the layer before has left in the packet's control block.
 */
NK_INLINE int nk_pass(struct __sk_buff *skb)
{
	skb->tc_classid = 0;
	return NK_PASS;
}

/* Numbers in network byte order; constants are turned by the compiler. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define nk_be16(x) __builtin_bswap16(x)
#define nk_be32(x) __builtin_bswap32(x)
#define nk_be64(x) __builtin_bswap64(x)
#else
#define nk_be16(x) ((__be16)(x))
#define nk_be32(x) ((__be32)(x))
#define nk_be64(x) ((__be64)(x))
#endif

/* Values that a program is given; all in network byte order, as they stand in packets. */
struct nk_ipv4_address {
	__be32 address;
};

struct nk_ipv4_prefix {
	__be32 address;
	__be32 mask;
};

struct nk_ipv6_address {
	__be64 high;
	__be64 low;
};

struct nk_ipv6_prefix {
	__be64 high;
	__be64 low;
	__be64 mask_high;
	__be64 mask_low;
};

/* Keys of tries: what is looked up has the length of a whole address. The trie wants the two next to each other. */
struct nk_ipv4_lpm {
	__u32 length;
	__be32 address;
};

struct nk_ipv6_lpm {
	__u32 length;
	__be64 high;
	__be64 low;
} __attribute__((packed, aligned(4)));

/* A MAC address in three parts: Ethernet headers are only aligned to two bytes. */
struct nk_mac {
	__be16 a;
	__be16 b;
	__be16 c;
};

#endif
