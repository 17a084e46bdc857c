//! The TUN device: the ways to open it, and reading and writing packets with or without a virtio-net header.
//!
//! It must not know the engine or the event loop: it moves bytes and translates the virtio-net header.
#![allow(unsafe_code)] // ifreq and the TUN ioctls have no safe wrapper

use crate::packet::{InnerChecksum, Meta, Transport, parse, proto};
use rustix::io::Errno;
use std::cmp::Ordering;
use std::fmt;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// Bytes of the header before each packet of a device with offload (`struct virtio_net_hdr`).
pub const HEADER: usize = 10;
/// Bytes of the largest packet.
pub const MOST: usize = 65_535;

/// Room for one packet with its header. The packet starts at [`HEADER`], with or without a header.
pub type Frame = [u8; HEADER + MOST];

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`.
const NEEDS_CSUM: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_NONE`, `_TCPV4`, `_TCPV6`, `_UDP_L4`, and the bit `_ECN`.
const GSO_NONE: u8 = 0;
const GSO_TCP4: u8 = 1;
const GSO_TCP6: u8 = 4;
const GSO_UDP: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// Translates the header of a packet; `None` if it makes no sense: a kind of segmentation that no device is asked for,
/// segments without a size, or a checksum outside the packet or in front of its transport.
///
/// The checksum that it describes may be that of a packet inside this one: then this packet's own is complete.
#[inline]
pub fn meta(header: &[u8], packet: &[u8]) -> Option<Meta> {
    // The fields are in the machine's own byte order.
    let field = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
    let (size, start, offset) = (field(4), field(6), field(8));
    let gso_size = match header[1] & !GSO_ECN {
        GSO_NONE if header[1] == GSO_NONE => 0,
        GSO_TCP4 | GSO_TCP6 | GSO_UDP if size != 0 => size,
        _ => return None,
    };
    let mut meta = Meta { gso_size, ..Meta::default() };
    if header[0] & NEEDS_CSUM == 0 {
        return Some(meta);
    }
    if usize::from(start) + usize::from(offset) + 2 > packet.len() {
        return None;
    }
    match usize::from(start).cmp(&transport_at(packet)?) {
        Ordering::Less => return None,
        Ordering::Equal => meta.partial_checksum = true,
        // Segments of a packet inside would each need its headers: no such kind of segmentation is asked for.
        Ordering::Greater if gso_size != 0 => return None,
        Ordering::Greater => meta.inner_checksum = Some(InnerChecksum { start, field: offset }),
    }
    Some(meta)
}

/// Returns where the transport header of a packet begins; 0 if its headers make no sense, which the engine then says.
#[inline]
fn transport_at(packet: &[u8]) -> Option<usize> {
    Some(match (packet.first()? >> 4, packet.get(6), packet.get(9)) {
        (4, _, Some(&(proto::TCP | proto::UDP))) => usize::from(packet[0] & 15) * 4,
        (6, Some(&(proto::TCP | proto::UDP)), _) => 40,
        _ => parse(packet).map_or(0, |parsed| parsed.offset),
    })
}

/// Writes the header that describes a packet to the device: the inverse of [`meta`].
///
/// A packet without an unfinished checksum is sent as it is; a header that could not be valid is left zero.
pub fn put_meta(header: &mut [u8], packet: &[u8], meta: Meta) {
    header[..HEADER].fill(0);
    let Ok(parsed) = parse(packet) else { return };
    if let Some(inner) = meta.inner_checksum {
        header[0] = NEEDS_CSUM;
        header[6..8].copy_from_slice(&inner.start.to_ne_bytes());
        header[8..10].copy_from_slice(&inner.field.to_ne_bytes());
        return;
    }
    let v6 = parsed.addresses.is_v6();
    let (sum, gso, end) = match parsed.transport {
        Transport::Tcp { header, .. } => (16u16, if v6 { GSO_TCP6 } else { GSO_TCP4 }, usize::from(header)),
        Transport::Udp { .. } => (6, GSO_UDP, 8),
        _ => return,
    };
    if !meta.partial_checksum {
        return;
    }
    header[0] = NEEDS_CSUM;
    header[6..8].copy_from_slice(&(parsed.offset as u16).to_ne_bytes());
    header[8..10].copy_from_slice(&sum.to_ne_bytes());
    if meta.gso_size != 0 {
        header[1] = gso;
        header[2..4].copy_from_slice(&((parsed.offset + end) as u16).to_ne_bytes());
        header[4..6].copy_from_slice(&meta.gso_size.to_ne_bytes());
    }
}

/// Why a device could not be opened, and how to fix it.
#[derive(Debug)]
pub struct OpenError {
    name: String,
    doing: &'static str,
    source: io::Error,
}

impl OpenError {
    /// Returns the system's error number.
    pub fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }
}

fn failed(name: &str, doing: &'static str) -> impl Fn(io::Error) -> OpenError {
    move |source| OpenError { name: name.into(), doing, source }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OpenError { name, doing, source } = self;
        write!(f, "cannot {doing} the TUN device {name}: {source}; ")?;
        f.write_str(match Errno::from_io_error(source) {
            Some(Errno::NOENT | Errno::NXIO | Errno::NODEV) => {
                "/dev/net/tun is missing: load the module (modprobe tun), or give the container the device \
                 (--device /dev/net/tun)"
            }
            Some(Errno::ACCESS | Errno::PERM) => {
                "run as root or with CAP_NET_ADMIN (setcap cap_net_admin+ep on the program), and make sure that \
                 /dev/net/tun may be read and written"
            }
            Some(Errno::BUSY) => "another process holds the device: stop it, or choose another name (gateway.device)",
            Some(Errno::INVAL) => {
                "a device of that name exists and is not a TUN device of this kind: delete it if nobody needs it (ip link \
                 delete), or choose another name (gateway.device)"
            }
            _ => "see dmesg",
        })
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// An open TUN device, or one queue of it; non-blocking.
#[derive(Debug)]
pub struct Tun {
    fd: OwnedFd,
    name: String,
    vnet: bool,
    mask: libc::c_uint,
}

impl Tun {
    /// Opens a device, with or without offload.
    pub fn open(name: &str, offload: bool) -> Result<Tun, OpenError> {
        if offload { Tun::open_offload(name) } else { Tun::open_plain(name) }
    }

    /// Opens a device with virtio-net header, checksum offload and segmentation offload: TCP over IPv4 and IPv6 with
    /// ECN, and UDP if the kernel supports it (6.2 and later).
    pub fn open_offload(name: &str) -> Result<Tun, OpenError> {
        Tun::open_one(name, true)
    }

    /// Opens a device without a virtio-net header: each read returns one packet of at most the MTU.
    pub fn open_plain(name: &str) -> Result<Tun, OpenError> {
        Tun::open_one(name, false)
    }

    /// Opens a device with several queues, with offload or without. For each packet the program returns the queue
    /// (`TUNSETSTEERINGEBPF`).
    ///
    /// The kernel refuses it (EINVAL) if the device exists, persistent, with a single queue.
    pub fn open_queues(
        name: &str,
        offload: bool,
        queues: usize,
        program: BorrowedFd<'_>,
    ) -> Result<Vec<Tun>, OpenError> {
        let mut all = vec![Tun::open_with(name, offload, libc::IFF_MULTI_QUEUE)?];
        steer(all[0].as_raw_fd(), program.as_raw_fd()).map_err(failed(name, "steer"))?;
        while all.len() < queues {
            all.push(Tun::open_with(name, offload, libc::IFF_MULTI_QUEUE)?);
        }
        Ok(all)
    }

    fn open_one(name: &str, offload: bool) -> Result<Tun, OpenError> {
        let tun = match Tun::open_with(name, offload, 0) {
            // A persistent device made for several queues takes no other flags; one queue of it does as well.
            Err(e) if e.errno() == Some(libc::EINVAL) => {
                Tun::open_with(name, offload, libc::IFF_MULTI_QUEUE).map_err(|_| e)?
            }
            other => other?,
        };
        // A program that a killed gateway left on a persistent device. Kernels before 4.16 know none.
        let _ = steer(tun.as_raw_fd(), -1);
        Ok(tun)
    }

    /// Opens a device or, with IFF_MULTI_QUEUE, one more queue of it, and sets all that a persistent device may have kept
    /// from its last user.
    fn open_with(name: &str, offload: bool, more: libc::c_int) -> Result<Tun, OpenError> {
        let failed = |doing| failed(name, doing);
        let fd = std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun").map_err(failed("open"))?;
        let raw = fd.as_raw_fd();
        let header = if offload { libc::IFF_VNET_HDR } else { 0 };
        set_iff(raw, name, libc::IFF_TUN | libc::IFF_NO_PI | header | more).map_err(failed("create"))?;
        set_number(raw, libc::TUNSETSNDBUF, libc::c_int::MAX).map_err(failed("set the send buffer of"))?;
        let mut mask = 0;
        if offload {
            set_number(raw, libc::TUNSETVNETHDRSZ, HEADER as libc::c_int)
                .map_err(failed("set the length of the virtio-net header of"))?;
            // The machine's own byte order. Few kernels know the second, and none of those that do not can have it set.
            let _ = set_number(raw, libc::TUNSETVNETLE, 0);
            let _ = set_number(raw, libc::TUNSETVNETBE, 0);
            mask = best_offload(raw);
        }
        set_offload(raw, mask).map_err(failed("set the offload of"))?;
        let tun = Tun { fd: first_to_go(fd.into()), name: name.into(), vnet: offload, mask };
        tun.set_nonblocking().map_err(failed("set up"))?;
        Ok(tun)
    }

    /// Lets a loaded program choose the queue.
    pub fn steer(&self, program: BorrowedFd<'_>) -> Result<(), OpenError> {
        steer(self.as_raw_fd(), program.as_raw_fd()).map_err(failed(&self.name, "steer"))
    }

    /// Takes over a device that another process opened; its flags say whether it has a virtio-net header.
    pub fn from_passed(fd: OwnedFd) -> Result<Tun, OpenError> {
        let failed = |doing, source| OpenError { name: "passed to this process".into(), doing, source };
        let (name, flags) = get_iff(fd.as_raw_fd()).map_err(|source| failed("query", source))?;
        if flags & libc::IFF_TUN == 0 || flags & libc::IFF_NO_PI == 0 {
            let text = format!("{name} is not a TUN device without packet information (flags {flags:#x})");
            return Err(failed("take over", io::Error::new(io::ErrorKind::InvalidInput, text)));
        }
        let vnet = flags & libc::IFF_VNET_HDR != 0;
        let mask = if vnet { best_offload(fd.as_raw_fd()) } else { 0 };
        set_offload(fd.as_raw_fd(), mask).map_err(|source| failed("set the offload of", source))?;
        let tun = Tun { fd: first_to_go(fd), name, vnet, mask };
        tun.set_nonblocking().map_err(|source| failed("set up", source))?;
        Ok(tun)
    }

    /// The device's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns whether each packet comes with a virtio-net header.
    pub fn has_header(&self) -> bool {
        self.vnet
    }

    /// Describes what the device offloads, for the log.
    pub fn offload(&self) -> &'static str {
        match (self.vnet, self.mask & libc::TUN_F_USO4 != 0) {
            (false, _) => "none",
            (true, true) => "checksum, TCPv4, TCPv6, UDP segmentation",
            (true, false) => "checksum, TCPv4, TCPv6 segmentation (the kernel has no UDP segmentation for TUN)",
        }
    }

    /// Reads a packet and returns its length without the header; `WouldBlock` if there is none.
    ///
    /// A device without a header leaves zeros in its place.
    #[inline]
    pub fn read(&self, frame: &mut Frame) -> io::Result<usize> {
        if self.vnet {
            let read = rustix::io::read(&self.fd, &mut frame[..])?;
            read.checked_sub(HEADER).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
        } else {
            Ok(rustix::io::read(&self.fd, &mut frame[HEADER..])?)
        }
    }

    /// Writes a packet of `len` bytes, preceded by the header.
    #[inline]
    pub fn write(&self, frame: &Frame, len: usize) -> io::Result<()> {
        let start = if self.vnet { 0 } else { HEADER };
        rustix::io::write(&self.fd, &frame[start..HEADER + len])?;
        Ok(())
    }

    /// Writes a packet whose header is elsewhere; a device without headers gets the packet alone.
    #[inline]
    pub fn write_parts(&self, header: &[u8], packet: &[u8]) -> io::Result<()> {
        if self.vnet {
            rustix::io::writev(&self.fd, &[IoSlice::new(header), IoSlice::new(packet)])?;
        } else {
            rustix::io::write(&self.fd, packet)?;
        }
        Ok(())
    }

    fn set_nonblocking(&self) -> io::Result<()> {
        Ok(rustix::io::ioctl_fionbio(&self.fd, true)?)
    }
}

impl AsRawFd for Tun {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Gives the device's descriptor a number above all others, if the process may have so many.
///
/// When a process is killed, Linux releases what its descriptors stand for from the highest number down. The device and its
/// routes must go before the BPF programs that mark replies: in between, replies would reach clients untranslated.
fn first_to_go(fd: OwnedFd) -> OwnedFd {
    const ABOVE: RawFd = 512;
    rustix::io::fcntl_dupfd_cloexec(&fd, ABOVE).unwrap_or(fd)
}

fn empty_request() -> libc::ifreq {
    // SAFETY: an ifreq is plain old data, for which all zeros are valid.
    unsafe { std::mem::zeroed() }
}

fn set_iff(fd: RawFd, name: &str, flags: libc::c_int) -> io::Result<()> {
    let mut request = empty_request();
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the name is longer than 15 bytes"));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which lives through the call.
    check(unsafe { libc::ioctl(fd, libc::TUNSETIFF, &raw mut request) })
}

fn get_iff(fd: RawFd) -> io::Result<(String, libc::c_int)> {
    let mut request = empty_request();
    // SAFETY: TUNGETIFF writes one ifreq, which lives through the call.
    check(unsafe { libc::ioctl(fd, libc::TUNGETIFF, &raw mut request) })?;
    let name = request.ifr_name.iter().take_while(|byte| **byte != 0).map(|byte| *byte as u8 as char).collect();
    // SAFETY: TUNGETIFF has filled in the union member that holds the flags.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    Ok((name, libc::c_int::from(flags as u16)))
}

/// Returns the most that the kernel offloads to a device with a virtio-net header.
fn best_offload(fd: RawFd) -> libc::c_uint {
    let tcp = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
    let all = tcp | libc::TUN_F_USO4 | libc::TUN_F_USO6;
    if set_offload(fd, all).is_ok() { all } else { tcp }
}

fn set_offload(fd: RawFd, mask: libc::c_uint) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its argument by value.
    check(unsafe { libc::ioctl(fd, libc::TUNSETOFFLOAD, libc::c_ulong::from(mask)) })
}

/// Sets one of the device's settings that are passed as a pointer to an int.
fn set_number(fd: RawFd, which: libc::Ioctl, number: libc::c_int) -> io::Result<()> {
    // SAFETY: the ioctls for which it is called read one int, which lives through the call.
    check(unsafe { libc::ioctl(fd, which, &raw const number) })
}

/// Lets a loaded program choose the queue, or none (-1).
fn steer(fd: RawFd, program: RawFd) -> io::Result<()> {
    set_number(fd, libc::TUNSETSTEERINGEBPF, program)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_gives_partial_checksums_and_segment_sizes() {
        let header = |flags, gso, fields: [u16; 4]| {
            let [hdr_len, size, start, offset] = fields.map(u16::to_ne_bytes);
            [&[flags, gso][..], &hdr_len, &size, &start, &offset].concat()
        };
        let said = |partial_checksum, gso_size| Some(Meta { partial_checksum, gso_size, ..Meta::default() });
        let inner =
            |start, field| Some(Meta { inner_checksum: Some(InnerChecksum { start, field }), ..Meta::default() });
        let (mut v4, mut v6, mut tunnel) = (vec![0; 100], vec![0; 100], vec![0; 100]);
        (v4[0], v4[3], v4[9]) = (0x45, 100, 6);
        (v6[0], v6[5], v6[6]) = (0x60, 60, 6);
        (tunnel[0], tunnel[3], tunnel[9]) = (0x46, 100, 4);
        for (packet, flags, gso, fields, want) in [
            (&v4, 0, 0, [0; 4], said(false, 0)),
            // VIRTIO_NET_HDR_F_DATA_VALID.
            (&v4, 2, 0, [0; 4], said(false, 0)),
            (&v4, 0, 0, [54, 1448, 200, 16], said(false, 0)),
            (&v4, 1, 0, [0, 0, 20, 6], said(true, 0)),
            (&v4, 1, 0, [0, 0, 98, 0], inner(98, 0)),
            (&v4, 1, 0, [0, 0, 70, 16], inner(70, 16)),
            (&v4, 1, 1, [54, 1448, 70, 16], None),
            (&v4, 1, 0, [0, 0, 19, 16], None),
            (&v6, 1, 0, [0, 0, 40, 16], said(true, 0)),
            (&v6, 1, 0, [0, 0, 80, 16], inner(80, 16)),
            (&v6, 1, 0, [0, 0, 20, 16], None),
            (&tunnel, 1, 0, [0, 0, 44, 16], inner(44, 16)),
            (&v4, 1, 0, [0, 0, 98, 1], None),
            (&v4, 1, 0, [0, 0, u16::MAX, u16::MAX], None),
            (&v4, 1, 1, [54, 1448, 20, 16], said(true, 1448)),
            (&v4, 1, 0x81, [54, 1448, 20, 16], said(true, 1448)),
            (&v6, 1, 4, [74, 1428, 40, 16], said(true, 1428)),
            (&v4, 1, 5, [42, 1472, 20, 6], said(true, 1472)),
            (&v4, 1, 1, [54, 0, 20, 16], None),
            // Whole datagrams to fragment (UFO), an unknown kind, and ECN without segments.
            (&v4, 1, 3, [42, 1472, 20, 6], None),
            (&v4, 1, 2, [54, 1448, 20, 16], None),
            (&v4, 0, 0x80, [0; 4], None),
        ] {
            assert_eq!(meta(&header(flags, gso, fields), packet), want, "{flags} {gso:#x} {fields:?}");
        }
    }

    #[test]
    fn a_written_header_is_read_back() {
        use etherparse::PacketBuilder;
        let (mut tcp, mut udp) = (Vec::new(), Vec::new());
        PacketBuilder::ipv6([1; 16], [2; 16], 9).tcp(1, 2, 3, 4).ack(5).write(&mut tcp, &[0; 3000]).unwrap();
        PacketBuilder::ipv4([1; 4], [2; 4], 9).udp(1, 2).write(&mut udp, &[0; 3000]).unwrap();
        let numbers = |h: &[u8]| [2, 4, 6, 8].map(|at| u16::from_ne_bytes([h[at], h[at + 1]]));
        for (packet, partial_checksum, gso_size, want) in [
            (&tcp, true, 1400, (1, 4, [60, 1400, 40, 16])),
            (&udp, true, 1400, (1, 5, [28, 1400, 20, 6])),
            (&udp, true, 0, (1, 0, [0, 0, 20, 6])),
            (&tcp, false, 1400, (0, 0, [0; 4])),
        ] {
            let said = Meta { partial_checksum, gso_size, ..Meta::default() };
            let mut header = [9; HEADER];
            put_meta(&mut header, packet, said);
            assert_eq!((header[0], header[1], numbers(&header)), want);
            assert_eq!(meta(&header, packet), Some(if partial_checksum { said } else { Meta::default() }));
        }
        let inner = Meta { inner_checksum: Some(InnerChecksum { start: 90, field: 16 }), ..Meta::default() };
        let mut header = [9; HEADER];
        put_meta(&mut header, &udp, inner);
        assert_eq!(meta(&header, &udp), Some(inner));
    }

    #[test]
    fn an_open_error_says_what_to_do() {
        for (code, want) in
            [(libc::EPERM, "CAP_NET_ADMIN"), (libc::EBUSY, "another process"), (libc::ENOENT, "modprobe tun")]
        {
            let error = OpenError { name: "eq0".into(), doing: "create", source: io::Error::from_raw_os_error(code) };
            assert!(error.to_string().contains(want) && error.to_string().contains("eq0"), "{error}");
        }
    }

    /// Leaves a persistent device with these flags, a longer header and little room to send.
    fn leave_persistent(name: &str, flags: libc::c_int) {
        let file = std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun").unwrap();
        let fd = file.as_raw_fd();
        set_iff(fd, name, libc::IFF_TUN | flags).unwrap();
        set_number(fd, libc::TUNSETVNETHDRSZ, 12).unwrap();
        set_number(fd, libc::TUNSETSNDBUF, 4096).unwrap();
        // SAFETY: TUNSETPERSIST takes its argument by value.
        check(unsafe { libc::ioctl(fd, libc::TUNSETPERSIST, 1) }).unwrap();
    }

    fn number(tun: &Tun, which: libc::Ioctl) -> libc::c_int {
        let mut number = 0;
        // SAFETY: the ioctls for which it is called write one int, which lives through the call.
        check(unsafe { libc::ioctl(tun.as_raw_fd(), which, &raw mut number) }).unwrap();
        number
    }

    #[test]
    fn what_a_persistent_device_kept_of_its_last_user_is_set_right() {
        let Some(ns) = crate::gateway::testing::namespace("eq-tun1") else { return };
        ns.run(|| {
            let (header, multi) = (libc::IFF_VNET_HDR, libc::IFF_MULTI_QUEUE);
            for (name, flags) in [("one", 0), ("head", header), ("many", multi), ("both", header | multi)] {
                leave_persistent(name, flags);
                for offload in [true, false, true] {
                    let tun = Tun::open_one(name, offload).unwrap_or_else(|e| panic!("{e}"));
                    assert_eq!(get_iff(tun.as_raw_fd()).unwrap().1 & header != 0, offload, "{name}");
                    assert_eq!(get_iff(tun.as_raw_fd()).unwrap().1 & libc::IFF_NO_PI, libc::IFF_NO_PI, "{name}");
                    assert_eq!(number(&tun, libc::TUNGETSNDBUF), libc::c_int::MAX, "{name}");
                    if offload {
                        assert_eq!(number(&tun, libc::TUNGETVNETHDRSZ), HEADER as libc::c_int, "{name}");
                    }
                }
            }
        })
        .unwrap();
    }

    #[test]
    fn a_passed_descriptor_of_another_kind_is_refused() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(Tun::from_passed(file.into()).is_err());
    }
}
