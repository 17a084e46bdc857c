//! A host of the simulated world: a complete TCP/IP stack (smoltcp) behind a wire of two queues.
//!
//! It must not know the engine; it sees packets to its own addresses, as a real host would.

use equipoise::time::Instant;
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{self, Device, DeviceCapabilities, Medium};
use smoltcp::wire::{HardwareAddress, IpCidr};
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes of the largest packet on the wire.
pub const MTU: usize = 1500;

/// A network device that computes its own checksums.
#[derive(Debug, Default)]
pub struct Wire {
    incoming: VecDeque<Vec<u8>>,
    outgoing: VecDeque<Vec<u8>>,
}

pub struct Incoming(Vec<u8>);

pub struct Outgoing<'a>(&'a mut VecDeque<Vec<u8>>);

impl phy::RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

impl phy::TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let mut packet = vec![0; len];
        let result = write(&mut packet);
        self.0.push_back(packet);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _now: smoltcp::time::Instant) -> Option<(Incoming, Outgoing<'_>)> {
        let packet = self.incoming.pop_front()?;
        Some((Incoming(packet), Outgoing(&mut self.outgoing)))
    }

    fn transmit(&mut self, _now: smoltcp::time::Instant) -> Option<Outgoing<'_>> {
        Some(Outgoing(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU;
        capabilities
    }
}

/// A stack, its wire and its sockets.
pub struct Host {
    pub iface: Interface,
    pub sockets: SocketSet<'static>,
    wire: Wire,
    addresses: [IpAddr; 2],
}

fn stack_time(now: Instant) -> smoltcp::time::Instant {
    smoltcp::time::Instant::from_micros((now.as_nanos() / 1000) as i64)
}

impl Host {
    /// A host with an address of each family, and a default route into its wire.
    pub fn new(v4: Ipv4Addr, v6: Ipv6Addr, seed: u64) -> Self {
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut wire = Wire::default();
        let mut iface = Interface::new(config, &mut wire, stack_time(Instant::ZERO));
        iface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(v4.into(), 32)).expect("room for two");
            addresses.push(IpCidr::new(v6.into(), 128)).expect("room for two");
        });
        iface.routes_mut().add_default_ipv4_route(Ipv4Addr::new(10, 255, 0, 1)).expect("room for it");
        iface.routes_mut().add_default_ipv6_route(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)).expect("room for it");
        Host { iface, sockets: SocketSet::new(Vec::new()), wire, addresses: [v4.into(), v6.into()] }
    }

    /// Returns whether this address is the host's.
    pub fn has(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address)
    }

    /// Appends a packet to the wire.
    pub fn deliver(&mut self, packet: Vec<u8>) {
        self.wire.incoming.push_back(packet);
    }

    /// Runs the stack as far as it can go at this time.
    pub fn poll(&mut self, now: Instant) {
        self.iface.poll(stack_time(now), &mut self.wire, &mut self.sockets);
    }

    /// Returns when the stack has something to do by itself, after `now`.
    pub fn next(&mut self, now: Instant) -> Option<Instant> {
        let at = self.iface.poll_at(stack_time(now), &self.sockets)?;
        let at = Instant::from_nanos(u64::try_from(at.total_micros()).unwrap_or(0) * 1000);
        Some(at.max(Instant::from_nanos(now.as_nanos() + 1000)))
    }

    /// Returns the next packet that the stack sent.
    pub fn take(&mut self) -> Option<Vec<u8>> {
        self.wire.outgoing.pop_front()
    }
}
