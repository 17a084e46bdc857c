//! The queues of the device: what a queue loses when it overflows, what is said of it, and that no server is judged by
//! it. Bursts arrive while the gateway is stopped, so that which packet is lost does not depend on the machine.

use crate::Service;
use crate::lab::cable::write;
use crate::lab::packets::{SYN, tcp, udp};
use crate::world::{CLIENT, Lines, SERVICE, World, eventually, program, run};
use equipoise::gateway::tun::Tun;
use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

/// Packets that each queue of the gateway's device holds.
const ROOM: u64 = 1000;

const ECHO: Service = ("web", "80/tcp", 1, 8080);
const DATAGRAMS: Service = ("dns", "53/udp", 1, 5353);

/// A device of the gateway behind which is 198.18.0.0/15: what is written to it arrives from there.
fn outside(world: &World) -> Tun {
    let tun = world.gateway.run(|| Tun::open_plain("outside")).unwrap().unwrap_or_else(|e| panic!("{e}"));
    world.gateway.up("outside").unwrap();
    world.gateway.route("198.18.0.0/15".parse().unwrap(), "outside", None).unwrap();
    tun
}

fn stranger(n: u32) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::from(0xc612_0000 + n).into(), 4000)
}

fn service(port: u16) -> SocketAddr {
    SocketAddr::new(SERVICE[0].parse().unwrap(), port)
}

fn text(world: &World, command: &str) -> String {
    String::from_utf8(world.eqctl_raw(&[command]).stdout).unwrap()
}

/// A connection through the gateway, both of its ends, over which a byte has gone each way.
fn established(world: &World) -> (TcpStream, TcpStream) {
    let listener = world.servers[0].run(|| TcpListener::bind(("0.0.0.0", 8080))).unwrap().unwrap();
    let mut near = world.client.run(|| TcpStream::connect(service(80))).unwrap().unwrap();
    let mut far = listener.accept().unwrap().0;
    for stream in [&near, &far] {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    }
    near.write_all(b"?").unwrap();
    far.read_exact(&mut [0]).unwrap();
    far.write_all(b"!").unwrap();
    near.read_exact(&mut [0]).unwrap();
    (near, far)
}

/// Whether the programs under test may load BPF programs here: not in a user namespace.
fn may_steer(world: &World) -> bool {
    let queues = world.status().queues;
    assert!(queues == 3 || !world.log().contains("queues: 3"), "{queues}");
    if queues == 1 {
        assert!(world.log().contains("no BPF program can be used"), "{}", world.log());
        assert!(!own_user_namespace_is_the_first() || !rustix::process::geteuid().is_root(), "{}", world.log());
        println!("SKIPPED: this needs CAP_BPF in the first user namespace");
    }
    queues == 3
}

pub fn own_user_namespace_is_the_first() -> bool {
    std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]))
}

#[test]
fn a_flood_takes_packets_of_its_own_kind_only_and_they_are_counted() {
    let world = World::new("queues");
    let gateway = world.start(&world.configuration("", &[ECHO, DATAGRAMS]));
    if !may_steer(&world) {
        return;
    }
    let outside = outside(&world);
    let (mut near, mut far) = established(&world);
    let server = world.servers[0].run(|| UdpSocket::bind(("0.0.0.0", 5353))).unwrap().unwrap();
    server.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let client = world.client.run(|| UdpSocket::bind(("0.0.0.0", 0))).unwrap().unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    client.send_to(b"question", service(53)).unwrap();
    let to_client = server.recv_from(&mut [0; 16]).unwrap().1;
    let before = world.totals().device;
    assert_eq!(before.lost, 0);
    // More openers and datagrams of clients than their queues hold, then some packets of those who are known.
    let (syns, datagrams, answers) = (ROOM + 2_006, ROOM + 300, 200);
    gateway.signal(Signal::STOP);
    for n in 0..syns as u32 {
        assert!(write(&outside, &tcp(stranger(n), service(80), SYN, 7, 0)));
    }
    for n in 0..datagrams as u32 {
        assert!(write(&outside, &udp(stranger(n), service(53), b"question")));
    }
    near.write_all(b"after all that").unwrap();
    for _ in 0..answers {
        server.send_to(b"answer", to_client).unwrap();
    }
    gateway.signal(Signal::CONT);
    far.read_exact(&mut [0; 14]).unwrap();
    for _ in 0..answers {
        client.recv(&mut [0; 16]).unwrap();
    }
    eventually("all packets to be read", || {
        let device = world.totals().device;
        device.read - before.read + device.lost > syns + datagrams + answers
    });
    // The kernel frees the places of packets that were read in lots of 16.
    let (lost, least) = (world.totals().device.lost, 2_006 + 300);
    assert!((least..least + 2 * 16).contains(&lost), "{lost} of {least}");
    assert_eq!(world.status().lost, lost);
    let shown = format!("{},{:03}", lost / 1000, lost % 1000);
    let counters = text(&world, "counters");
    assert!(counters.contains(&format!("adds up\nbefore that, the device lost {shown} of ")), "{counters}");
    assert!(text(&world, "status").contains(&format!("3 queues, {shown} packets lost in them")));
    assert!(world.log().contains(&format!("{lost} packets came faster than they were read")), "{}", world.log());
    gateway.terminate();
}

#[test]
fn without_the_right_to_load_programs_there_is_one_queue_and_a_line_that_says_so() {
    let world = World::new("onequeue");
    let setpriv = program("setpriv");
    let wrap = [setpriv.to_str().unwrap(), "--bounding-set=-bpf,-sys_admin", "--inh-caps=-bpf,-sys_admin"];
    let _gateway = world.start_by(&world.configuration("", &[ECHO]), &wrap);
    established(&world);
    assert_eq!(world.status().queues, 1);
    let log = world.log();
    for want in ["so the device has one queue", "enters the device: behind a masquerading gateway"] {
        assert_eq!(log.matches(want).count(), 1, "{want}: {log}");
    }
    for want in ["no BPF program can be used", "to fix it: ", "CAP_NET_ADMIN CAP_BPF"] {
        assert_eq!(log.matches(want).count(), 2, "one for each of both: {want}: {log}");
    }
}

#[test]
fn a_persistent_device_is_used_as_it_can_be() {
    for (kind, queues) in [("", 1), ("multi_queue", 3)] {
        let world = World::new(&format!("persist{queues}"));
        let mut ip = world.gateway.command(program("ip").to_str().unwrap());
        ip.args(format!("tuntap add equipoise0 mode tun {kind}").split_whitespace());
        let output = run(&mut ip);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // The second finds what the first has left.
        for _ in 0..2 {
            let gateway = world.start(&world.configuration("", &[ECHO]));
            if queues == 3 && !may_steer(&world) {
                return;
            }
            established(&world);
            assert_eq!(world.status().queues, queues);
            let said = world.log().contains("cannot be opened with several queues");
            assert_eq!(said, queues == 1 && own_user_namespace_is_the_first(), "{}", world.log());
            gateway.terminate();
        }
    }
}

/// A probe's answer that finds the queue full while the gateway does not read it.
#[test]
fn an_answer_that_was_lost_in_the_own_queue_judges_no_server() {
    let world = World::new("lapse");
    let monitor = "[[pool.monitor]]\nname = \"ask\"\ntype = \"udp\"\npayload = \"ping\"\nexpect-prefix = \"pong\"\n\
                   interval = \"500ms\"\ntimeout = \"400ms\"\nfall = 1\nrise = 1\njitter = 0\n";
    let configuration = world.probing(DATAGRAMS, Lines { rest: monitor, ..Lines::default() });
    let server = world.servers[0].run(|| UdpSocket::bind(("::", 5353))).unwrap().unwrap();
    server.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let gateway = world.start(&configuration);
    let answer = |server: &UdpSocket| {
        let from = server.recv_from(&mut [0; 16]).unwrap().1;
        server.send_to(b"pong", from).unwrap();
    };
    let downs = || world.log().matches("is DOWN").count();
    for _ in 0..6 {
        answer(&server);
    }
    assert_eq!(downs(), 0, "{}", world.log());
    let client = world.client.run(|| UdpSocket::bind((CLIENT[0], 0))).unwrap().unwrap();
    client.send_to(b"question", (SERVICE[0], 53)).unwrap();
    let (mut asker, mut prober) = (None, None);
    while asker.is_none() || prober.is_none() {
        let mut buffer = [0; 16];
        let (len, from) = server.recv_from(&mut buffer).unwrap();
        *(if &buffer[..len] == b"question" { &mut asker } else { &mut prober }) = Some(from);
        if &buffer[..len] != b"question" && asker.is_none() {
            server.send_to(b"pong", prober.take().unwrap()).unwrap();
        }
    }
    let (asker, prober) = (asker.unwrap(), prober.unwrap());
    gateway.signal(Signal::STOP);
    // Replies of a flow fill the queue of the answers.
    for _ in 0..ROOM + 500 {
        server.send_to(b"for a client", asker).unwrap();
    }
    server.send_to(b"pong", prober).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    gateway.signal(Signal::CONT);
    for _ in 0..6 {
        answer(&server);
    }
    let log = world.log();
    assert_eq!(downs(), 0, "{log}");
    assert!(log.contains("this process did not run for "), "{log}");
    assert!(world.totals().device.lost > 0);
    // A server that is silent goes down, though.
    eventually("the silent server to go down", || downs() > 0);
    assert!(world.log().contains("timed out after 400 ms"), "{}", world.log());
    gateway.terminate();
}
