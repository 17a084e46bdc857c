//! What goes out through the device, and what is counted of both directions.

use super::tun::{self, HEADER, Tun};
use crate::control::DeviceCounters;
use crate::packet::Meta;

/// Writes packets and counts.
#[derive(Debug)]
pub(super) struct Output {
    device: String,
    /// The counters of the device.
    pub(super) counters: DeviceCounters,
    /// The errno of the last write failure logged, so that a device that is down does not flood the log.
    complained: Option<i32>,
}

impl Output {
    /// Begins to count for the device of this name.
    pub(super) fn new(device: &str) -> Output {
        Output { device: device.into(), counters: DeviceCounters::default(), complained: None }
    }

    /// Begins with a device that was opened anew.
    pub(super) fn reopened(&mut self) {
        self.complained = None;
    }

    /// Counts a packet that was read and translates its header.
    ///
    /// `None` for a header that makes no sense. Such a packet is dropped: without a header to trust, neither its checksum
    /// nor its segments can be passed on correctly, and the kernel would refuse the same header from us (EINVAL). The
    /// engine never sees it, so its totals still add up.
    #[inline]
    pub(super) fn count_read(&mut self, header: &[u8], packet: &[u8]) -> Option<Meta> {
        self.counters.read += 1;
        self.counters.read_bytes += packet.len() as u64;
        let meta = tun::meta(header, packet);
        match &meta {
            Some(meta) => self.counters.super_packets += u64::from(meta.gso_size != 0),
            None => self.count_bad(header),
        }
        meta
    }

    #[cold]
    fn count_bad(&mut self, header: &[u8]) {
        self.counters.bad_headers += 1;
        if self.counters.bad_headers == 1 {
            log::warn!(
                "{}: dropping packets with an invalid virtio-net header, the first with {header:02x?}; `eqctl counters` \
                 counts them",
                self.device
            );
        }
    }

    /// Writes a packet with its header; one that the device refuses is lost and counted.
    #[inline]
    pub(super) fn write(&mut self, to: &Tun, header: &[u8], packet: &[u8]) {
        match to.write_parts(header, packet) {
            Ok(()) => {
                self.counters.written += 1;
                self.counters.written_bytes += packet.len() as u64;
            }
            Err(error) => {
                self.counters.write_failures += 1;
                if self.complained != error.raw_os_error() {
                    self.complained = error.raw_os_error();
                    log::warn!("{}: cannot write a packet of {} bytes: {error}", self.device, packet.len());
                }
            }
        }
    }

    /// Writes a packet that the engine made, or that one was split or translated into.
    pub(super) fn write_own(&mut self, to: &Tun, packet: &[u8], meta: Meta) {
        let mut header = [0; HEADER];
        tun::put_meta(&mut header, packet, meta);
        self.write(to, &header, packet);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_are_counted_and_those_with_a_bad_header_are_dropped() {
        let mut output = Output::new("equipoise0");
        let mut packet = vec![0; 1500];
        (packet[0], packet[9]) = (0x40, 6);
        let mut read = |flags, gso, size: u16| {
            let [a, b] = size.to_ne_bytes();
            output.count_read(&[flags, gso, 0, 0, a, b, 0, 0, 6, 0], &packet).map(|meta| meta.gso_size)
        };
        assert_eq!(read(0, 0, 0), Some(0));
        assert_eq!(read(1, 1, 1448), Some(1448));
        assert_eq!(read(1, 9, 1448), None);
        assert_eq!(read(1, 4, 0), None);
        let want =
            DeviceCounters { read: 4, read_bytes: 6000, super_packets: 1, bad_headers: 2, ..DeviceCounters::default() };
        assert_eq!(output.counters, want);
    }
}
