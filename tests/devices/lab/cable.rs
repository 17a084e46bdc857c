//! The delaying cable: two TUN devices, one in the client's namespace and one in the gateway's, and a thread per
//! direction that keeps the client's packets for a while. Both ends count.
//!
//! A device in userspace also has no checksum offload: the clients' kernel completes every checksum and checks every
//! one that it gets.

use super::Workers;
use super::ledger::{Counts, Who};
use super::packets::see;
use super::strangers::Strangers;
use equipoise::gateway::tun::Tun;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a thread of the lab waits before it looks whether it is to stop.
const NAP: Duration = Duration::from_millis(20);

pub struct Cable(#[allow(dead_code, reason = "ends with the value")] Workers);

impl Cable {
    /// Connects the client's device with the gateway's. What the gateway sends to others than the client goes to the
    /// strangers, at once.
    pub fn new(far: Tun, near: Arc<Tun>, delay: Duration, counts: Arc<Counts>, strangers: Arc<Strangers>) -> Cable {
        let far = Arc::new(far);
        let mut workers = Workers::new();
        let (from, to, sums) = (far.clone(), near.clone(), counts.clone());
        workers.start("lab-to-gateway", move |stop| {
            carry(
                &from,
                stop,
                delay,
                |_| true,
                |packet| {
                    if let (Some(seen), true) = (see(packet), write(&to, packet)) {
                        sums.client_sent.count(Who::Client, &seen);
                    }
                },
            );
        });
        workers.start("lab-to-client", move |stop| {
            let meet = |packet: &[u8]| {
                let Some(seen) = see(packet) else { return true };
                let who = Who::of(seen.to.ip());
                counts.client_got.count(who, &seen);
                if who == Who::Stranger {
                    strangers.react(&seen, &near, &counts);
                }
                who == Who::Client
            };
            carry(&near, stop, delay, meet, |packet| {
                write(&far, packet);
            });
        });
        Cable(workers)
    }
}

/// Reads packets until it is to stop; hands those that `keep` wants to `deliver` after the delay, in order.
fn carry(
    from: &Tun,
    stop: &AtomicBool,
    delay: Duration,
    mut keep: impl FnMut(&[u8]) -> bool,
    mut deliver: impl FnMut(&[u8]),
) {
    let mut kept: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    while !stop.load(Ordering::Relaxed) {
        let due = kept.front().map_or(NAP, |(due, _)| due.saturating_duration_since(Instant::now()));
        read_all(from, due.min(NAP), |packet| {
            if keep(packet) {
                kept.push_back((Instant::now() + delay, packet.to_vec()));
            }
        });
        let now = Instant::now();
        while kept.front().is_some_and(|(due, _)| *due <= now) {
            let (_, packet) = kept.pop_front().unwrap();
            deliver(&packet);
        }
    }
}

/// Waits for packets and reads those there are, up to a limit, so that delayed ones get their turn.
pub fn read_all(from: &Tun, wait: Duration, mut take: impl FnMut(&[u8])) {
    let wait = Timespec { tv_sec: 0, tv_nsec: i64::from(wait.min(NAP).subsec_nanos()) };
    if poll(&mut [PollFd::new(from, PollFlags::IN)], Some(&wait)).unwrap_or(0) == 0 {
        return;
    }
    let mut buffer = [0; 65_536];
    for _ in 0..256 {
        match rustix::io::read(from, &mut buffer[..]) {
            Ok(len) => take(&buffer[..len]),
            Err(_) => return,
        }
    }
}

/// Writes a packet; returns whether the device took it.
pub fn write(to: &Tun, packet: &[u8]) -> bool {
    rustix::io::write(to, packet).is_ok()
}
