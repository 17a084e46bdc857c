/* Carries segments of established TCP connections from one device to another, past the gateway's own.
 *
 * Which connections, and what their packets become, is in two maps that the gateway fills; the program decides nothing.
 * It carries a packet only if the gateway would do no more than translate it and send it on, and counts it as the
 * gateway would. Everything else goes on unchanged, to the gateway's device: SYN, FIN and RST, fragments, options and
 * extension headers, packets that are too long for the way on or about to use up their hops, and segments whose numbers
 * are far from the connection's.
 *
 * All of it is decided before the first byte is written: a packet that is half translated could not go on.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* The gateway's bits of the mark; the same numbers are in marks.bpf.c. */
#define MARKS 0x30000000

/* Let the packet go on to the programs behind this one (TCX_NEXT), or drop it (TCX_DROP). */
#define NEXT (-1)
#define DROP 2
/* linux/if_packet.h */
#define PACKET_HOST 0
/* sys/socket.h */
#define AF_INET 2
#define AF_INET6 10

#define ETHERNET 14
#define TCP 6

#define FIN 0x01
#define SYN 0x02
#define RST 0x04
#define ACK 0x10
#define URG 0x20

/* How far from its connection's numbers a segment may lie, and the largest possible window: as in the gateway's tracker
 * (src/flow/tcp.rs). */
#define AHEAD (2u << 20)
#define WINDOW (1u << 30)

/* Through the gateway's device a packet is forwarded twice. */
#define HOPS 2

#define bswap16 __builtin_bswap16
#define bswap32 __builtin_bswap32

/* An IPv6 address, or an IPv4 address mapped into ::ffff:0:0/96, in network byte order. */
struct address {
    __u32 word[4];
};

/* Between which ends a packet travels, in network byte order. */
struct ends {
    struct address source, destination;
    __u16 source_port, destination_port;
};

/* A connection. By side: 0 is the client, 1 the server. The same is in shortcut/cell.rs. */
struct flow {
    struct ends ends[2]; /* Of the packets that each side sends, as they arrive. */
    __u32 next[2];       /* The sequence number after the last one that each side has sent. */
    __u32 acked[2];      /* The last acknowledgement of each side. */
    __u32 mtu[2];        /* The longest packet that each side may send, in bytes. */
    __u64 packets[2], bytes[2];
    __u64 seen; /* When the last packet was carried: CLOCK_MONOTONIC, in nanoseconds. */
    __u64 zero[5];
};

/* Their sizes are set by the gateway. */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct flow);
} flows SEC(".maps");

/* The place of a flow in the array times two, plus the side. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 1);
    __type(key, struct ends);
    __type(value, __u32);
} paths SEC(".maps");

/* The index of the gateway's device. */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u32);
} device SEC(".maps");

struct v4 {
    __u8 version, service;
    __u16 length, id, offset;
    __u8 hops, protocol;
    __u16 sum;
    __u32 source, destination;
};

struct v6 {
    __u32 first;
    __u16 length;
    __u8 next, hops;
    struct address source, destination;
};

struct tcp {
    __u16 source, destination;
    __u32 seq, ack;
    __u8 offset, flags;
    __u16 window, sum, urgent;
};

/* What is known of a packet. */
struct segment {
    struct ends ends;
    __u32 seq, ack;
    __u32 data;   /* Bytes of data. */
    __u32 header; /* Bytes of both headers. */
    __u32 length; /* Bytes of the IP packet. */
};

/* Reads a TCP header; returns 0 if the segment is like almost all. */
static __always_inline int read_tcp(const struct tcp *tcp, __u32 ip, struct segment *s)
{
    __u32 header = (tcp->offset >> 4) * 4;

    if ((tcp->flags & (FIN | SYN | RST | ACK | URG)) != ACK || header < 20 || ip + header > s->length)
        return -1;
    s->ends.source_port = tcp->source;
    s->ends.destination_port = tcp->destination;
    s->seq = bswap32(tcp->seq);
    s->ack = bswap32(tcp->ack);
    s->header = ip + header;
    s->data = s->length - s->header;
    return 0;
}

static __always_inline int is_same(const struct ends *a, const struct ends *b)
{
    const __u32 *x = (const __u32 *)a, *y = (const __u32 *)b;
    __u32 differ = 0;
    int i;

#pragma unroll
    for (i = 0; i < (int)(sizeof(struct ends) / 4); i++)
        differ |= x[i] ^ y[i];
    return !differ;
}

/* Finds the connection of a segment, if its numbers and size are in order. */
static __always_inline struct flow *find(struct __sk_buff *skb, const struct segment *s, __u32 *side)
{
    const __u32 *path = bpf_map_lookup_elem(&paths, &s->ends);
    struct flow *flow;
    __u32 place, gap, size;

    if (!path)
        return 0;
    place = *path >> 1;
    *side = *path & 1;
    flow = bpf_map_lookup_elem(&flows, &place);
    /* An entry of the map may have become another connection's since it was found. */
    if (!flow || !is_same(&flow->ends[*side], &s->ends))
        return 0;
    gap = s->seq + s->data - flow->next[*side];
    if (gap + AHEAD > 2 * AHEAD)
        return 0;
    size = skb->gso_size ? s->header + skb->gso_size : s->length;
    return size <= flow->mtu[*side] ? flow : 0;
}

/* Asks for the way on, as for a packet that the gateway writes; returns 0 if there is one that takes the packet. */
static __always_inline int find_way(struct __sk_buff *skb, const struct segment *s, struct bpf_fib_lookup *way)
{
    const __u32 *own;
    __u32 zero = 0, mtu = 0;

    own = bpf_map_lookup_elem(&device, &zero);
    if (!own || !*own)
        return -1;
    way->ifindex = *own;
    way->l4_protocol = TCP;
    /* Not the length of several segments together. */
    way->tot_len = skb->gso_size ? s->header + skb->gso_size : s->length;
    /* No neighbour is no way either: the kernel asks for one, and answers the sender if there is none, only on the slow way. */
    if (bpf_fib_lookup(skb, way, sizeof(*way), 0) || way->ifindex == *own)
        return -1;
    return bpf_check_mtu(skb, way->ifindex, &mtu, 0, BPF_MTU_CHK_SEGS) ? -1 : 0;
}

/* Counts a packet, and learns its numbers, as the tracker does with one that goes on. */
static __always_inline void note(struct __sk_buff *skb, struct flow *flow, const struct segment *s, __u32 side)
{
    __u32 end = s->seq + s->data, size = skb->gso_size, sent;

    if (end - flow->next[side] <= AHEAD)
        flow->next[side] = end;
    sent = flow->next[1 - side] - flow->acked[side];
    if (sent > WINDOW)
        sent = 0;
    if (s->ack - flow->acked[side] <= sent + AHEAD)
        flow->acked[side] = s->ack;
    /* A device of a virtual machine gives no number of segments. */
    __sync_fetch_and_add(&flow->packets[side], size && s->data > size ? (s->data + size - 1) / size : 1);
    __sync_fetch_and_add(&flow->bytes[side], s->length);
    flow->seen = bpf_ktime_get_ns();
}

static __always_inline int send(struct __sk_buff *skb, const struct bpf_fib_lookup *way)
{
    struct bpf_redir_neigh hop = {};

    /* The next hop of an IPv4 route may be an IPv6 address. */
    hop.nh_family = way->family;
    __builtin_memcpy(hop.ipv6_nh, way->ipv6_dst, sizeof(hop.ipv6_nh));
    if (skb->mark & MARKS)
        skb->mark &= ~MARKS;
    return bpf_redirect_neigh(way->ifindex, &hop, sizeof(hop), 0);
}

static __always_inline int carry_v4(struct __sk_buff *skb)
{
    const __u32 least = ETHERNET + sizeof(struct v4) + sizeof(struct tcp);
    const __u32 at_ip = ETHERNET, at_tcp = ETHERNET + sizeof(struct v4);
    const void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
    const struct v4 *ip = data + ETHERNET;
    const struct tcp *tcp = data + ETHERNET + sizeof(*ip);
    struct bpf_fib_lookup way = {};
    struct segment s = {};
    const struct ends *to;
    struct flow *flow;
    __u32 before[3], after[3], side, ports[2];
    __u16 hops[2];
    __s64 sum;

    if (data + least > end)
        return NEXT;
    /* No options, no fragment; a flag that nobody may set is nobody's. */
    if (ip->version != 0x45 || ip->protocol != TCP || bswap16(ip->offset) & ~0x4000 || ip->hops <= HOPS)
        return NEXT;
    s.length = bswap16(ip->length);
    if (s.length + ETHERNET > skb->len || read_tcp(tcp, sizeof(*ip), &s))
        return NEXT;
    s.ends.source.word[2] = s.ends.destination.word[2] = bswap32(0xffff);
    s.ends.source.word[3] = ip->source;
    s.ends.destination.word[3] = ip->destination;
    way.tos = ip->service;
    hops[0] = bswap16(ip->hops << 8 | TCP);
    hops[1] = bswap16((ip->hops - HOPS) << 8 | TCP);
    flow = find(skb, &s, &side);
    if (!flow)
        return NEXT;
    to = &flow->ends[1 - side];
    before[0] = s.ends.source.word[3];
    before[1] = s.ends.destination.word[3];
    before[2] = hops[0];
    after[0] = to->destination.word[3];
    after[1] = to->source.word[3];
    after[2] = hops[1];
    ports[0] = s.ends.destination_port << 16 | s.ends.source_port;
    ports[1] = to->source_port << 16 | to->destination_port;
    way.family = AF_INET;
    way.ipv4_src = after[0];
    way.ipv4_dst = after[1];
    way.sport = to->destination_port;
    way.dport = to->source_port;
    if (find_way(skb, &s, &way))
        return NEXT;
    /* From here on nothing can fail that follows. */
    if (bpf_skb_pull_data(skb, least))
        return NEXT;
    note(skb, flow, &s, side);
    sum = bpf_csum_diff(before, 8, after, 8, 0);
    if (bpf_l4_csum_replace(skb, at_tcp + __builtin_offsetof(struct tcp, sum), 0, sum, BPF_F_PSEUDO_HDR) ||
        bpf_l4_csum_replace(skb, at_tcp + __builtin_offsetof(struct tcp, sum), ports[0], ports[1], 4))
        return DROP;
    sum = bpf_csum_diff(before, sizeof(before), after, sizeof(after), 0);
    if (bpf_l3_csum_replace(skb, at_ip + __builtin_offsetof(struct v4, sum), 0, sum, 0) ||
        bpf_skb_store_bytes(skb, at_ip + __builtin_offsetof(struct v4, hops), &hops[1], 1, 0) ||
        bpf_skb_store_bytes(skb, at_ip + __builtin_offsetof(struct v4, source), after, 8, 0) ||
        bpf_skb_store_bytes(skb, at_tcp, &ports[1], 4, 0))
        return DROP;
    return send(skb, &way);
}

static __always_inline int carry_v6(struct __sk_buff *skb)
{
    const __u32 least = ETHERNET + sizeof(struct v6) + sizeof(struct tcp);
    const __u32 at_ip = ETHERNET, at_tcp = ETHERNET + sizeof(struct v6);
    const void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
    const struct v6 *ip = data + ETHERNET;
    const struct tcp *tcp = data + ETHERNET + sizeof(*ip);
    struct bpf_fib_lookup way = {};
    struct segment s = {};
    struct address after[2];
    const struct ends *to;
    struct flow *flow;
    __u32 side, ports[2];
    __s64 sum;
    __u8 hops;
    long done;

    if (data + least > end)
        return NEXT;
    if ((bswap32(ip->first) >> 28) != 6 || ip->next != TCP || ip->hops <= HOPS)
        return NEXT;
    /* Would be taken for IPv4. */
    if (!(ip->source.word[0] | ip->source.word[1]) && ip->source.word[2] == bswap32(0xffff))
        return NEXT;
    s.length = bswap16(ip->length) + sizeof(*ip);
    if (s.length + ETHERNET > skb->len || read_tcp(tcp, sizeof(*ip), &s))
        return NEXT;
    s.ends.source = ip->source;
    s.ends.destination = ip->destination;
    /* The traffic class and the label. */
    way.flowinfo = ip->first & bswap32(0x0fffffff);
    hops = ip->hops - HOPS;
    flow = find(skb, &s, &side);
    if (!flow)
        return NEXT;
    to = &flow->ends[1 - side];
    after[0] = to->destination;
    after[1] = to->source;
    ports[0] = s.ends.destination_port << 16 | s.ends.source_port;
    ports[1] = to->source_port << 16 | to->destination_port;
    way.family = AF_INET6;
    __builtin_memcpy(way.ipv6_src, &after[0], sizeof(way.ipv6_src));
    __builtin_memcpy(way.ipv6_dst, &after[1], sizeof(way.ipv6_dst));
    way.sport = to->destination_port;
    way.dport = to->source_port;
    if (find_way(skb, &s, &way))
        return NEXT;
    if (bpf_skb_pull_data(skb, least))
        return NEXT;
    note(skb, flow, &s, side);
    sum = bpf_csum_diff((__be32 *)&s.ends, sizeof(after), (__be32 *)after, sizeof(after), 0);
    /* A kernel before Linux 6.16 knows no difference between the families here, and refuses the flag. */
    done = bpf_l4_csum_replace(skb, at_tcp + __builtin_offsetof(struct tcp, sum), 0, sum, BPF_F_PSEUDO_HDR | BPF_F_IPV6);
    if (done == -22)
        done = bpf_l4_csum_replace(skb, at_tcp + __builtin_offsetof(struct tcp, sum), 0, sum, BPF_F_PSEUDO_HDR);
    if (done ||
        bpf_l4_csum_replace(skb, at_tcp + __builtin_offsetof(struct tcp, sum), ports[0], ports[1], 4) ||
        bpf_skb_store_bytes(skb, at_ip + __builtin_offsetof(struct v6, hops), &hops, 1, 0) ||
        bpf_skb_store_bytes(skb, at_ip + __builtin_offsetof(struct v6, source), after, sizeof(after), 0) ||
        bpf_skb_store_bytes(skb, at_tcp, &ports[1], 4, 0))
        return DROP;
    return send(skb, &way);
}

/* Devices with an Ethernet header only: redirecting to a neighbour needs the packet to have come with one. */
SEC("classifier")
int shortcut(struct __sk_buff *skb)
{
    __u32 linear = skb->data_end - skb->data;

    /* A tagged packet comes again, at the VLAN's device. */
    if (skb->pkt_type != PACKET_HOST || skb->vlan_present)
        return NEXT;
    if (skb->protocol == bswap16(0x0800)) {
        /* A device may have left the headers in pages. */
        if (linear < ETHERNET + 40 && skb->len >= ETHERNET + 40 && bpf_skb_pull_data(skb, ETHERNET + 40))
            return NEXT;
        return carry_v4(skb);
    }
    if (skb->protocol == bswap16(0x86dd)) {
        if (linear < ETHERNET + 60 && skb->len >= ETHERNET + 60 && bpf_skb_pull_data(skb, ETHERNET + 60))
            return NEXT;
        return carry_v6(skb);
    }
    return NEXT;
}

/* bpf_fib_lookup is for programs under a licence that is compatible with the GPL. */
char _license[] SEC("license") = "Dual MIT/GPL";
