//! Each kind of monitor against real servers with each kind of fault: detected in time by the monitors meant for it
//! and by no other, reported in words, and over once it is fixed. Both families.

use crate::WEB;
use crate::servers::{ALL, WELL, WHO};
use crate::world::{Lines, PROBES, World, eventually};
use equipoise::balance::Health;
use equipoise::engine::MonitorRow;
use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

/// What a busy machine may add to the time that a monitor needs.
const GRACE: Duration = Duration::from_secs(1);
/// The interval between two probes.
const INTERVAL: Duration = Duration::from_millis(200);
/// The timeout of a probe.
const TIMEOUT: Duration = Duration::from_millis(400);
/// Consecutive failures that take a server out.
const FALL: u32 = 3;

/// The longest that a monitor may need: for each failure an interval, extended by the jitter, and the last one's
/// timeout.
fn longest() -> Duration {
    (INTERVAL * FALL).mul_f64(1.1) + TIMEOUT
}

/// A fault of a server, who must detect it, and in which words.
struct Fault<'a> {
    server: usize,
    what: &'a str,
    make: &'a mut dyn FnMut(),
    /// The monitors that report it down, and how the reason of each begins.
    seen: &'a [(&'a str, &'a str)],
}

/// The row of each family.
fn rows<'a>(all: &'a [MonitorRow], server: usize, monitor: &str) -> Vec<&'a MonitorRow> {
    let name = format!("server{server}");
    all.iter().filter(|row| row.server == name && row.monitor == monitor).collect()
}

/// Causes faults on different servers at once, and waits until they are detected as they should.
fn show(world: &World, faults: &mut [Fault<'_>]) {
    let made: Vec<Instant> = faults
        .iter_mut()
        .map(|fault| {
            (fault.make)();
            Instant::now()
        })
        .collect();
    let mut waiting: Vec<usize> = (0..faults.len()).collect();
    eventually("all faults to be seen", || {
        let all = world.monitors();
        let now = Instant::now();
        waiting.retain(|i| {
            let fault = &faults[*i];
            let is_seen = fault.seen.iter().all(|(monitor, _)| {
                let rows = rows(&all, fault.server, monitor);
                rows.len() == 2 && rows.iter().all(|row| row.verdict == Health::Down && row.state == Health::Down)
            });
            let (took, allowed) = (now - made[*i], longest() + GRACE);
            assert!(took <= allowed, "{}: not seen after {took:?}, allowed {allowed:?}: {all:#?}", fault.what);
            !is_seen
        });
        waiting.is_empty()
    });
    let (all, log) = (world.monitors(), world.log());
    for fault in &*faults {
        let (server, what) = (fault.server, fault.what);
        assert_eq!(world.server_row(server).health, Health::Down, "{what}");
        let history = world.history(server);
        for row in all.iter().filter(|row| row.server == format!("server{server}")) {
            let meant = fault.seen.iter().any(|(monitor, _)| *monitor == row.monitor);
            assert_eq!(row.verdict == Health::Down, meant, "{what}: {row:?}");
        }
        let told = |family: &str, why: &str| {
            let down = format!("server {}/server{server} is DOWN ({family}", all[0].pool);
            let in_log = log.lines().any(|line| line.contains(&down) && line.contains(why));
            in_log && history.iter().any(|row| row.family == family && row.what == "down" && row.why.contains(why))
        };
        for family in ["IPv4", "IPv6"] {
            let told = fault.seen.iter().any(|(_, why)| told(family, why));
            assert!(told, "{what}, {family}: want {:?} in {history:#?}\n{log}", fault.seen);
        }
    }
}

/// Waits until every monitor of every server is up again.
fn all_well(world: &World, servers: usize) {
    eventually("all servers to be up", || {
        let all = world.monitors();
        all.iter().all(|row| row.verdict == Health::Up && row.state == Health::Up)
            && (1..=servers).all(|n| world.server_row(n).health == Health::Up)
    });
    let log = world.log();
    for n in 1..=servers {
        for family in ["IPv4", "IPv6"] {
            let last = world.history(n).into_iter().rev().find(|row| row.family == family);
            let last = last.expect("a server that was down has a history");
            assert!(last.what == "up" && last.why.contains("answered"), "{last:?}");
            assert!(log.contains(&format!("/server{n} is up ({family}")), "{log}");
        }
    }
}

fn monitor(name: &str, kind: &str, more: &str) -> String {
    format!(
        "[[pool.monitor]]\nname = \"{name}\"\ntype = \"{kind}\"\ninterval = \"{}ms\"\ntimeout = \"{}ms\"\nfall = {FALL}\n\
         rise = 2\nsamples = 4\n{more}\n",
        INTERVAL.as_millis(),
        TIMEOUT.as_millis()
    )
}

/// Ping, port and page.
fn web_monitors() -> String {
    let page = "path = \"/health\"\nexpect-contains = \"well\"\nmax-latency = \"150ms\"";
    monitor("ping", "icmp", "") + &monitor("port", "tcp", "") + &monitor("page", "http", page)
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

#[test]
fn faults_of_a_page_are_seen_by_the_monitor_of_the_page_alone() {
    let world = World::new("page");
    let nginx = world.nginx();
    // Connections handed to this one wait forever.
    let _silent = world.servers[2].run(|| TcpListener::bind("127.0.0.1:9001")).unwrap().unwrap();
    let slow = world.servers[0].run(|| TcpListener::bind("127.0.0.1:9002")).unwrap().unwrap();
    std::thread::spawn(move || slow.incoming().for_each(|stream| drop(std::thread::spawn(|| answer_slowly(stream)))));
    let _gateway = world.start(&world.probing(WEB, Lines { rest: &web_monitors(), ..Lines::default() }));
    let file = |n, name: &str| world.nginx_dir(n).join(name);
    show(
        &world,
        &mut [
            Fault {
                server: 1,
                what: "HTTP 500",
                make: &mut || write(&file(1, "sick"), ""),
                seen: &[("page", "HTTP status 500, expected 200-299, 3 in a row")],
            },
            Fault {
                server: 2,
                what: "a wrong body",
                make: &mut || write(&file(2, "health"), "all is lost\n"),
                seen: &[("page", "body does not match, 3 in a row")],
            },
            Fault {
                server: 3,
                what: "no answer",
                make: &mut || write(&file(3, "hang"), ""),
                seen: &[("page", "3 of 3 timed out after 400 ms")],
            },
        ],
    );
    for (n, name) in [(1, "sick"), (3, "hang")] {
        std::fs::remove_file(file(n, name)).unwrap();
    }
    write(&file(2, "health"), WELL);
    all_well(&world, 3);
    show(
        &world,
        &mut [
            Fault {
                server: 1,
                what: "slow answers",
                make: &mut || write(&file(1, "slow"), ""),
                seen: &[("page", "ms, limit 150 ms")],
            },
            Fault {
                server: 2,
                what: "SIGSTOP: the kernel still answers pings and accepts connections",
                make: &mut || nginx[1].signal(Signal::STOP),
                seen: &[("page", "3 of 3 timed out after 400 ms")],
            },
            Fault {
                server: 3,
                what: "an answer that never ends",
                make: &mut || write(&file(3, "trickle"), ""),
                seen: &[("page", "3 of 3 timed out after 400 ms")],
            },
        ],
    );
    // Failed probes hold no connection on the server: only those in flight do, one per monitor and family.
    eventually("the probes' connections to end", || {
        let output = world.sockets(2, &["state", "established"]);
        output.lines().filter(|line| PROBES.iter().any(|probe| line.contains(probe))).count() <= 2
    });
    std::fs::remove_file(file(1, "slow")).unwrap();
    std::fs::remove_file(file(3, "trickle")).unwrap();
    nginx[1].signal(Signal::CONT);
    all_well(&world, 3);
}

/// A correct response that takes 300 ms, twice the allowed time.
fn answer_slowly(stream: std::io::Result<std::net::TcpStream>) {
    let Ok(mut stream) = stream else { return };
    let _ = stream.read(&mut [0; 1024]);
    std::thread::sleep(Duration::from_millis(300));
    let body = WELL;
    let _ = write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len());
}

#[test]
fn a_closed_port_and_a_silent_host_are_distinguished() {
    let world = World::new("closed");
    let mut nginx = world.nginx();
    let _gateway = world.start(&world.probing(WEB, Lines { rest: &web_monitors(), ..Lines::default() }));
    let first = nginx.remove(0);
    let mut first = Some(first);
    show(
        &world,
        &mut [
            Fault {
                server: 1,
                what: "a closed port",
                make: &mut || first.take().unwrap().kill(),
                seen: &[("port", "refused (RST), 3 in a row"), ("page", "refused (RST), 3 in a row")],
            },
            Fault {
                server: 2,
                what: "a silent host",
                make: &mut || world.deafen(2, &ALL),
                seen: &[("ping", "3 of 3 timed out"), ("port", "3 of 3 timed out"), ("page", "3 of 3 timed out")],
            },
            Fault {
                server: 3,
                what: "a port that is prohibited",
                make: &mut || world.deafen(3, &["tcp dport 8080 reject with icmpx admin-prohibited"]),
                seen: &[
                    ("port", "destination unreachable (prohibited), 3 in a row"),
                    ("page", "destination unreachable (prohibited), 3 in a row"),
                ],
            },
        ],
    );
    nginx.push(world.nginx_on(1));
    world.mend(2);
    world.mend(3);
    all_well(&world, 3);
}

#[test]
fn faults_of_datagram_servers_are_seen() {
    let world = World::new("datagrams");
    // All of them reply 1 here: any other reply is wrong.
    let [first, second, third] = [1, 2, 3].map(|n| world.dnsmasq_on(n, 1));
    let (mut first, mut third, mut wrong) = (Some(first), Some(third), None);
    let payload: String = WHO.iter().map(|byte| format!("{byte:02x}")).collect();
    let any = format!("payload-hex = \"{payload}\"\nexpect-contains = \"who\"");
    let exact = "query = \"who.test\"\nexpect-address = \"192.0.2.1\"";
    let monitors = monitor("any", "udp", &any) + &monitor("exact", "dns", exact);
    let dns = ("dns", "53/udp", 3, 53);
    let _gateway = world.start(&world.probing(dns, Lines { rest: &monitors, ..Lines::default() }));
    let unreachable = "destination unreachable (port), 3 in a row";
    show(
        &world,
        &mut [
            Fault {
                server: 1,
                what: "a closed UDP port",
                make: &mut || first.take().unwrap().kill(),
                seen: &[("any", unreachable), ("exact", unreachable)],
            },
            Fault {
                server: 2,
                what: "SIGSTOP",
                make: &mut || second.signal(Signal::STOP),
                seen: &[("any", "3 of 3 timed out after 400 ms"), ("exact", "3 of 3 timed out after 400 ms")],
            },
            Fault {
                server: 3,
                what: "a wrong address",
                make: &mut || {
                    third.take().unwrap().kill();
                    wrong = Some(world.dnsmasq_on(3, 99));
                },
                seen: &[("exact", "reply does not match, 3 in a row")],
            },
        ],
    );
    let _first = world.dnsmasq_on(1, 1);
    second.signal(Signal::CONT);
    wrong.take().unwrap().kill();
    let _third = world.dnsmasq_on(3, 1);
    all_well(&world, 3);
    world.deafen(2, &ALL);
    let deaf = [("any", "3 of 3 timed out after 400 ms"), ("exact", "3 of 3 timed out after 400 ms")];
    show(&world, &mut [Fault { server: 2, what: "a silent host", make: &mut || {}, seen: &deaf }]);
}
