/* Chooses the queue of the TUN device for a packet that the kernel gives to the gateway (TUNSETSTEERINGEBPF).
 *
 * It knows no flows, so nobody can fill it up: what a packet is decides. A flood of one kind then waits in line with its
 * own kind only.
 *
 *   0  what belongs to something that exists: TCP segments with ACK or RST, and everything that servers send, answers
 *      to probes included
 *   1  what clients send without a connection: datagrams, echo requests, ICMP errors, fragments, other protocols
 *   2  what wants to open a TCP connection: segments with neither ACK nor RST
 *
 * All pieces of a fragmented packet go the same way, since only the first has the TCP flags.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define STANDING 0
#define DATAGRAMS 1
#define OPENERS 2

#define TCP 6
/* Extension headers that are looked behind (RFC 8200, section 4.1, lists seven). */
#define MOST_EXTENSIONS 8

/* An IPv6 address, or an IPv4 address mapped into ::ffff:0:0/96, in network byte order. */
struct address {
    __u32 word[4];
};

/* The addresses of the servers. The gateway sets its size and fills it before the program is attached. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 1);
    __type(key, struct address);
    __type(value, __u8);
} servers SEC(".maps");

static __always_inline int by_source(const struct address *source)
{
    return bpf_map_lookup_elem(&servers, source) ? STANDING : DATAGRAMS;
}

static __always_inline int by_flags(struct __sk_buff *skb, __u32 at, const struct address *source)
{
    __u8 flags;

    if (bpf_skb_load_bytes(skb, at + 13, &flags, sizeof(flags)))
        return by_source(source);
    return flags & 0x14 ? STANDING : OPENERS; /* ACK, RST */
}

static __always_inline int steer_v4(struct __sk_buff *skb)
{
    struct address source = { { 0, 0, __builtin_bswap32(0xffff), 0 } };
    __u8 header[20];

    if (bpf_skb_load_bytes(skb, 0, header, sizeof(header)))
        return DATAGRAMS;
    __builtin_memcpy(&source.word[3], header + 12, 4);
    /* Neither "more fragments" nor an offset. */
    if (header[9] == TCP && !(header[6] & 0x3f) && !header[7])
        return by_flags(skb, (header[0] & 15) * 4, &source);
    return by_source(&source);
}

static __always_inline int steer_v6(struct __sk_buff *skb)
{
    struct address source;
    __u8 header[24], next, extension[2];
    __u32 at = 40;
    int i;

    if (bpf_skb_load_bytes(skb, 0, header, sizeof(header)))
        return DATAGRAMS;
    __builtin_memcpy(&source, header + 8, sizeof(source));
    next = header[6];
#pragma unroll
    for (i = 0; i <= MOST_EXTENSIONS; i++) {
        if (next == TCP)
            return by_flags(skb, at, &source);
        /* Hop-by-hop options, routing, authentication, destination options. A fragment is looked at no further. */
        if (next != 0 && next != 43 && next != 51 && next != 60)
            break;
        if (bpf_skb_load_bytes(skb, at, extension, sizeof(extension)))
            break;
        at += next == 51 ? (extension[1] + 2) * 4 : (extension[1] + 1) * 8;
        next = extension[0];
    }
    return by_source(&source);
}

SEC("socket")
int steer(struct __sk_buff *skb)
{
    __u8 version;

    if (bpf_skb_load_bytes(skb, 0, &version, sizeof(version)))
        return DATAGRAMS;
    if (version >> 4 == 4)
        return steer_v4(skb);
    if (version >> 4 == 6)
        return steer_v6(skb);
    return DATAGRAMS;
}

char _license[] SEC("license") = "MIT";
