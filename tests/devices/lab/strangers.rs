//! Strangers: they open flows by the hundred thousand without a kernel behind them. Both ends are here: the strangers
//! outside and the parrot behind the gateway, a server that answers as a kernel would and remembers nothing.

use super::cable::{read_all, write};
use super::ledger::{Counts, Who};
use super::packets::{ACK, FIN, SYN, Seen, see, tcp, udp};
use super::{FILL, Lab, SERVICE, WEB, Workers};
use equipoise::gateway::tun::Tun;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What the flows are that fill the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filling {
    /// TCP connections that both ends have closed.
    Closing,
    /// Datagrams that nobody answers.
    OneWay,
    /// Datagrams that are answered once each, as DNS queries are.
    Answered,
    /// TCP connections, all from one IPv6 /64, that carry no data.
    Idle,
}

/// Flows under way at a time: fewer packets than a TUN device queues.
const WINDOW: u64 = 150;
/// How long a flow may take before it counts as refused; nothing here is delayed.
const LOST: Duration = Duration::from_millis(50);

/// What the strangers do when the gateway sends them something, and how many flows they have completed.
#[derive(Debug, Default)]
pub struct Strangers {
    close: AtomicBool,
    done: AtomicU64,
}

/// Whether the parrot answers datagrams, and how many it has got.
#[derive(Debug, Default)]
pub struct Parrot {
    silent: AtomicBool,
    datagrams: AtomicU64,
}

impl Strangers {
    /// Answers a packet for a stranger: completes handshakes, and closes where that is wanted. Addresses of a flood
    /// are nobody's.
    pub fn react(&self, seen: &Seen, outside: &Tun, counts: &Counts) {
        if !is_filler(seen.to.ip()) {
            return;
        }
        let send = |flags, sequence, acknowledgement| {
            send(outside, counts, &tcp(seen.to, seen.from, flags, sequence, acknowledgement));
        };
        let (own, next) = (seen.acknowledgement, seen.sequence.wrapping_add(1));
        match seen.tcp {
            Some(flags) if flags & (SYN | ACK) == SYN | ACK => {
                send(ACK, own, next);
                if self.close.load(Ordering::Relaxed) {
                    send(FIN | ACK, own, next);
                } else {
                    self.done.fetch_add(1, Ordering::Relaxed);
                }
            }
            Some(flags) if flags & FIN != 0 => {
                send(ACK, own, next);
                self.done.fetch_add(1, Ordering::Relaxed);
            }
            Some(_) => {}
            None => {
                self.done.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Starts the server that remembers nothing.
pub fn start_parrot(behind: Tun, parrot: Arc<Parrot>, counts: Arc<Counts>, workers: &mut Workers) {
    workers.start("lab-parrot", move |stop| {
        while !stop.load(Ordering::Relaxed) {
            read_all(&behind, Duration::from_millis(20), |packet| {
                let Some(seen) = see(packet) else { return };
                counts.server_got.count(Who::Stranger, &seen);
                if let Some(answer) = parrot.answer(&seen)
                    && let Some(seen) = see(&answer)
                    && write(&behind, &answer)
                {
                    counts.server_sent.count(Who::Stranger, &seen);
                }
            });
        }
    });
}

impl Parrot {
    fn answer(&self, seen: &Seen) -> Option<Vec<u8>> {
        let next = seen.sequence.wrapping_add(1);
        match seen.tcp {
            Some(flags) if flags & (SYN | ACK) == SYN => Some(tcp(seen.to, seen.from, SYN | ACK, 1_000_000, next)),
            Some(flags) if flags & FIN != 0 => Some(tcp(seen.to, seen.from, FIN | ACK, seen.acknowledgement, next)),
            Some(_) => None,
            None => {
                self.datagrams.fetch_add(1, Ordering::Relaxed);
                (!self.silent.load(Ordering::Relaxed)).then(|| udp(seen.to, seen.from, b"answer"))
            }
        }
    }
}

fn is_filler(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets()[0] == 198 && address.octets()[1] & !1 == 18,
        IpAddr::V6(address) => address.segments()[..4] == [0x2001, 0xdb8, 0xf, 0],
    }
}

/// The address and port of flow `n`: 131,072 IPv4 addresses, or as many as needed from one IPv6 /64.
fn source(filling: Filling, n: u64) -> SocketAddr {
    let port = 1024 + (n >> 17) as u16;
    let low = (n & 0x1_ffff) as u32;
    let address: IpAddr = match filling {
        Filling::Idle => Ipv6Addr::from((0x2001_0db8_000f_0000_u128 << 64) | u128::from(low + 1)).into(),
        _ => Ipv4Addr::from(0xc612_0000 + low).into(),
    };
    SocketAddr::new(address, port)
}

fn send(outside: &Tun, counts: &Counts, packet: &[u8]) {
    if let (Some(seen), true) = (see(packet), write(outside, packet)) {
        counts.client_sent.count(Who::Stranger, &seen);
    }
}

/// Sends the first packet of flow `n`.
fn open(filling: Filling, n: u64, outside: &Tun, counts: &Counts) {
    let from = source(filling, n);
    let to = SocketAddr::new(SERVICE[usize::from(from.is_ipv6())].parse().unwrap(), FILL[0]);
    let packet = match filling {
        Filling::Closing | Filling::Idle => tcp(from, to, SYN, 7_000, 0),
        Filling::OneWay | Filling::Answered => udp(from, to, b"question"),
    };
    send(outside, counts, &packet);
}

/// Hands out what is due of a steady rate, without catching up after a pause: a burst would be no rate.
pub struct Pace {
    each: Duration,
    next: Instant,
}

impl Pace {
    pub fn new(per_second: u32) -> Pace {
        Pace { each: Duration::from_secs(1) / per_second.max(1), next: Instant::now() }
    }

    /// Waits a little if nothing is due; returns whether something is.
    pub fn due(&mut self) -> bool {
        let now = Instant::now();
        if now < self.next {
            std::thread::sleep((self.next - now).min(Duration::from_micros(500)));
            return false;
        }
        // Two milliseconds: what a sleeping thread is late by.
        self.next = (self.next + self.each).max(now.checked_sub(Duration::from_millis(2)).unwrap_or(now));
        true
    }
}

impl Lab {
    fn done(&self, filling: Filling) -> u64 {
        match filling {
            Filling::OneWay => self.parrot.datagrams.load(Ordering::Relaxed),
            _ => self.strangers.done.load(Ordering::Relaxed),
        }
    }

    fn set(&self, filling: Filling) {
        self.strangers.close.store(filling == Filling::Closing, Ordering::Relaxed);
        self.parrot.silent.store(filling == Filling::OneWay, Ordering::Relaxed);
    }

    /// Opens `count` flows as fast as the gateway takes them; returns how many were completed.
    pub fn fill(&self, filling: Filling, count: u64) -> u64 {
        self.set(filling);
        let before = self.done(filling);
        let mut refused = 0;
        let (mut last, mut since) = (before, Instant::now());
        for n in 0..count {
            open(filling, n, &self.outside, &self.counts);
            loop {
                let done = self.done(filling);
                if done != last {
                    (last, since) = (done, Instant::now());
                }
                let waiting = (n + 1).saturating_sub(done - before + refused);
                if waiting < WINDOW {
                    break;
                }
                if since.elapsed() > LOST {
                    refused += waiting;
                    since = Instant::now();
                    break;
                }
                std::thread::sleep(Duration::from_micros(50));
            }
        }
        std::thread::sleep(2 * LOST);
        self.done(filling) - before
    }

    /// Goes on opening flows at a rate, from flow `first` on, until the value is dropped.
    pub fn keep_filling(&self, filling: Filling, first: u64, per_second: u32) -> Workers {
        self.set(filling);
        let (outside, counts) = (self.outside.clone(), self.counts.clone());
        let mut workers = Workers::new();
        workers.start("lab-fill", move |stop| {
            let (mut n, mut pace) = (first, Pace::new(per_second));
            while !stop.load(Ordering::Relaxed) {
                if pace.due() {
                    open(filling, n, &outside, &counts);
                    n += 1;
                }
            }
        });
        workers
    }

    /// Sends SYNs to the web service from random sources, until the value is dropped.
    pub fn flood(&self, per_second: u32, seed: u64) -> Workers {
        let (outside, counts) = (self.outside.clone(), self.counts.clone());
        let to = SocketAddr::new(SERVICE[0].parse().unwrap(), WEB[0]);
        let mut workers = Workers::new();
        workers.start("lab-flood", move |stop| {
            syns(&outside, to, per_second, seed, stop, |packet| {
                if let Some(seen) = see(packet) {
                    counts.client_sent.count(Who::Stranger, &seen);
                }
            });
        });
        workers
    }
}

/// Sends SYNs from random sources at a rate until it is to stop; `sent` gets each that the device took.
pub fn syns(outside: &Tun, to: SocketAddr, per_second: u32, seed: u64, stop: &AtomicBool, mut sent: impl FnMut(&[u8])) {
    let (mut random, mut pace) = (Random(seed), Pace::new(per_second));
    while !stop.load(Ordering::Relaxed) {
        if pace.due() {
            let [draw, numbers] = [random.next(), random.next()];
            // 20.0.0.0 to 83.255.255.255: unicast, and no network of the lab.
            let address = Ipv4Addr::from((20 << 24) + (draw as u32 & 0x3fff_ffff));
            let from = SocketAddr::new(address.into(), (draw >> 32) as u16 | 1024);
            let packet = tcp(from, to, SYN, numbers as u32, 0);
            if write(outside, &packet) {
                sent(&packet);
            }
        }
    }
}

/// The generator "SplitMix64" (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
