//! How many IPsec policies apply to what the system sends on.

use super::NetlinkError;
use super::frame::frames;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_XFRM};
use std::io;

/// `XFRM_MSG_NEWSPDINFO` and `XFRM_MSG_GETSPDINFO` (linux/xfrm.h).
const COUNTS: u16 = 0x24;
const ASK: u16 = 0x25;
/// `XFRMA_SPD_INFO`: a `struct xfrmu_spdinfo`.
const INFO: u16 = 1;
const NLM_F_REQUEST: u16 = 1;

/// A socket of the policies of a network namespace.
#[derive(Debug)]
pub struct Policies {
    /// None where the system knows no IPsec.
    socket: Option<Socket>,
}

impl Policies {
    /// Opens a socket in the network namespace of the calling thread.
    pub fn open() -> Result<Policies, NetlinkError> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_XFRM)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok(socket)
        };
        match open() {
            Ok(socket) => Ok(Policies { socket: Some(socket) }),
            Err(e) if e.raw_os_error() == Some(libc::EPROTONOSUPPORT) => Ok(Policies { socket: None }),
            Err(e) => Err(fail(e)),
        }
    }

    /// Counts the policies for what the system sends, and for what it forwards.
    pub fn count(&self) -> Result<u64, NetlinkError> {
        let Some(socket) = &self.socket else { return Ok(0) };
        // A header, and 4 bytes of flags that are not used.
        let mut request = [0; 20];
        request[..4].copy_from_slice(&20u32.to_ne_bytes());
        request[4..6].copy_from_slice(&ASK.to_ne_bytes());
        request[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
        socket.send(&request, 0).map_err(fail)?;
        let (answer, _) = socket.recv_from_full().map_err(fail)?;
        let mut outcome = None;
        for frame in frames(&answer) {
            if frame.kind() == COUNTS
                && let Some(count) = read(frame.body())
            {
                return Ok(count);
            }
            outcome = frame.outcome().or(outcome);
        }
        let errno = outcome.map_or(libc::EPROTO, |outcome| outcome.errno);
        Err(fail(io::Error::from_raw_os_error(errno)))
    }
}

fn fail(cause: io::Error) -> NetlinkError {
    NetlinkError::new("counting the IPsec policies", cause)
}

/// Reads an answer: flags, and attributes.
fn read(body: &[u8]) -> Option<u64> {
    let info = super::nft::attribute(body.get(4..)?, INFO)?;
    // After those for what comes in.
    let number = |at: usize| Some(u64::from(u32::from_ne_bytes(info.get(at..at + 4)?.try_into().ok()?)));
    Some(number(4)? + number(8)?)
}
