//! The TCP connections of HTTP probes: smoltcp without its loop.
//!
//! Each connection has a socket set of its own, so that the cost of a packet or timer does not depend on the number of
//! connections.

use super::http::{Load, Response};
use super::probes::{Key, Outbox};
use super::targets::Monitor;
use super::why::Failure;
use crate::packet::{Addresses, Parsed, Transport};
use crate::time::{Duration, Instant};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant as StackInstant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Maximum number of connections; further probes wait for a free one.
const MOST_CONNECTIONS: usize = 512;
/// Receive window in bytes.
const WINDOW: usize = 16 << 10;
/// Send buffer in bytes.
const REQUEST: usize = 2048;
/// How long a connection may take to close after its verdict.
const LINGER: Duration = Duration::from_secs(5);
/// Bytes of a response that are read after its verdict, so that the connection can be closed in order.
const MOST_IGNORED: usize = 1 << 20;
/// The minimum MTU of IPv6, so that no path MTU discovery is needed.
const MTU: usize = 1280;

/// The state of a connection after a call.
#[derive(Debug, PartialEq)]
pub(super) enum Progress {
    /// It waits for a packet, or until this time.
    Waits(Option<Instant>),
    Ended {
        verdict: Result<(), Failure>,
        load: Option<Load>,
    },
}

pub(super) struct Stack {
    interface: Interface,
    most: usize,
    slots: Vec<Slot>,
    free: Vec<u32>,
}

/// A connection that has its verdict and is being closed.
#[derive(Debug, Clone, Copy)]
struct Lingers {
    key: Key,
    until: Instant,
    /// Bytes that may still be read.
    left: usize,
}

struct Slot {
    target: Option<u32>,
    lingers: Option<Lingers>,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
    connected: bool,
    requested: usize,
    response: Response,
}

impl std::fmt::Debug for Stack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stack").field("slots", &self.slots.len()).field("free", &self.free.len()).finish()
    }
}

impl Stack {
    /// Makes a stack with these addresses for `targets` targets.
    pub(super) fn new(v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>, seed: u64, targets: usize) -> Self {
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut unused = Outbox::default();
        let mut link = Link { packet: None, outbox: &mut unused };
        let mut interface = Interface::new(config, &mut link, StackInstant::ZERO);
        interface.update_ip_addrs(|addresses| {
            let v4 = v4.map(|v4| IpCidr::new(IpAddress::Ipv4(v4), 32));
            let v6 = v6.map(|v6| IpCidr::new(IpAddress::Ipv6(v6), 128));
            // There is room for two: the default of smoltcp.
            addresses.extend(v4.into_iter().chain(v6));
        });
        if let Some(v4) = v4 {
            let _ = interface.routes_mut().add_default_ipv4_route(v4);
        }
        if let Some(v6) = v6 {
            let _ = interface.routes_mut().add_default_ipv6_route(v6);
        }
        Stack { interface, most: targets.min(MOST_CONNECTIONS), slots: Vec::new(), free: Vec::new() }
    }

    /// Returns the maximum number of connections.
    pub(super) fn slots(&self) -> usize {
        self.most
    }

    pub(super) fn has_room(&self) -> bool {
        !self.free.is_empty() || self.slots.len() < self.most
    }

    /// Returns the target of a connection; none if it is free.
    pub(super) fn target(&self, slot: u32) -> Option<u32> {
        self.slots.get(slot as usize)?.target
    }

    /// Opens a connection; returns none if no slot is free or the address is invalid.
    pub(super) fn open(&mut self, target: u32, addresses: &Addresses, ours: u16, theirs: u16) -> Option<u32> {
        let place = match self.free.pop() {
            Some(place) => place,
            None if self.slots.len() < self.most => {
                self.slots.push(Slot::new());
                self.slots.len() as u32 - 1
            }
            None => return None,
        };
        let slot = &mut self.slots[place as usize];
        let remote = (IpAddress::from(addresses.dst()), theirs);
        let local = (IpAddress::from(addresses.src()), ours);
        let socket = slot.sockets.get_mut::<Socket<'_>>(slot.socket);
        if socket.connect(self.interface.context(), remote, local).is_err() {
            self.free.push(place);
            return None;
        }
        slot.target = Some(target);
        (slot.connected, slot.requested) = (false, 0);
        slot.response.clear();
        Some(place)
    }

    /// Advances a connection, by a packet or by time.
    pub(super) fn advance(
        &mut self,
        now: Instant,
        slot: u32,
        packet: Option<(&[u8], &Parsed)>,
        monitor: &Monitor,
        outbox: &mut Outbox,
    ) -> Progress {
        let slot = &mut self.slots[slot as usize];
        let reset = matches!(packet, Some((_, Parsed { transport: Transport::Tcp { flags, .. }, .. })) if flags.rst());
        let bytes = packet.map(|(bytes, parsed)| &bytes[..parsed.len]);
        let at = stack_time(now);
        let mut link = Link { packet: bytes, outbox };
        self.interface.poll(at, &mut link, &mut slot.sockets);
        if let Some(verdict) = slot.work(monitor, reset) {
            return Progress::Ended { verdict, load: slot.response.load };
        }
        self.interface.poll(at, &mut link, &mut slot.sockets);
        let next = self.interface.poll_at(at, &slot.sockets);
        // All immediate work is done: a stack that returns "now" again must not make the driver spin.
        let soonest = now + Duration::from_millis(1);
        Progress::Waits(next.map(|next| Instant::from_nanos(next.total_micros().max(0) as u64 * 1000).max(soonest)))
    }

    /// Ends a connection: in order if its answer has begun, which may take until it has been read to its end, and otherwise
    /// by a reset. Returns when it needs to be advanced next; none if its slot is free.
    pub(super) fn close(
        &mut self,
        now: Instant,
        place: u32,
        (key, in_order): (Key, bool),
        outbox: &mut Outbox,
    ) -> Option<Instant> {
        let slot = self.slots.get_mut(place as usize).filter(|slot| slot.target.is_some())?;
        slot.target = None;
        slot.lingers = Some(Lingers { key, until: now + LINGER, left: MOST_IGNORED });
        if !in_order || !slot.response.has_begun() {
            return self.abort(now, place, outbox);
        }
        None
    }

    /// Returns the probe of a connection that is being closed.
    pub(super) fn lingering(&self, place: u32) -> Option<Key> {
        self.slots.get(place as usize)?.lingers.map(|lingers| lingers.key)
    }

    /// Returns the connection that has been closing for longest.
    pub(super) fn longest_lingering(&self) -> Option<u32> {
        let lingering = (0..).zip(&self.slots).filter_map(|(place, slot)| Some((slot.lingers?.until, place)));
        lingering.min().map(|(_, place)| place)
    }

    /// Resets a connection that is being closed if it is still open, and frees its slot.
    pub(super) fn abort(&mut self, now: Instant, place: u32, outbox: &mut Outbox) -> Option<Instant> {
        let slot = self.slots.get_mut(place as usize).filter(|slot| slot.lingers.is_some())?;
        slot.sockets.get_mut::<Socket<'_>>(slot.socket).abort();
        let mut link = Link { packet: None, outbox };
        self.interface.poll(stack_time(now), &mut link, &mut slot.sockets);
        slot.lingers = None;
        self.free.push(place);
        None
    }

    /// Goes on closing a connection, by a packet or by time. Returns when it needs to be advanced next; none if its slot
    /// is free.
    pub(super) fn linger(
        &mut self,
        now: Instant,
        place: u32,
        packet: Option<(&[u8], &Parsed)>,
        monitor: &Monitor,
        outbox: &mut Outbox,
    ) -> Option<Instant> {
        let slot = self.slots.get_mut(place as usize)?;
        let until = slot.lingers?.until;
        let at = stack_time(now);
        let mut link = Link { packet: packet.map(|(bytes, parsed)| &bytes[..parsed.len]), outbox };
        self.interface.poll(at, &mut link, &mut slot.sockets);
        let within = slot.ignore(monitor);
        self.interface.poll(at, &mut link, &mut slot.sockets);
        match slot.sockets.get::<Socket<'_>>(slot.socket).state() {
            State::Closed => {
                slot.lingers = None;
                self.free.push(place);
                return None;
            }
            // Source ports are not reused soon: a new socket forgets this connection without a word.
            State::TimeWait => {
                *slot = Slot::new();
                self.free.push(place);
                return None;
            }
            _ if !within || now >= until => return self.abort(now, place, outbox),
            _ => {}
        }
        let next = self.interface.poll_at(at, &slot.sockets);
        let soonest = now + Duration::from_millis(1);
        let next = next.map(|next| Instant::from_nanos(next.total_micros().max(0) as u64 * 1000).max(soonest));
        Some(next.map_or(until, |next| next.min(until)))
    }
}

impl Slot {
    fn new() -> Self {
        let mut socket = Socket::new(SocketBuffer::new(vec![0; WINDOW]), SocketBuffer::new(vec![0; REQUEST]));
        socket.set_ack_delay(None);
        socket.set_nagle_enabled(false);
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let socket = sockets.add(socket);
        let response = Response::default();
        Slot { target: None, lingers: None, sockets, socket, connected: false, requested: 0, response }
    }

    /// Reads the rest of a response, and closes the connection once it has ended. Returns whether the response is within
    /// its limit.
    fn ignore(&mut self, monitor: &Monitor) -> bool {
        let socket = self.sockets.get_mut::<Socket<'_>>(self.socket);
        let Some(lingers) = &mut self.lingers else { return true };
        while socket.can_recv() {
            let response = &mut self.response;
            let read = socket.recv(|bytes| {
                response.feed(monitor, bytes);
                (bytes.len(), bytes.len())
            });
            lingers.left = lingers.left.saturating_sub(read.unwrap_or(0));
        }
        if self.response.is_complete() || !socket.may_recv() {
            socket.close();
        }
        lingers.left > 0
    }

    /// Writes the request and reads the response as far as possible.
    fn work(&mut self, monitor: &Monitor, reset: bool) -> Option<Result<(), Failure>> {
        let socket = self.sockets.get_mut::<Socket<'_>>(self.socket);
        self.connected |= socket.may_send();
        if socket.can_send()
            && let Some(rest) = monitor.request.get(self.requested..).filter(|rest| !rest.is_empty())
        {
            self.requested += socket.send_slice(rest).unwrap_or(0);
        }
        while socket.can_recv() {
            let response = &mut self.response;
            let fed = socket.recv(|bytes| (bytes.len(), response.feed(monitor, bytes)));
            if let Ok(Some(verdict)) = fed {
                return Some(verdict);
            }
        }
        match socket.state() {
            State::SynSent => None,
            State::Closed if !self.connected => Some(Err(Failure::Refused)),
            State::Closed if reset => Some(Err(Failure::Reset)),
            _ if socket.may_recv() => None,
            _ => Some(self.response.end(monitor)),
        }
    }
}

fn stack_time(now: Instant) -> StackInstant {
    StackInstant::from_micros(i64::try_from(now.as_nanos() / 1000).unwrap_or(i64::MAX))
}

/// At most one received packet, and the outbox.
struct Link<'a> {
    packet: Option<&'a [u8]>,
    outbox: &'a mut Outbox,
}

struct Received<'a>(&'a [u8]);
struct Sent<'a>(&'a mut Outbox);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

impl TxToken for Sent<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut result = None;
        self.0.push_always(|packet| {
            packet.resize(len, 0);
            result = Some(f(packet));
        });
        result.expect("push_always writes at once")
    }
}

impl Device for Link<'_> {
    type RxToken<'b>
        = Received<'b>
    where
        Self: 'b;
    type TxToken<'b>
        = Sent<'b>
    where
        Self: 'b;

    fn receive(&mut self, _: StackInstant) -> Option<(Received<'_>, Sent<'_>)> {
        Some((Received(self.packet.take()?), Sent(self.outbox)))
    }

    fn transmit(&mut self, _: StackInstant) -> Option<Sent<'_>> {
        Some(Sent(self.outbox))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU;
        // Received checksums may be partial; complete ones have been verified before.
        capabilities.checksum.tcp = Checksum::Tx;
        capabilities
    }
}
