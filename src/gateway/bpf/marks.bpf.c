/* Tells which packets belong to the gateway's flows, and marks them for the policy rules.
 *
 * arrive  at ingress of the devices towards servers: what is a reply of a flow, or an ICMP error about a packet of one,
 *         gets the mark IN, by which a rule routes it into the gateway's device. Everything else is none of the gateway's
 *         business and never enters it.
 * emerge  at ingress of the gateway's device: what the engine wrote gets the mark OUT, and for a packet to a server the
 *         key of its replies is stored before it goes on, so no reply can come before its key.
 * depart  at egress of all devices but the gateway's: an ICMP error that this machine's kernel makes about a packet of a
 *         flow, such as that a server's host is gone, goes to the gateway's device to be translated.
 *
 * For a while after the start, `young` is set: connections of the gateway before this one may live, and their keys are gone
 * with it. What a server sends from where it serves on a connection of which nobody has been seen who talks to the server
 * itself is marked too, and the engine decides.
 *
 * While another gateway takes the place of this one, both have their programs attached, those of the older one behind. Once the
 * newer one serves, `over` is set, and `arrive` of the older one leaves the mark as it is.
 *
 * When there is no room for a key, `broad` is set before the packet goes on: then everything that comes from servers, and
 * every ICMP error, is marked, and the engine decides, as it would without these programs. The gateway clears it once
 * every flow has its key.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* The same numbers are in marks/mod.rs. */
#define IN 0x10000000
#define OUT 0x20000000

/* Let the packet go on to the programs behind this one (TCX_NEXT). */
#define NEXT (-1)
/* linux/if_packet.h */
#define PACKET_HOST 0

#define ICMP 1
#define TCP 6
#define UDP 17
#define ICMPV6 58
#define SCTP 132

#define SYN 0x02
#define RST 0x04

/* Extension headers that are looked behind (RFC 8200, section 4.1, lists seven). */
#define MOST_EXTENSIONS 8
/* Bytes that have to be in one piece to be read. */
#define HEADERS 192
/* Fragmented packets that are remembered. */
#define MOST_FIRSTS 8192

/* An IPv6 address, or an IPv4 address mapped into ::ffff:0:0/96, in network byte order. */
struct address {
    __u32 word[4];
};

/* What identifies a reply of a flow: all of it in network byte order. For an echo both ports are the identifier; without
 * ports both are zero. */
struct reply {
    struct address source, destination;
    __u16 source_port, destination_port;
    __u8 protocol, zero[3];
};

/* A fragmented packet. */
struct packet_id {
    struct address source, destination;
    __u32 id;
    __u8 protocol, zero[3];
};

/* The settings' maps get their sizes and contents from the gateway before the programs are attached. */
struct keys {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __uint(max_entries, 1);
    __type(key, struct reply);
    __type(value, __u32);
} keys SEC(".maps");

/* The keys that are used: those above, or those of the gateway before this one. Making a map of a million keys keeps a
 * processor busy for tens of milliseconds, in which the kernel runs nothing else there. */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
    __uint(max_entries, 1);
    __type(key, __u32);
    __array(values, struct keys);
} replies SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 1);
    __type(key, struct address);
    __type(value, __u8);
} servers SEC(".maps");

/* Sources towards servers that are routed to the gateway anyway: those of full NAT and of probes. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 1);
    __type(key, struct address);
    __type(value, __u8);
} own SEC(".maps");

#define OURS 1
#define FOREIGN 2

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, MOST_FIRSTS);
    __type(key, struct packet_id);
    __type(value, __u8);
} firsts SEC(".maps");

struct state {
    __u32 broad;  /* Whether keys are missing. */
    __u32 missed; /* Keys for which there was no room. */
    __u32 device; /* The index of the gateway's device. */
    __u32 young;  /* Whether connections of the gateway before this one may live. */
    __u32 over;   /* Whether another gateway has taken the place of this one. */
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct state);
} state SEC(".maps");

/* TCP ports from which servers serve: a bit each. */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1024);
    __type(key, __u32);
    __type(value, __u64);
} ports SEC(".maps");

/* Connections of servers that do not go through the gateway, as the servers send. */
struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, 1);
    __type(key, struct reply);
    __type(value, __u8);
} direct SEC(".maps");

enum kind { NOTHING, FLOW, END, QUESTION, ANSWER, ERROR };

struct packet {
    struct reply ends;
    __u32 at;            /* Where the transport header begins, from the IP header on. */
    __u32 id;            /* Of the fragmented packet. */
    __u8 first, later;   /* Which fragment it is, if any. */
    __u8 kind, v6;
    __u8 syn, zero[3];
};

static __always_inline int load(struct __sk_buff *skb, __u32 at, void *to, __u32 len)
{
    return bpf_skb_load_bytes_relative(skb, at, to, len, BPF_HDR_START_NET);
}

/* Reads the IPv4 header at an offset from the outer IP header. */
static __always_inline int read_v4(struct __sk_buff *skb, __u32 at, struct packet *p)
{
    __u8 header[20];
    __u16 offset;

    if (load(skb, at, header, sizeof(header)) || (header[0] & 15) < 5)
        return -1;
    p->ends.source.word[2] = p->ends.destination.word[2] = __builtin_bswap32(0xffff);
    __builtin_memcpy(&p->ends.source.word[3], header + 12, 4);
    __builtin_memcpy(&p->ends.destination.word[3], header + 16, 4);
    p->ends.protocol = header[9];
    offset = (header[6] & 0x1f) << 8 | header[7];
    p->later = offset != 0;
    p->first = !offset && header[6] & 0x20;
    p->id = header[4] << 8 | header[5];
    p->at = at + (header[0] & 15) * 4;
    return 0;
}

static __always_inline int read_v6(struct __sk_buff *skb, __u32 at, struct packet *p)
{
    __u8 header[40], next, extension[8];
    int i;

    if (load(skb, at, header, sizeof(header)))
        return -1;
    __builtin_memcpy(&p->ends.source, header + 8, 16);
    __builtin_memcpy(&p->ends.destination, header + 24, 16);
    p->v6 = 1;
    next = header[6];
    at += 40;
#pragma unroll
    for (i = 0; i < MOST_EXTENSIONS; i++) {
        /* Hop-by-hop options, routing, fragment, authentication, destination options. */
        if (next != 0 && next != 43 && next != 44 && next != 51 && next != 60)
            break;
        if (load(skb, at, extension, sizeof(extension)))
            return -1;
        if (next == 44) {
            __u16 offset = extension[2] << 8 | (extension[3] & 0xf8);

            p->later |= offset != 0;
            p->first |= !offset && extension[3] & 1;
            __builtin_memcpy(&p->id, extension + 4, 4);
            at += 8;
        } else {
            at += next == 51 ? (extension[1] + 2) * 4 : (extension[1] + 1) * 8;
        }
        next = extension[0];
        if (p->later)
            break;
    }
    p->ends.protocol = next;
    p->at = at;
    return 0;
}

/* Whether an ICMP message quotes a packet. */
static __always_inline int is_error(__u8 type, int v6)
{
    if (v6)
        return type >= 1 && type <= 4;
    return type == 3 || type == 4 || type == 5 || type == 11 || type == 12;
}

/* Reads the headers of the packet at an offset from the outer IP header; quoted ones may be cut off after eight bytes. */
static __noinline int read_packet(struct __sk_buff *skb, __u32 at, struct packet *p)
{
    __u8 bytes[8], flags;

    if (load(skb, at, bytes, 1))
        return -1;
    if (bytes[0] >> 4 == 4 ? read_v4(skb, at, p) : bytes[0] >> 4 == 6 ? read_v6(skb, at, p) : -1)
        return -1;
    if (p->later)
        return 0;
    switch (p->ends.protocol) {
    case TCP:
    case UDP:
    case SCTP:
        if (load(skb, p->at, bytes, 4))
            return -1;
        __builtin_memcpy(&p->ends.source_port, bytes, 2);
        __builtin_memcpy(&p->ends.destination_port, bytes + 2, 2);
        p->kind = FLOW;
        if (p->ends.protocol == TCP && !load(skb, p->at + 13, &flags, 1)) {
            if (flags & RST)
                p->kind = END;
            p->syn = !!(flags & SYN);
        }
        break;
    case ICMP:
    case ICMPV6:
        if (load(skb, p->at, bytes, 8))
            return -1;
        if (p->v6 != (p->ends.protocol == ICMPV6))
            break;
        if (bytes[0] == (p->v6 ? 128 : 8))
            p->kind = QUESTION;
        else if (bytes[0] == (p->v6 ? 129 : 0))
            p->kind = ANSWER;
        else if (is_error(bytes[0], p->v6))
            p->kind = ERROR;
        if (p->kind == QUESTION || p->kind == ANSWER) {
            __builtin_memcpy(&p->ends.source_port, bytes + 4, 2);
            p->ends.destination_port = p->ends.source_port;
        }
        break;
    default:
        p->kind = FLOW;
    }
    return 0;
}

static __always_inline void reverse(struct reply *to, const struct reply *from)
{
    to->source = from->destination;
    to->destination = from->source;
    to->source_port = from->destination_port;
    to->destination_port = from->source_port;
    to->protocol = from->protocol;
}

static __always_inline int is_expected(const struct reply *reply)
{
    __u32 zero = 0;
    void *keys = bpf_map_lookup_elem(&replies, &zero);

    return keys && bpf_map_lookup_elem(keys, reply);
}

static __always_inline int is_server(const struct address *address)
{
    return bpf_map_lookup_elem(&servers, address) != 0;
}

/* Makes the headers readable: a device may have left them in pages. */
static __always_inline void pull(struct __sk_buff *skb)
{
    __u32 linear = skb->data_end - skb->data;

    if (linear < HEADERS && linear < skb->len)
        bpf_skb_pull_data(skb, skb->len < HEADERS ? skb->len : HEADERS);
}

/* Whether an ICMP error quotes a packet of a flow: one that was sent to where the replies come from. */
static __noinline int quotes_ours(struct __sk_buff *skb, __u32 at)
{
    struct packet quoted = {};
    struct reply reply = {};

    if (read_packet(skb, at, &quoted))
        return 0;
    /* Of which packet it is, only the engine knows. */
    if (quoted.later)
        return is_server(&quoted.ends.destination);
    if (quoted.kind == NOTHING || quoted.kind == ERROR)
        return 0;
    reverse(&reply, &quoted.ends);
    return is_expected(&reply);
}

static __always_inline void id_of(struct packet_id *id, const struct packet *p)
{
    id->source = p->ends.source;
    id->destination = p->ends.destination;
    id->id = p->id;
    id->protocol = p->v6 ? 0 : p->ends.protocol;
}

/* What is remembered of a fragmented packet. A fragment that comes before the first of a packet makes all of it the
 * engine's: without conntrack, nothing else would put it in order. */
static __noinline int of_fragment(const struct packet *p, int is_ours)
{
    struct packet_id id = {};
    __u8 value, *known;

    id_of(&id, p);
    known = bpf_map_lookup_elem(&firsts, &id);
    if (known && (*known == OURS || p->later))
        return *known == OURS;
    value = is_ours || p->later ? OURS : FOREIGN;
    bpf_map_update_elem(&firsts, &id, &value, BPF_ANY);
    return value == OURS;
}

static __always_inline int serves_from(__u16 port)
{
    __u32 host = __builtin_bswap16(port), word = host >> 6;
    const __u64 *bits = bpf_map_lookup_elem(&ports, &word);

    return bits && *bits >> (host & 63) & 1;
}

/* Whether a segment without a key may be of a connection that the gateway before this one had. Whoever sends to a server's
 * own address is not one of its clients, nor is one whose connection begins now. */
static __noinline int may_be_of_before(const struct packet *p)
{
    struct reply reply = {};
    __u8 value = 1;

    if (p->kind != FLOW || p->ends.protocol != TCP || p->first || p->later)
        return 0;
    if (is_server(&p->ends.destination)) {
        reverse(&reply, &p->ends);
        bpf_map_update_elem(&direct, &reply, &value, BPF_ANY);
    }
    if (!is_server(&p->ends.source) || !serves_from(p->ends.source_port))
        return 0;
    if (p->syn) {
        bpf_map_update_elem(&direct, &p->ends, &value, BPF_ANY);
        return 0;
    }
    return !bpf_map_lookup_elem(&direct, &p->ends);
}

static __always_inline int is_ours(struct __sk_buff *skb, const struct state *now)
{
    struct packet p = {};
    int broad, ours = 0;

    if (read_packet(skb, 0, &p))
        return 0;
    broad = now && now->broad;
    if (broad && (p.kind == ERROR || is_server(&p.ends.source)))
        return 1;
    if (p.kind == ERROR)
        ours = quotes_ours(skb, p.at + 8);
    else if (p.kind == FLOW || p.kind == END || p.kind == ANSWER)
        ours = is_expected(&p.ends);
    if ((p.first || p.later) && is_server(&p.ends.source))
        return of_fragment(&p, ours);
    if (!ours && now && now->young)
        return may_be_of_before(&p);
    return ours;
}

SEC("classifier")
int arrive(struct __sk_buff *skb)
{
    /* Nobody else's word counts for our bits. */
    __u32 mark = skb->mark & ~(IN | OUT), zero = 0;
    const struct state *now = bpf_map_lookup_elem(&state, &zero);

    if (now && now->over)
        return NEXT;
    /* A tagged packet comes again, at the VLAN's device. */
    if (skb->pkt_type == PACKET_HOST && !skb->vlan_present) {
        pull(skb);
        if (is_ours(skb, now))
            mark |= IN;
    }
    if (mark != skb->mark)
        skb->mark = mark;
    return NEXT;
}

/* Stores the key of a packet's replies. */
static __always_inline void learn(struct __sk_buff *skb)
{
    struct packet p = {};
    struct reply reply = {};
    struct state *now;
    void *keys;
    __u32 zero = 0, value = 1;

    if (read_packet(skb, 0, &p) || p.later || (p.kind != FLOW && p.kind != QUESTION))
        return;
    reverse(&reply, &p.ends);
    keys = bpf_map_lookup_elem(&replies, &zero);
    if (!keys || bpf_map_lookup_elem(keys, &reply) || !is_server(&reply.source) ||
        bpf_map_lookup_elem(&own, &reply.destination))
        return;
    if (!bpf_map_update_elem(keys, &reply, &value, BPF_ANY))
        return;
    now = bpf_map_lookup_elem(&state, &zero);
    if (now) {
        now->broad = 1;
        __sync_fetch_and_add(&now->missed, 1);
    }
}

SEC("classifier")
int emerge(struct __sk_buff *skb)
{
    pull(skb);
    learn(skb);
    skb->mark = (skb->mark & ~(IN | OUT)) | OUT;
    return NEXT;
}

SEC("classifier")
int depart(struct __sk_buff *skb)
{
    const struct state *now;
    struct packet p = {};
    __u32 zero = 0;

    /* What has come from elsewhere was looked at when it arrived. */
    if (skb->ingress_ifindex)
        return NEXT;
    if (read_packet(skb, 0, &p) || p.kind != ERROR || !quotes_ours(skb, p.at + 8))
        return NEXT;
    now = bpf_map_lookup_elem(&state, &zero);
    return now && now->device ? bpf_redirect(now->device, 0) : NEXT;
}

char _license[] SEC("license") = "MIT";
