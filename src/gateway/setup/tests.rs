//! Installation, removal and cleaning in network namespaces of their own.

use super::*;
use crate::gateway::netlink;
use crate::gateway::testing::{namespace, tun, two_families};
use netlink_packet_route::route::RouteProtocol;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

fn rules() -> Vec<String> {
    let mut netlink = open().unwrap();
    let both = [AddressFamily::Inet, AddressFamily::Inet6];
    let all = both.iter().flat_map(|f| netlink.rules(*f).unwrap()).collect::<Vec<_>>();
    let mark = RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL));
    all.iter().filter(|r| r.attributes.contains(&mark)).map(netlink::show_rule).collect()
}

/// Counts our rules and routes in all tables of the namespace.
fn left(settings: &Settings) -> usize {
    let mut netlink = open().unwrap();
    let table = settings.gateway.route_table;
    let own = [AddressFamily::Inet, AddressFamily::Inet6].map(|f| netlink.routes(f, table).unwrap().len());
    count_marked(PROTOCOL).unwrap() + own[0] + own[1]
}

#[test]
fn what_is_installed_is_removed_again() {
    let Some(ns) = namespace("eq-set1") else { return };
    ns.run(|| {
        let mut settings = two_families();
        settings.gateway.addresses = vec!["10.77.0.1/32".parse().unwrap(), "fd77::1/128".parse().unwrap()];
        let _tun = tun("eqtest0");
        let installed = Installed::install(&settings, "eqtest0", &Interfaces::default()).unwrap();
        // Per family a nop, a goto, and TCP and ICMP rules of two servers; two default routes, and two services
        // in main with their fallback routes.
        assert_eq!(rules().len(), 12, "{:?}", rules());
        assert_eq!(left(&settings), 18);
        assert!(
            rules().contains(&"priority 4243 from fd09::5/128 ipproto 6 sport 80-80 lookup 4242".into()),
            "{:?}",
            rules()
        );
        let mut netlink = open().unwrap();
        let local = netlink.routes(AddressFamily::Inet, 255).unwrap();
        assert!(local.iter().any(|(r, _)| r.to == "10.77.0.1/32".parse::<IpNet>().unwrap()));
        installed.remove().unwrap();
        assert_eq!(left(&settings), 0);
        let local = netlink.routes(AddressFamily::Inet, 255).unwrap();
        assert!(!local.iter().any(|(r, _)| r.to == "10.77.0.1/32".parse::<IpNet>().unwrap()));
    })
    .unwrap();
}

#[test]
fn icmp_errors_are_routed_from_the_interfaces_towards_servers_as_these_change() {
    let Some(ns) = namespace("eq-set9") else { return };
    ns.run(|| {
        let settings = two_families();
        let _tun = tun("eqtest0");
        let names = |v4: &[&str], v6: &[&str]| [v4, v6].map(|n| n.iter().map(|n| n.to_string()).collect());
        let by_interface = || {
            let of_pings = |r: &String| r.contains(" iif ") && r.contains("ipproto");
            rules().into_iter().filter(of_pings).map(|r| r[14..].replace(" lookup 4242", "")).collect::<Vec<_>>()
        };
        let mut installed =
            Installed::install(&settings, "eqtest0", &names(&["eth1", "eth0"], &["eth1", "lo"])).unwrap();
        assert_eq!(by_interface(), ["iif eth0 ipproto 1", "iif eth1 ipproto 1", "iif eth1 ipproto 58"]);
        assert_eq!(left(&settings), 21);
        for (v4, v6, want) in [
            (&["eth0"][..], &["eth1"][..], &["iif eth0 ipproto 1", "iif eth1 ipproto 58"][..]),
            (&["eth0", "eth2"], &[], &["iif eth0 ipproto 1", "iif eth2 ipproto 1"]),
            (&["eth0", "eth2"], &[], &["iif eth0 ipproto 1", "iif eth2 ipproto 1"]),
            (&[], &["eth0"], &["iif eth0 ipproto 58"]),
        ] {
            installed.follow_errors(&names(v4, v6)).unwrap();
            assert_eq!(by_interface(), want);
        }
        let many = (0..=MOST_INTERFACES).map(|n| format!("eth{n}")).collect();
        installed.follow_errors(&[many, BTreeSet::from(["eth0".to_owned()])]).unwrap();
        assert_eq!(by_interface(), ["iif eth0 ipproto 58"], "above the limit there are none");
        installed.remove().unwrap();
        assert_eq!(left(&settings), 0);
    })
    .unwrap();
}

#[test]
fn dropping_in_another_namespace_cleans_the_right_one() {
    let Some(ns) = namespace("eq-set2") else { return };
    let settings = two_families();
    let (tun, installed) =
        ns.run(|| (tun("eqtest0"), Installed::install(&settings, "eqtest0", &Interfaces::default()).unwrap())).unwrap();
    assert_eq!(ns.run(|| left(&settings)).unwrap(), 18);
    drop(installed);
    assert_eq!(ns.run(|| left(&settings)).unwrap(), 0);
    drop(tun);
}

#[test]
fn a_foreign_route_is_an_error_and_nothing_stays_installed() {
    for to in ["192.0.2.10/32", "2001:db8::10/128"] {
        let Some(ns) = namespace("eq-set3") else { return };
        ns.run(|| {
            let settings = two_families();
            let _tun = tun("eqtest0");
            let mut netlink = open().unwrap();
            let foreign = Route { protocol: 4, ..route(to.parse().unwrap(), MAIN, 1) };
            netlink.add_route(foreign).unwrap();
            let e = Installed::install(&settings, "eqtest0", &Interfaces::default()).unwrap_err().to_string();
            assert!(e.contains("File exists") && e.contains(&format!("ip route delete {to}")), "{e}");
            assert_eq!(left(&settings), 0);
            assert_eq!(
                netlink
                    .routes(netlink::family(foreign.to.addr()), MAIN)
                    .unwrap()
                    .iter()
                    .filter(|(r, _)| *r == foreign)
                    .count(),
                1
            );
        })
        .unwrap();
    }
}

#[test]
fn what_a_killed_gateway_left_is_cleaned_and_a_new_one_starts() {
    let Some(ns) = namespace("eq-set4") else { return };
    ns.run(|| {
        let settings = two_families();
        let device = tun("eqtest0");
        std::mem::forget(Installed::install(&settings, "eqtest0", &Interfaces::default()).unwrap());
        drop(device);
        assert_eq!(left(&settings), 14, "the routes died with the device, the rules and fallback routes did not");
        assert_eq!(
            clean_leftovers(&settings, false).unwrap(),
            12,
            "the fallback routes hold until the new gateway's routes do"
        );
        assert_eq!(clean_leftovers(&settings, false).unwrap(), 0);
        let _tun = tun("eqtest0");
        Installed::install(&settings, "eqtest0", &Interfaces::default()).unwrap().remove().unwrap();
        assert_eq!(left(&settings), 0);
    })
    .unwrap();
}

/// Cleans up after a device that has just been closed: a child of another test has it open until it becomes its program.
fn cleaned_once_closed(settings: &Settings) -> usize {
    let is_open = |error: &SetupError| error.to_string().contains("open");
    let mut cleaned = clean_leftovers(settings, false);
    while cleaned.as_ref().is_err_and(is_open) {
        std::thread::sleep(Duration::from_millis(10));
        cleaned = clean_leftovers(settings, false);
    }
    cleaned.unwrap()
}

#[test]
fn a_persistent_device_is_cleaned_of_routes_too() {
    let Some(ns) = namespace("eq-set5") else { return };
    ns.run(|| {
        let settings = two_families();
        let device = tun("eqtest0");
        persist(&device);
        std::mem::forget(Installed::install(&settings, "eqtest0", &Interfaces::default()).unwrap());
        drop(device);
        assert_eq!(left(&settings), 18);
        assert_eq!(cleaned_once_closed(&settings), 16);
        assert_eq!(left(&settings), 2, "the fallback routes");
    })
    .unwrap();
}

#[test]
fn fallback_routes_stay_where_asked_for_and_go_when_no_service_needs_them() {
    let Some(ns) = namespace("eq-set10") else { return };
    ns.run(|| {
        let mut settings = two_families();
        settings.gateway.keep_fallback = true;
        let _tun = tun("eqtest0");
        Installed::install(&settings, "eqtest0", &Interfaces::default()).unwrap().remove().unwrap();
        assert_eq!(left(&settings), 2);
        // The next gateway has the IPv4 service only: the other fallback route is a leftover.
        settings.services[0].listen.retain(|listen| listen.address.is_ipv4());
        let mut netlink = open().unwrap();
        drop(_tun);
        assert_eq!(cleaned_once_closed(&settings), 1);
        assert_eq!(netlink.taken("192.0.2.10".parse().unwrap()).unwrap(), None);
        let kinds = |routes: Vec<(Route, _)>| {
            routes.into_iter().map(|(r, kind)| (r.to.to_string(), r.metric, kind)).collect::<Vec<_>>()
        };
        let left = kinds(netlink.routes(AddressFamily::Inet, MAIN).unwrap());
        assert_eq!(left, [("192.0.2.10/32".into(), u32::MAX, netlink_packet_route::route::RouteType::BlackHole)]);
        assert_eq!(clean_leftovers(&settings, true).unwrap(), 1);
    })
    .unwrap();
}

#[allow(unsafe_code)]
fn persist(device: &tun_tap::Iface) {
    const TUNSETPERSIST: libc::c_ulong = 0x4004_54cb;
    // SAFETY: the ioctl takes a number, not a pointer.
    assert_eq!(unsafe { libc::ioctl(device.as_raw_fd(), TUNSETPERSIST, 1) }, 0);
}

#[test]
fn a_living_gateway_is_never_cleaned() {
    let Some(ns) = namespace("eq-set6") else { return };
    ns.run(|| {
        let first = two_families();
        let _tun = tun("eqtest0");
        let installed = Installed::install(&first, "eqtest0", &Interfaces::default()).unwrap();
        let mut second = two_families();
        // The same device and table.
        let e = clean_leftovers(&second, false).unwrap_err().to_string();
        assert!(e.contains("a process has the gateway's device eqtest0 open"), "{e}");
        // The same table.
        second.gateway.device = "eqtest1".into();
        let e = clean_leftovers(&second, false).unwrap_err().to_string();
        assert!(e.contains("routing table 4242 already belongs to another gateway, with device eqtest0"), "{e}");
        // Neither.
        second.gateway.route_table = 4300;
        second.gateway.rule_priority = 4300;
        assert_eq!(clean_leftovers(&second, false).unwrap(), 0);
        assert_eq!(left(&first), 18);
        installed.remove().unwrap();
    })
    .unwrap();
}

#[test]
fn replies_enter_the_device_and_what_leaves_it_never_returns() {
    let Some(ns) = namespace("eq-set7") else { return };
    let Some(far) = namespace("eq-set7-far") else { return };
    ns.forward().unwrap();
    ns.cable("eth0", &far, "eth0").unwrap();
    ns.address("eth0", "10.9.0.1/24".parse().unwrap()).unwrap();
    far.address("eth0", "10.9.0.5/24".parse().unwrap()).unwrap();
    far.address("eth0", "10.9.0.6/24".parse().unwrap()).unwrap();
    far.default_route("eth0", "10.9.0.1".parse().unwrap()).unwrap();
    let settings = two_families();
    ns.run(|| {
        let tun = tun("eqtest0");
        tun.set_non_blocking().unwrap();
        let _installed = Installed::install(&settings, "eqtest0", &Interfaces::default()).unwrap();
        let send = |from: &str, to: &str| {
            far.run(|| {
                let stream = |from: &str, to: &str| {
                    let socket =
                        rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None)?;
                    rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
                    rustix::net::bind(&socket, &from.parse::<std::net::SocketAddr>().unwrap())?;
                    rustix::io::ioctl_fionbio(&socket, true)?;
                    let _ = rustix::net::connect(&socket, &to.parse::<std::net::SocketAddr>().unwrap());
                    Ok::<(), rustix::io::Errno>(())
                };
                stream(from, to).unwrap();
            })
            .unwrap();
        };
        // (from, to, whether it comes out of the device): the server's service port, another port of it, another
        // host's port, a client to the service address.
        for (from, to, want) in [
            ("10.9.0.5:80", "203.0.113.9:4000", true),
            ("10.9.0.5:81", "203.0.113.9:4001", false),
            ("10.9.0.6:80", "203.0.113.9:4002", false),
            ("10.9.0.6:4003", "192.0.2.10:80", true),
            ("10.9.0.6:4004", "192.0.2.11:80", false),
        ] {
            send(from, to);
            let port: u16 = to.rsplit(':').next().unwrap().parse().unwrap();
            assert_eq!(syn_to(&tun, port), want, "{from} -> {to}");
        }
        // As the engine would write it: a server's reply that was not translated, to an address that only our
        // table routes. It must not come back.
        let mut syn = [0u8; 1500];
        let length = etherparse_syn(&mut syn, [10, 9, 0, 5], [203, 0, 113, 9], 80, 4005);
        tun.send(&syn[..length]).unwrap();
        assert!(!syn_to(&tun, 4005), "a packet written to the device came back");
    })
    .unwrap();
}

fn etherparse_syn(buf: &mut [u8], from: [u8; 4], to: [u8; 4], sport: u16, dport: u16) -> usize {
    let mut bytes = Vec::new();
    etherparse::PacketBuilder::ipv4(from, to, 64).tcp(sport, dport, 1, 1000).syn().write(&mut bytes, &[]).unwrap();
    buf[..bytes.len()].copy_from_slice(&bytes);
    bytes.len()
}

/// Returns whether a TCP packet to the port comes out within 200 ms.
fn syn_to(tun: &tun_tap::Iface, port: u16) -> bool {
    let (mut buf, until) = ([0u8; 2000], Instant::now() + Duration::from_millis(200));
    while Instant::now() < until {
        match tun.recv(&mut buf) {
            Ok(n) if n >= 24 && buf[9] == 6 && buf[22..24] == port.to_be_bytes() => return true,
            Ok(_) => {}
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
    false
}

#[test]
fn the_kernel_itself_sends_nothing_to_the_device() {
    let Some(ns) = namespace("eq-set8") else { return };
    ns.forward().unwrap();
    ns.run(|| {
        let tun = tun("eqtest0");
        tun.set_non_blocking().unwrap();
        let _installed = Installed::install(&two_families(), "eqtest0", &Interfaces::default()).unwrap();
        // Router solicitations and multicast reports are sent within the first two seconds.
        let until = Instant::now() + Duration::from_millis(2500);
        let mut buf = [0u8; 2000];
        while Instant::now() < until {
            if let Ok(n) = tun.recv(&mut buf) {
                panic!("{:02x?}", &buf[..n]);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    })
    .unwrap();
}
