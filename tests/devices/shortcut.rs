//! Established TCP connections that the kernel carries past the gateway's device.

use crate::Service;
use crate::takeover::take_over;
use crate::world::{Running, SERVICE, World, eventually, program, run};
use equipoise::control::Totals;
use equipoise::engine::FlowRow;
use equipoise::flow::TimeoutState;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// One server, and what connections of a test do there is up to the test.
const TALK: Service = ("talk", "7000/tcp", 1, 7001);
const PORT: u16 = 7001;
const ON: &str = "shortcut = true";

/// A connection through the gateway, of which both ends are here.
struct Talk {
    client: TcpStream,
    server: TcpStream,
}

impl Talk {
    fn open(world: &World, family: usize) -> Talk {
        let own = SocketAddr::new(World::server_address(1, family), PORT);
        let listener = world.servers[0].run(|| TcpListener::bind(own)).unwrap().unwrap();
        let to = SocketAddr::new(SERVICE[family].parse().unwrap(), 7000);
        let client = world.client.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(5))).unwrap().unwrap();
        let (server, _) = listener.accept().unwrap();
        for end in [&client, &server] {
            end.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            end.set_nodelay(true).unwrap();
        }
        Talk { client, server }
    }

    /// Asks and answers so many times.
    fn exchange(&mut self, times: usize) {
        let mut buffer = [0; 100];
        for _ in 0..times {
            self.client.write_all(&[7; 100]).unwrap();
            self.server.read_exact(&mut buffer).unwrap();
            self.server.write_all(&[8; 100]).unwrap();
            self.client.read_exact(&mut buffer).unwrap();
        }
    }

    /// Has it carried by the kernel.
    fn last(&mut self, world: &World) {
        eventually("the kernel to carry the connection", || {
            self.exchange(10);
            world.flows(&[]).iter().any(|flow| flow.shortcut)
        });
    }
}

fn start(world: &World, more: &str) -> Running {
    let running = world.start(&(world.configuration(ON, &[TALK]) + more));
    assert!(world.log().contains("shortcut: the kernel carries"), "{}", world.log());
    running
}

/// Packets that entered the device, and packets that the kernel has carried past it.
fn ways(world: &World) -> (u64, u64) {
    let Totals { device, engine, .. } = world.totals();
    (device.read, engine.shortcut.unwrap().packets)
}

fn flow(world: &World) -> FlowRow {
    let mut flows = world.flows(&[]);
    assert_eq!(flows.len(), 1, "{flows:?}");
    flows.remove(0)
}

#[test]
fn the_kernel_carries_a_connection_until_it_is_closed() {
    let world = World::new("short");
    world.plain_cables();
    let running = start(&world, "");
    for family in [0, 1] {
        let mut talk = Talk::open(&world, family);
        talk.last(&world);
        let ((through, past), row) = (ways(&world), flow(&world));
        talk.exchange(200);
        eventually("the report", || ways(&world).1 >= past + 400);
        assert_eq!(ways(&world).0, through, "none of them entered the device");
        let (now, server) = (flow(&world), world.server_row(1));
        assert!(now.packets_in >= row.packets_in + 200 && now.packets_out >= row.packets_out + 200, "{now:?}");
        assert_eq!(server.packets_in + server.packets_out, {
            let totals = world.totals().engine;
            totals.translated + totals.shortcut.unwrap().packets
        });
        // The end comes through the gateway.
        drop(talk);
        eventually("the end of the connection", || flow(&world).state == TimeoutState::Closing);
        assert!(!flow(&world).shortcut);
        world.change("kill service talk");
        eventually("no flow", || world.flows(&[]).is_empty());
    }
    assert!(running.terminate().success());
}

/// A connection on which somebody asks and answers all the time.
struct Busy {
    thread: JoinHandle<Talk>,
    stop: Arc<AtomicBool>,
    times: Arc<AtomicU64>,
}

impl Busy {
    fn start(mut talk: Talk) -> Busy {
        let (stop, times) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stops, counts) = (Arc::clone(&stop), Arc::clone(&times));
        let thread = thread::spawn(move || {
            while !stops.load(Ordering::Relaxed) {
                talk.exchange(1);
                counts.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(1));
            }
            talk
        });
        Busy { thread, stop, times }
    }

    fn goes_on(&self, what: &str) {
        let before = self.times.load(Ordering::Relaxed);
        eventually(&format!("the connection to go on after {what}"), || {
            assert!(!self.thread.is_finished(), "after {what}");
            self.times.load(Ordering::Relaxed) > before + 50
        });
    }

    fn end(self) -> Talk {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

#[test]
fn busy_connections_do_not_notice_what_happens_around_them() {
    let world = World::new("short-busy");
    world.plain_cables();
    let mut gateway = start(&world, "");
    let all = || world.flows(&[]).iter().filter(|flow| flow.shortcut).count();
    let mut talks = [0, 1].map(|family| Talk::open(&world, family));
    talks.iter_mut().for_each(|talk| talk.exchange(20));
    let busy = talks.map(Busy::start);
    eventually("the kernel to carry both", || all() == 2);
    let ip = |words: &str| {
        let output = run(world.gateway.command("ip").args(words.split(' ')));
        assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let goes_on = |what: &str| {
        busy.iter().for_each(|busy| busy.goes_on(what));
        eventually(&format!("the kernel to carry both after {what}"), || all() == 2);
    };
    for words in
        ["neigh flush dev client", "neigh flush dev server1", "-6 neigh flush dev client", "-6 neigh flush dev server1"]
    {
        ip(words);
    }
    goes_on("the neighbours were forgotten");
    std::fs::write(world.file(), world.configuration(ON, &[TALK]).replace("[flows]", "client-mtu = 1400\n[flows]"))
        .unwrap();
    world.change("reload");
    goes_on("a reload");
    let (_, past) = ways(&world);
    assert!(past > 0);
    gateway = take_over(&world, gateway, &world.configuration(ON, &[TALK]));
    goes_on("a takeover");
    let flows = world.flows(&[]);
    assert!(flows.iter().all(|flow| flow.packets_in > past / 8), "their counters are taken over: {flows:?}");
    gateway = take_over(&world, gateway, &world.configuration("", &[TALK]));
    busy.iter().for_each(|busy| busy.goes_on("a takeover by one without a shortcut"));
    assert_eq!((all(), world.totals().engine.shortcut), (0, None));
    busy.into_iter().for_each(|busy| drop(busy.end()));
    assert!(gateway.terminate().success());
}

#[test]
fn an_interface_that_comes_later_carries_too_and_a_new_device_goes_on_with_what_was_carried() {
    let world = World::new("short-late");
    let gateway = start(&world, "");
    world.gateway.cable("later", &world.client, "eth1").unwrap();
    world.gateway.address("later", "198.51.101.1/24".parse().unwrap()).unwrap();
    world.client.address("eth1", "198.51.101.2/24".parse().unwrap()).unwrap();
    let via = "198.51.101.1".parse().unwrap();
    world.client.route(format!("{}/32", SERVICE[0]).parse().unwrap(), "eth1", Some(via)).unwrap();
    let mut talk = Talk::open(&world, 0);
    assert_eq!(talk.client.local_addr().unwrap().ip().to_string(), "198.51.101.2");
    talk.last(&world);
    let (through, past) = ways(&world);
    talk.exchange(200);
    eventually("the report", || ways(&world).1 >= past + 400);
    assert_eq!(ways(&world).0, through, "both directions are carried");
    let output = run(world.gateway.command("ip").args(["link", "del", "equipoise0"]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    eventually("the device to be there again", || world.log().contains("restored"));
    talk.exchange(100);
    let past = ways(&world).1;
    talk.exchange(100);
    eventually("the kernel to carry again", || {
        talk.exchange(10);
        ways(&world).1 > past + 100
    });
    assert!(gateway.terminate().success());
}

#[test]
fn a_carried_connection_ends_with_its_server() {
    let world = World::new("short-end");
    let pool = "[[nat-pool]]\nname = \"out\"\naddresses = [\"10.99.9.1\", \"fd99:0:0:9::1\"]\n";
    let two = ("talk", "7000/tcp", 2, PORT);
    let full = world
        .configuration(ON, &[two])
        .replace("pool = \"talk\"\n", "pool = \"talk\"\nnat = \"full\"\nnat-pool = \"out\"\n");
    let gateway = world.start(&(full + pool));
    world.change("server disable server2");
    let mut talks = [0, 1].map(|family| Talk::open(&world, family));
    for talk in &mut talks {
        talk.exchange(20);
        assert_ne!(talk.server.peer_addr().unwrap().ip(), talk.client.local_addr().unwrap().ip(), "full NAT");
    }
    eventually("the kernel to carry both", || {
        talks.iter_mut().for_each(|talk| talk.exchange(5));
        world.flows(&[]).iter().filter(|flow| flow.shortcut).count() == 2
    });
    let (through, past) = ways(&world);
    talks.iter_mut().for_each(|talk| talk.exchange(100));
    eventually("the report", || ways(&world).1 >= past + 400);
    assert_eq!(ways(&world).0, through, "none of them entered the device");
    world.change("server remove server1 --now");
    for talk in &mut talks {
        for end in [&mut talk.client, &mut talk.server] {
            let error = end.read(&mut [0]).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
        }
    }
    assert!(world.flows(&[]).is_empty());
    assert_eq!(world.totals().engine.shortcut.unwrap().flows, 0);
    assert!(gateway.terminate().success());
}

#[test]
fn a_carried_connection_expires_when_it_is_silent_and_not_before() {
    let world = World::new("short-idle");
    let gateway = start(&world, "[timeouts]\ntcp-established = \"1s\"\n");
    let mut talk = Talk::open(&world, 0);
    talk.last(&world);
    let (through, began) = (ways(&world).0, Instant::now());
    while began.elapsed() < Duration::from_millis(2500) {
        talk.exchange(1);
        thread::sleep(Duration::from_millis(100));
    }
    assert!(flow(&world).shortcut);
    assert_eq!(ways(&world).0, through, "only the kernel has seen it");
    eventually("its end", || world.flows(&[]).is_empty());
    assert_eq!(world.totals().engine.shortcut.unwrap().flows, 0);
    assert!(gateway.terminate().success());
}

#[test]
fn what_is_too_long_for_the_way_on_is_answered_by_the_slow_one() {
    let world = World::new("short-mtu");
    let gateway = start(&world, "");
    for family in [0, 1] {
        let mut talk = Talk::open(&world, family);
        talk.last(&world);
        let through = ways(&world).0;
        // The ends still believe in 1500 bytes.
        world.gateway.mtu("server1", 1400).unwrap();
        let data = vec![9; 300_000];
        let mut sender = talk.client.try_clone().unwrap();
        let to_send = data.clone();
        let sending = thread::spawn(move || sender.write_all(&to_send));
        let mut got = vec![0; data.len()];
        talk.server.read_exact(&mut got).unwrap();
        sending.join().unwrap().unwrap();
        assert!(got == data, "the data is another");
        assert!(ways(&world).0 > through, "the kernel says on the slow way that it is too long");
        world.gateway.mtu("server1", 1500).unwrap();
        world.change("kill service talk");
    }
    assert!(gateway.terminate().success());
}

#[test]
fn nothing_is_carried_past_policies_of_ipsec() {
    let world = World::new("short-sec");
    let gateway = start(&world, "");
    let mut talk = Talk::open(&world, 0);
    talk.last(&world);
    let ip = |words: &str| {
        let output = run(world.gateway.command("ip").args(words.split(' ')));
        assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let own = World::server_address(1, 0);
    ip(&format!("xfrm policy add dst {own}/32 dir out action block"));
    // Without the shortcut nothing would arrive at the server any more.
    eventually("the gateway to see the policy", || {
        talk.client.write_all(&[7]).unwrap();
        !flow(&world).shortcut
    });
    assert!(world.log().contains("IPsec policies"), "{}", world.log());
    ip("xfrm policy flush");
    eventually("what was stopped to arrive", || {
        talk.server.set_nonblocking(true).unwrap();
        let more = talk.server.read(&mut [0; 100]).is_ok();
        talk.server.set_nonblocking(false).unwrap();
        talk.client.write_all(&[7]).unwrap();
        more && flow(&world).shortcut
    });
    assert!(gateway.terminate().success());
    // Known beforehand, too.
    const ASKS: &str = "`ip xfrm policy` lists them";
    assert!(!world.log().contains(ASKS), "{}", world.log());
    ip(&format!("xfrm policy add dst {own}/32 dir out action block"));
    let gateway = start(&world, "");
    assert!(world.log().contains(ASKS), "{}", world.log());
    assert!(gateway.terminate().success());
}

/// A "well-formed stateful" firewall, and masquerading.
const FIREWALL: &str = "\
table ip nat {
    chain postrouting { type nat hook postrouting priority srcnat; masquerade; }
}
table inet filter {
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state invalid drop
        ct state established,related accept
        iifname equipoise0 accept
        oifname equipoise0 accept
    }
}
";

#[test]
fn a_firewall_that_tracks_connections_is_named_until_it_lets_them_end() {
    let world = World::new("short-fire");
    let file = world.dir.path().join("rules.nft");
    std::fs::write(&file, FIREWALL).unwrap();
    let output = run(world.gateway.command(program("nft").to_str().unwrap()).arg("-f").arg(&file));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    world.gateway.sysctl("net/netfilter/nf_conntrack_tcp_be_liberal", "0").unwrap();
    const ASKS: &str = "sysctl -w net.netfilter.nf_conntrack_tcp_be_liberal=1";
    let gateway = start(&world, "");
    assert!(world.log().contains(ASKS), "{}", world.log());
    assert!(gateway.terminate().success());
    world.gateway.sysctl("net/netfilter/nf_conntrack_tcp_be_liberal", "1").unwrap();
    let gateway = start(&world, "");
    assert!(!world.log().contains(ASKS), "{}", world.log());
    for family in [0, 1] {
        let mut talk = Talk::open(&world, family);
        talk.last(&world);
        // Far beyond the windows that conntrack has seen.
        let mut got = vec![0; 4 << 20];
        let (mut sender, data) = (talk.client.try_clone().unwrap(), vec![9; got.len()]);
        let sending = thread::spawn(move || sender.write_all(&data));
        talk.server.read_exact(&mut got).unwrap();
        sending.join().unwrap().unwrap();
        drop(talk);
        eventually("the end of the connection", || flow(&world).state == TimeoutState::Closing);
        assert_eq!(flow(&world).service, "talk");
        world.change("kill service talk");
    }
    assert!(gateway.terminate().success());
}
