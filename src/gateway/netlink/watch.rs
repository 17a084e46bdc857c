//! Notifications from the kernel that links or routes have changed.

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::io;
use std::os::fd::{AsRawFd, RawFd};

/// The multicast groups (`RTNLGRP_*`): links, IPv4 routes, IPv6 routes, and the IPv6 settings of links.
const GROUPS: [u32; 4] = [1, 7, 11, 12];
/// Messages read in one go.
const MOST: usize = 64;

/// A non-blocking socket that becomes readable when links or routes of the network namespace change.
#[derive(Debug)]
pub struct Watch(Socket);

impl Watch {
    /// Subscribes to changes in the network namespace of the calling thread.
    pub fn open() -> io::Result<Watch> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        for group in GROUPS {
            socket.add_membership(group)?;
        }
        socket.set_non_blocking(true)?;
        Ok(Watch(socket))
    }

    /// Discards pending notifications; returns whether there were any, and whether more may be pending. What has
    /// changed must be looked up.
    pub fn take(&mut self) -> io::Result<(bool, bool)> {
        let mut bytes = [0; 64];
        for read in 0..MOST {
            match self.0.recv(&mut &mut bytes[..], 0) {
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok((read > 0, false)),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // The socket's buffer overflowed: the notifications lost were changes too.
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => return Ok((true, true)),
                Err(e) => return Err(e),
            }
        }
        Ok((true, true))
    }
}

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::testing::namespace;

    #[test]
    fn links_and_routes_are_news_and_silence_is_none() {
        let (Some(ns), Some(far)) = (namespace("eq-watch1"), namespace("eq-watch1-far")) else { return };
        ns.cable("one", &far, "one").unwrap();
        ns.address("one", "10.0.0.1/24".parse().unwrap()).unwrap();
        let mut watch = ns.run(|| Watch::open().unwrap()).unwrap();
        // Changes that the veth pair itself causes: a link-local address appears a moment after it.
        let mut heard = |most: u32| {
            (0..most).any(|_| {
                std::thread::sleep(std::time::Duration::from_millis(50));
                watch.take().unwrap().0
            })
        };
        while heard(20) {}
        ns.mtu("one", 1400).unwrap();
        assert!(heard(20), "a link");
        while heard(20) {}
        ns.route("10.8.0.0/24".parse().unwrap(), "one", None).unwrap();
        assert!(heard(20), "a route");
    }
}
