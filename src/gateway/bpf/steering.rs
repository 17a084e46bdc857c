//! The program that chooses the queue of the TUN device (`steer.bpf.c`).

use super::addresses::{AddressSet, Known, addresses_of, room};
use super::{BpfError, load, open};
use crate::config::Settings;
use aya::programs::SocketFilter;
use aya::{Ebpf, include_bytes_aligned};
use std::os::fd::{AsFd, BorrowedFd};

/// Queues among which the program chooses, the most urgent first: segments of TCP connections and what servers send;
/// clients' datagrams and everything without a connection; segments that want to open a TCP connection.
pub const QUEUES: usize = 3;

/// The program, loaded.
#[derive(Debug)]
pub struct Steering {
    ebpf: Ebpf,
    servers: Known,
}

impl Steering {
    /// Loads the program, for the servers of these settings.
    pub fn load(settings: &Settings) -> Result<Steering, BpfError> {
        let servers = addresses_of(settings);
        let most = room(servers.len());
        let ebpf = open(include_bytes_aligned!("steer.bpf.o"), &[("servers", most)])?;
        let mut steering = Steering { ebpf, servers: Known::default() };
        steering.extend(&servers)?;
        let program: &mut SocketFilter = steering.ebpf.program_mut("steer").expect("the program's name").try_into()?;
        load(|| program.load())?;
        Ok(steering)
    }

    /// Adds servers to those that it knows.
    pub fn extend(&mut self, servers: &AddressSet) -> Result<(), BpfError> {
        self.servers.extend(self.ebpf.map_mut("servers").expect("a map of the program"), servers)
    }

    /// Forgets other servers than these.
    pub fn restrict(&mut self, servers: &AddressSet) {
        self.servers.restrict(self.ebpf.map_mut("servers").expect("a map of the program"), servers);
    }

    fn program(&self) -> &SocketFilter {
        self.ebpf.program("steer").and_then(|program| program.try_into().ok()).expect("checked when it was loaded")
    }
}

/// The program's descriptor, for `TUNSETSTEERINGEBPF`.
impl AsFd for Steering {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.program().fd().expect("it is loaded").as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::testing::two_families;
    use aya::programs::{TestRun, TestRunOptions};
    use etherparse::{Ipv6FragmentHeader, PacketBuilder};

    /// The queue that the program chooses, by BPF_PROG_TEST_RUN, which wants an Ethernet header.
    fn steer(steering: &Steering, packet: &[u8]) -> u32 {
        let kind: [u8; 2] = if packet[0] >> 4 == 6 { [0x86, 0xdd] } else { [8, 0] };
        let frame = [&[0; 12][..], &kind, packet].concat();
        let options = TestRunOptions { data_in: Some(&frame), ..TestRunOptions::new() };
        steering.program().test_run(options).unwrap().return_value
    }

    fn loaded() -> Option<Steering> {
        match Steering::load(&two_families()) {
            Ok(steering) => Some(steering),
            // In a user namespace there is no right to load programs.
            Err(e) if e.errno == Some(libc::EPERM) => {
                println!("SKIPPED: {e}; {}", e.fix());
                None
            }
            Err(e) => panic!("{e}; {}", e.fix()),
        }
    }

    const CLIENT: ([u8; 4], [u8; 16]) = ([198, 51, 100, 7], [7; 16]);
    /// AddressSet of two servers of `two_families`.
    const SERVER: ([u8; 4], [u8; 16]) = ([10, 9, 0, 2], [0xfd, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);

    /// TCP of both families with these flags (as in the header) from an address.
    fn tcp(from: ([u8; 4], [u8; 16]), flags: u8) -> [Vec<u8>; 2] {
        let mut packets = [Vec::new(), Vec::new()];
        PacketBuilder::ipv4(from.0, [9; 4], 9).tcp(1, 2, 3, 4).write(&mut packets[0], &[0; 10]).unwrap();
        PacketBuilder::ipv6(from.1, [9; 16], 9).tcp(1, 2, 3, 4).write(&mut packets[1], &[0; 10]).unwrap();
        packets[0][20 + 13] = flags;
        packets[1][40 + 13] = flags;
        packets
    }

    fn udp(from: ([u8; 4], [u8; 16])) -> [Vec<u8>; 2] {
        let mut packets = [Vec::new(), Vec::new()];
        PacketBuilder::ipv4(from.0, [9; 4], 9).udp(1, 2).write(&mut packets[0], &[0; 10]).unwrap();
        PacketBuilder::ipv6(from.1, [9; 16], 9).udp(1, 2).write(&mut packets[1], &[0; 10]).unwrap();
        packets
    }

    /// The packet with a next header and bytes put between the IPv6 header and what followed it.
    fn extended(packet: &[u8], kind: u8, mut header: Vec<u8>) -> Vec<u8> {
        let mut longer = packet[..40].to_vec();
        header[0] = longer[6];
        longer[6] = kind;
        longer.extend(header);
        longer.extend(&packet[40..]);
        longer
    }

    #[test]
    fn what_a_packet_is_decides_its_queue() {
        let Some(steering) = loaded() else { return };
        let (syn, ack, rst, fin) = (2, 16, 4, 1);
        for (packets, want, what) in [
            (tcp(CLIENT, syn), 2, "SYN"),
            (tcp(CLIENT, syn | 0xc0), 2, "SYN with ECN"),
            (tcp(SERVER, syn), 2, "a server's own connection"),
            (tcp(CLIENT, 0), 2, "no flags"),
            (tcp(CLIENT, fin), 2, "FIN alone"),
            (tcp(CLIENT, ack), 0, "ACK"),
            (tcp(CLIENT, fin | ack), 0, "FIN"),
            (tcp(CLIENT, rst), 0, "RST"),
            (tcp(SERVER, syn | ack), 0, "SYN-ACK"),
            (udp(CLIENT), 1, "a client's datagram"),
            (udp(SERVER), 0, "a server's datagram"),
        ] {
            for packet in packets {
                assert_eq!(steer(&steering, &packet), want, "{what}: {packet:02x?}");
            }
        }
    }

    #[test]
    fn options_and_extensions_are_looked_behind_and_pieces_stay_together() {
        let Some(steering) = loaded() else { return };
        let [v4, v6] = tcp(CLIENT, 2);
        let mut options = v4.clone();
        options[0] = 0x46;
        options.splice(20..20, [1, 1, 1, 0]);
        assert_eq!(steer(&steering, &options), 2);
        options[24 + 13] = 16;
        assert_eq!(steer(&steering, &options), 0);
        let mut long = v6.clone();
        for kind in [60, 51, 43, 0] {
            // The authentication header counts in 4 bytes less two, the others in 8 bytes less one.
            long = extended(
                &long,
                kind,
                if kind == 51 { vec![0, 4] } else { vec![0, 2] }.into_iter().chain([0; 22]).collect(),
            );
        }
        assert_eq!(steer(&steering, &long), 2);
        long[40 + 96 + 13] = 16;
        assert_eq!(steer(&steering, &long), 0);
        // Fragments, whatever piece, wait with the datagrams, unless they come from a server.
        for (from, want) in [(CLIENT, 1), (SERVER, 0)] {
            let [v4, v6] = tcp(from, 2);
            for field in [0x2000u16, 0x2001, 0x0001] {
                let mut piece = v4.clone();
                piece[6..8].copy_from_slice(&field.to_be_bytes());
                assert_eq!(steer(&steering, &piece), want, "{field:#x}");
            }
            let fragment = Ipv6FragmentHeader::new(6.into(), 0.try_into().unwrap(), true, 7);
            assert_eq!(steer(&steering, &extended(&v6, 44, fragment.to_bytes().to_vec())), want);
        }
    }

    #[test]
    fn what_ends_early_or_is_no_ip_waits_with_the_datagrams() {
        let Some(steering) = loaded() else { return };
        for packet in tcp(CLIENT, 2) {
            let header = if packet[0] >> 4 == 4 { 20 } else { 40 };
            for len in [header, header + 13] {
                assert_eq!(steer(&steering, &packet[..len]), 1, "{len}");
            }
            assert_eq!(steer(&steering, &packet[..header + 14]), 2);
        }
    }
}
