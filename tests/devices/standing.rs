//! What clients feel when a server fails, leaves and comes back.

use crate::servers::{ALL, WHO};
use crate::world::{CLIENT, Lines, Running, SERVICE, World, eventually};
use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

/// What a busy machine may add.
const GRACE: Duration = Duration::from_secs(1);

/// A client that sends from one port for ever; its answers tell the server's number.
struct Asker {
    socket: UdpSocket,
    service: &'static str,
}

impl Asker {
    fn new(world: &World, family: usize) -> Asker {
        let address: IpAddr = CLIENT[family].parse().unwrap();
        let socket = world.client.run(|| UdpSocket::bind((address, 5353))).unwrap().unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        Asker { socket, service: SERVICE[family] }
    }

    /// Asks once; who answered, if anybody did.
    fn ask(&self) -> Option<usize> {
        self.socket.send_to(WHO, (self.service, 53)).unwrap();
        let mut buffer = [0; 512];
        let (len, _) = self.socket.recv_from(&mut buffer).ok()?;
        Some(usize::from(buffer[len - 1]))
    }

    /// Asks until somebody else than `not` answers; how long that took since `since`.
    fn until_another(&self, not: usize, since: Instant) -> Duration {
        eventually("another server's answer", || self.ask().is_some_and(|server| server != not));
        since.elapsed()
    }
}

#[test]
fn a_udp_client_of_one_port_reaches_a_live_server_within_a_probe_period_of_its_servers_death() {
    let world = World::new("udp");
    let mut servers: Vec<Option<Running>> = world.dnsmasq().into_iter().map(Some).collect();
    let (interval, timeout) = (Duration::from_millis(300), Duration::from_millis(500));
    let monitor = "[[pool.monitor]]\ntype = \"dns\"\nquery = \"who.test\"\ninterval = \"300ms\"\ntimeout = \"500ms\"\n\
                   fall = 1\nrise = 1\n";
    let _gateway = world.start(&world.probing(("dns", "53/udp", 3, 53), Lines { rest: monitor, ..Lines::default() }));
    for family in [0, 1] {
        let asker = Asker::new(&world, family);
        let mut server = 0;
        eventually("an answer", || {
            server = asker.ask().unwrap_or(0);
            server != 0
        });
        assert!((0..20).all(|_| asker.ask() == Some(server)), "one port, one server");
        servers[server - 1].take().unwrap().kill();
        let took = asker.until_another(server, Instant::now());
        let allowed = interval.mul_f64(1.1) + GRACE;
        assert!(took <= allowed, "family {family}, port closed: {took:?}, allowed {allowed:?}");
        servers[server - 1] = Some(world.dnsmasq_on(server, server as u8));
        let back = || world.monitors().iter().all(|row| row.state == "up");
        eventually("the server to come back", back);

        let server = asker.ask().expect("an answer");
        world.deafen(server, &ALL);
        let took = asker.until_another(server, Instant::now());
        let allowed = interval.mul_f64(1.1) + timeout + GRACE;
        assert!(took <= allowed, "family {family}, silence: {took:?}, allowed {allowed:?}");
        world.mend(server);
        eventually("the server to come back", back);
        let flows = world.flows(&["--client", CLIENT[family]]);
        assert!(flows.len() == 1 && flows[0].client.port() == 5353, "{flows:?}");
    }
}
