//! Connections outlive a gateway: one that is stopped, and one that is killed, each while they are idle or busy.

use crate::Service;
use crate::world::{Running, SERVICE, World, eventually, run};
use equipoise::gateway::netns::Namespace;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

pub const PORT: u16 = 8080;
pub const TALK: Service = ("talk", "80/tcp", 3, PORT);
/// Idle connections of each family.
pub const IDLE: usize = 50;

/// A server of each server's namespace: the first byte of a connection says what it does with the rest.
pub fn serve(server: &Namespace) {
    let listener = server.run(|| TcpListener::bind(("::", PORT)).unwrap()).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            thread::spawn(move || {
                let mut bytes = [0; 65_536];
                let Ok(1) = stream.read(&mut bytes[..1]) else { return };
                match bytes[0] {
                    b'd' => while stream.write_all(&bytes).is_ok() {},
                    b'u' => while stream.read(&mut bytes).is_ok_and(|len| len > 0) {},
                    _ => {
                        while let Ok(len @ 1..) = stream.read(&mut bytes) {
                            if stream.write_all(&bytes[..len]).is_err() {
                                return;
                            }
                        }
                    }
                }
            });
        }
    });
}

pub fn connect(world: &World, family: usize, kind: u8) -> TcpStream {
    let to = SocketAddr::new(SERVICE[family].parse::<IpAddr>().unwrap(), 80);
    let mut stream = world.client.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(10)).unwrap()).unwrap();
    stream.write_all(&[kind]).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// A connection on which bytes flow until the end.
pub struct Busy {
    moved: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), String>>>,
}

impl Busy {
    pub fn start(mut stream: TcpStream, uploads: bool) -> Busy {
        let (moved, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (counts, ends) = (Arc::clone(&moved), Arc::clone(&stop));
        let run = move || {
            let mut bytes = [7; 16_384];
            while !ends.load(Ordering::Relaxed) {
                let len = if uploads { stream.write(&bytes) } else { stream.read(&mut bytes) };
                match len {
                    Ok(len @ 1..) => counts.fetch_add(len as u64, Ordering::Relaxed),
                    other => return Err(format!("{other:?}")),
                };
                // Some megabytes per second leave time for others.
                thread::sleep(Duration::from_millis(2));
            }
            Ok(())
        };
        Busy { moved, stop, thread: Some(thread::spawn(run)) }
    }

    /// Waits until more bytes have moved; the connection must not have failed.
    pub fn goes_on(&self, what: &str) {
        let before = self.moved.load(Ordering::Relaxed);
        eventually(what, || {
            assert!(!self.thread.as_ref().is_some_and(JoinHandle::is_finished), "{what}: it has failed");
            self.moved.load(Ordering::Relaxed) > before + 1_000_000
        });
    }

    pub fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        assert_eq!(self.thread.take().unwrap().join().unwrap(), Ok(()));
    }
}

/// Everything that is open during a test.
pub struct Talks {
    pub idle: Vec<TcpStream>,
    pub busy: Vec<Busy>,
}

impl Talks {
    pub fn open(world: &World) -> Talks {
        world.servers.iter().for_each(serve);
        Talks::connect(world)
    }

    /// The same where servers listen already.
    pub fn connect(world: &World) -> Talks {
        let idle = (0..2 * IDLE).map(|n| connect(world, n % 2, b'e')).collect();
        let busy = [(0, b'd'), (1, b'd'), (0, b'u'), (1, b'u')];
        let busy = busy.map(|(family, kind)| Busy::start(connect(world, family, kind), kind == b'u')).into();
        let mut talks = Talks { idle, busy };
        talks.go_on("at first");
        talks
    }

    /// Every idle connection carries a byte there and back, and every busy one goes on.
    pub fn go_on(&mut self, when: &str) {
        for (n, busy) in self.busy.iter().enumerate() {
            busy.goes_on(&format!("busy connection {n} {when}"));
        }
        for (n, stream) in self.idle.iter_mut().enumerate() {
            let mut byte = [0];
            stream.write_all(b"x").unwrap_or_else(|e| panic!("idle connection {n} {when}: {e}"));
            stream.read_exact(&mut byte).unwrap_or_else(|e| panic!("idle connection {n} {when}: {e}"));
        }
    }
}

fn configuration(world: &World) -> String {
    let file = world.dir.path().join("state");
    world.configuration(&format!("state-file = {file:?}\nstate-interval = \"1s\""), &[TALK])
}

/// Returns when the state was last saved.
fn saved(world: &World) -> Option<std::time::SystemTime> {
    std::fs::metadata(world.dir.path().join("state")).and_then(|file| file.modified()).ok()
}

/// Waits until a state has been saved that begins from now on.
fn await_state(world: &World) {
    for _ in 0..2 {
        let before = saved(world);
        eventually("another state", || saved(world) != before);
    }
}

fn outlives(name: &str, end: impl Fn(Running)) {
    let world = World::new(name);
    let before = world.system();
    let mut gateway = world.start(&configuration(&world));
    let mut talks = Talks::open(&world);
    for round in ["first", "second"] {
        await_state(&world);
        end(gateway);
        // Servers and clients send meanwhile.
        thread::sleep(Duration::from_millis(400));
        gateway = world.start(&configuration(&world));
        let flows = 2 * IDLE + 4;
        eventually("the log", || world.log().contains(&format!("{flows} flows")));
        talks.go_on(&format!("after the {round} time"));
        assert_eq!(world.totals().engine.flows_opened, flows as u64, "none is new: {}", world.log());
        let log = world.log();
        let mut warnings =
            log.lines().filter(|line| line.contains("WARN") && !line.contains("left behind by a killed run"));
        assert!(warnings.next().is_none() && !log.contains("wall clock"), "{log}");
    }
    talks.busy.into_iter().for_each(Busy::end);
    drop(talks.idle);
    // Their ends are seen, whatever has passed while nobody looked.
    eventually("the ends of all connections", || {
        world.flows(&[]).iter().all(|flow| ["closing", "reset"].contains(&flow.state.name()))
    });
    assert!(gateway.terminate().success());
    let cleaned =
        run(world.gateway.command(env!("CARGO_BIN_EXE_equipoise")).args(["cleanup", "--config"]).arg(world.file()));
    assert!(cleaned.status.success(), "{}", String::from_utf8_lossy(&cleaned.stderr));
    assert_eq!(world.system(), before);
}

#[test]
fn connections_outlive_a_gateway_that_stops() {
    outlives("state-stop", |gateway| assert!(gateway.terminate().success()));
}

#[test]
fn connections_outlive_a_gateway_that_is_killed() {
    outlives("state-kill", Running::kill);
}

#[test]
fn a_state_that_cannot_be_used_is_named_and_the_gateway_starts_without_flows() {
    let world = World::new("state-bad");
    let path = world.dir.path().join("state");
    for (bytes, want) in
        [(&b"EQPSTATE and no more"[..], "its checksum is wrong"), (b"", "no state of an earlier gateway")]
    {
        std::fs::write(&path, bytes).unwrap();
        let gateway = world.start(&configuration(&world));
        eventually("the log", || world.log().contains(want));
        // It is replaced at once.
        eventually("a state", || std::fs::read(&path).is_ok_and(|now| now != bytes && now.len() > 100));
        assert!(gateway.terminate().success());
        let state = std::fs::metadata(&path).unwrap();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&state.permissions()) & 0o777, 0o600);
    }
    let nowhere = configuration(&world).replace("/state\"", "/none/state\"");
    let gateway = world.start(&nowhere);
    eventually("the log", || world.log().contains("the state is not saved"));
    assert!(gateway.terminate().success());
}

#[test]
fn a_file_that_is_no_state_stays_and_the_gateway_starts() {
    let world = World::new("state-other");
    // The mistake that costs most: the configuration itself.
    let file = world.file();
    let text = world.configuration(&format!("state-file = {file:?}\nstate-interval = \"1s\""), &[TALK]);
    let gateway = world.start(&text);
    eventually("the log", || {
        world.log().contains("this is not a state file; the gateway begins without flows and leaves the file")
    });
    thread::sleep(Duration::from_millis(1500));
    assert!(gateway.terminate().success());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
}

#[test]
fn two_gateways_do_not_share_a_state_file() {
    let (one, other) = (World::new("state-one"), World::new("state-two"));
    let gateway = one.start(&configuration(&one));
    let shared = one.dir.path().join("state");
    eventually("a state", || shared.exists());
    let own = other.dir.path().join("state");
    let text = configuration(&other).replace(&format!("{own:?}"), &format!("{shared:?}"));
    let (_, said) = other.start_in_vain(&text, &[]);
    assert!(
        said.contains(&format!("another gateway, process {}, keeps its state in this file", gateway.id())),
        "{said}"
    );
    assert!(said.contains("give this one its own `state-file`"), "{said}");
    // Nothing is left of the attempt, and the first gateway's state goes on.
    let before = saved(&one);
    eventually("another state", || saved(&one) != before);
    gateway.kill();
    let second = other.start(&text);
    assert!(second.terminate().success());
}

#[test]
fn a_state_can_be_read_whenever_its_gateway_is_killed() {
    use equipoise::gateway::state::file::State;
    let world = World::new("state-any");
    let path = world.dir.path().join("state");
    world.servers.iter().for_each(serve);
    let mut gateway = world.start(&configuration(&world));
    let mut open: Vec<TcpStream> = (0..20).map(|n| connect(&world, n % 2, b'e')).collect();
    await_state(&world);
    for round in 0..12u64 {
        // From the first moments on, and around the writing of a state, which is due every second.
        thread::sleep(Duration::from_millis(round * 211 % 1300));
        gateway.kill();
        let mut state = State::open(&path).unwrap().unwrap_or_else(|| panic!("no state after kill {round}"));
        assert!(state.records().unwrap().len() > 100);
        gateway = world.start(&configuration(&world));
        eventually("the log", || world.log().contains("20 flows"));
        for (n, stream) in open.iter_mut().enumerate() {
            let mut byte = [0];
            stream.write_all(b"x").unwrap_or_else(|e| panic!("connection {n} after kill {round}: {e}"));
            stream.read_exact(&mut byte).unwrap_or_else(|e| panic!("connection {n} after kill {round}: {e}"));
        }
    }
    assert!(gateway.terminate().success());
}

#[test]
fn downloads_that_no_state_knows_are_adopted_by_what_their_servers_send() {
    let world = World::new("state-adopt");
    let adopts = "name = \"talk\"\nalgorithm = \"maglev\"\nunknown-tcp = \"adopt\"\nlisten";
    let text = configuration(&world).replace("\"1s\"", "\"1h\"").replace("name = \"talk\"\nlisten", adopts);
    let text = format!("seed = 7\n{text}");
    world.servers.iter().for_each(serve);
    let gateway = world.start(&text);
    eventually("a state", || saved(&world).is_some());
    // Opened after the only state; one goes past the gateway to a server's own address.
    let mut downloads: Vec<Busy> = (0..6).map(|n| Busy::start(connect(&world, n % 2, b'd'), false)).collect();
    let own = SocketAddr::new(World::server_address(1, 0), PORT);
    let mut direct = world.client.run(|| TcpStream::connect_timeout(&own, Duration::from_secs(10)).unwrap()).unwrap();
    direct.write_all(b"d").unwrap();
    direct.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    downloads.push(Busy::start(direct, false));
    let go_on = |when: &str| {
        downloads.iter().enumerate().for_each(|(n, busy)| busy.goes_on(&format!("download {n} {when}")));
    };
    go_on("at first");
    gateway.kill();
    thread::sleep(Duration::from_millis(400));
    let gateway = world.start(&text);
    eventually("the log", || world.log().contains(" 0 flows"));
    go_on("after the restart");
    let flows = world.flows(&[]);
    let picked = |flow: &equipoise::engine::FlowRow| flow.picked_by == equipoise::balance::PickedBy::Server;
    assert_eq!((flows.len(), flows.iter().filter(|flow| picked(flow)).count()), (6, 6), "{flows:?}");
    assert!(flows.iter().all(|flow| flow.state.name() == "established"), "{flows:?}");
    downloads.into_iter().for_each(Busy::end);
    assert!(gateway.terminate().success());
}

#[test]
fn a_full_disk_keeps_the_last_whole_state_and_costs_no_packet() {
    use equipoise::gateway::state::file::State;
    let world = World::new("state-full");
    // Three pages: the lock, a small state, and the next one.
    let disk = world.dir.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let mount = format!("mount -t tmpfs -o size=12k none {disk:?} && exec \"$@\"");
    let text = configuration(&world).replace("/state\"", "/disk/state\"");
    world.servers.iter().for_each(serve);
    let gateway = world.start_by(&text, &["unshare", "--mount", "sh", "-c", &mount, "sh"]);
    // As the gateway sees it.
    let seen =
        std::path::Path::new("/proc").join(gateway.id().to_string()).join("root").join(disk.strip_prefix("/").unwrap());
    eventually("a state", || seen.join("state").exists());
    let mut open: Vec<TcpStream> = (0..80).map(|n| connect(&world, n % 2, b'e')).collect();
    eventually("the log", || world.log().contains("the state is not saved: No space left on device"));
    eventually("no draft", || !seen.join("state.new").exists());
    assert!(!State::open(&seen.join("state")).unwrap().unwrap().records().unwrap().is_empty());
    for stream in &mut open {
        let mut byte = [0];
        stream.write_all(b"x").unwrap();
        stream.read_exact(&mut byte).unwrap();
    }
    assert_eq!(world.log().matches("the state is not saved").count(), 1, "once is enough");
    assert!(gateway.terminate().success());
}

#[test]
fn a_directory_that_goes_and_comes_back_is_named_and_used_again() {
    let world = World::new("state-gone");
    let [here, away] = ["states", "away"].map(|name| world.dir.path().join(name));
    std::fs::create_dir(&here).unwrap();
    let text = configuration(&world).replace("/state\"", "/states/state\"");
    let gateway = world.start(&text);
    eventually("a state", || here.join("state").exists());
    std::fs::rename(&here, &away).unwrap();
    eventually("the log", || world.log().contains("the state is not saved: No such file or directory"));
    std::fs::rename(&away, &here).unwrap();
    eventually("the log", || world.log().contains("the state is saved again"));
    assert!(gateway.terminate().success());
}

#[test]
fn what_an_operator_changed_outlives_a_restart() {
    let world = World::new("state-admin");
    let gateway = world.start(&configuration(&world));
    world.change("server drain talk/server1");
    world.change("server weight talk/server2 5");
    assert!(gateway.terminate().success());
    let gateway = world.start(&configuration(&world));
    let row = |n| world.server_row(n);
    assert_eq!((row(1).admin, row(2).weight, row(3).weight), (equipoise::balance::Admin::Draining, 5, 1));
    assert!(gateway.terminate().success());
}
