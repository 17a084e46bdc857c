//! Virtual servers, their groups and real servers.

use super::super::ipvs::{Found, Listen, Method, Protocol, Real, Virtual};
use super::super::ipvsadm::mask_bits;
use super::super::{Notes, Place};
use super::checks::{self, Usual};
use super::tree::Item;
use super::{number, unknown};
use std::net::IpAddr;

/// Seconds of `persistence_timeout` without a value, of a granularity without a timeout, and of a service without a port.
const PERSISTENCE: u32 = 360;
/// Most addresses of a range.
const MOST_ADDRESSES: u32 = 256;

/// Settings of a virtual server that real servers and checks inherit.
#[derive(Debug, Default)]
pub(super) struct Inherited {
    pub(super) usual: Usual,
    method: Option<Method>,
    weight: u32,
    keeps_on_failure: bool,
}

/// The keys of a virtual server, as far as they are read.
struct Keys<'a> {
    protocol: Option<Protocol>,
    scheduler: String,
    scheduler_place: Place,
    /// Seconds.
    persistence: Option<u32>,
    granularity: Option<u8>,
    one_packet: bool,
    flags: Vec<String>,
    sorry: Option<&'a Item>,
    quorum: Option<(&'a Item, u64)>,
    inherited: Inherited,
}

impl<'a> Keys<'a> {
    fn new(item: &Item) -> Self {
        Keys {
            protocol: None,
            scheduler: "wlc".to_owned(),
            scheduler_place: item.place(),
            persistence: None,
            granularity: None,
            one_packet: false,
            flags: Vec::new(),
            sorry: None,
            quorum: None,
            inherited: Inherited { weight: 1, ..Inherited::default() },
        }
    }

    /// Reads one key.
    fn take(&mut self, own: &'a Item, notes: &mut Notes) {
        match own.word() {
            "protocol" => self.protocol = protocol_of(own, notes),
            "lb_algo" | "lvs_sched" => {
                self.scheduler_place = scheduler_of(own, &mut self.scheduler, notes).unwrap_or(self.scheduler_place)
            }
            "lb_kind" | "lvs_method" => self.inherited.method = method_of(own, notes).or(self.inherited.method),
            "persistence_timeout" => {
                self.persistence =
                    Some(own.argument(1).map_or(Some(PERSISTENCE), |text| text.parse().ok()).unwrap_or(PERSISTENCE));
            }
            "persistence_granularity" => {
                self.granularity = own.argument(1).and_then(mask_bits);
                if self.granularity.is_none() {
                    notes.add(
                        own.place(),
                        "persistence_granularity is not a netmask",
                        "left out: clients count by address",
                    );
                }
            }
            "persistence_engine" => {
                notes.add(
                    own.place(),
                    "a persistence engine has no counterpart",
                    "left out: clients are remembered by their address",
                );
            }
            "ops" => self.one_packet = true,
            "sh-port" | "sh-fallback" | "mh-port" | "mh-fallback" => self.flags.push(own.word().to_owned()),
            "flag-1" | "flag-2" => {
                let flag = match (self.scheduler.as_str(), own.word()) {
                    ("mh", "flag-1") => "mh-fallback",
                    ("mh", _) => "mh-port",
                    (_, "flag-1") => "sh-fallback",
                    (_, _) => "sh-port",
                };
                self.flags.push(flag.to_owned());
            }
            "weight" => self.inherited.weight = number(own, notes).and_then(|n| u32::try_from(n).ok()).unwrap_or(1),
            "inhibit_on_failure" => self.inherited.keeps_on_failure = true,
            "quorum" => self.quorum = Some((own, number(own, notes).unwrap_or(1))),
            "hysteresis" | "ip_family" | "snmp_name" | "real_server" => {}
            "sorry_server" => self.sorry = Some(own),
            "sorry_server_lvs_method" | "sorry_server_inhibit" => {}
            _ if self.inherited.usual.takes(own, notes) => {}
            _ => unknown(own, notes),
        }
    }
}

/// Reads a virtual server.
pub(super) fn read(item: &Item, groups: (&[&Item], &mut Vec<String>), found: &mut Found, notes: &mut Notes) {
    let Some((name, listens)) = listens(item, groups, notes) else { return };
    let mut keys = Keys::new(item);
    item.items.iter().for_each(|own| keys.take(own, notes));
    let Keys { protocol, scheduler, scheduler_place, mut persistence, granularity, .. } = keys;
    let Keys { one_packet, flags, sorry, quorum, inherited, .. } = keys;
    let first = listens.first().copied();
    let protocol = protocol.unwrap_or_else(|| {
        let what = "keepalived takes a virtual server without `protocol` for UDP";
        notes.add(item.place(), what, "written as UDP: add `protocol TCP` and import again if TCP is meant");
        Protocol::Udp
    });
    if persistence.is_none() && (granularity.is_some() || first.is_some_and(|listen| listen.port.is_none())) {
        persistence = Some(PERSISTENCE);
    }
    let all = if first.is_some_and(|listen| listen.address.is_ipv6()) { 128 } else { 32 };
    let port = first.and_then(|listen| listen.port);
    let mut servers = Vec::new();
    for own in item.items.iter().filter(|own| own.word() == "real_server") {
        servers.extend(real(own, port, &inherited, notes));
    }
    let sorry = sorry.and_then(|own| sorry_of(own, item, port, &inherited, notes));
    note_quorum(quorum, sorry.is_some(), notes);
    found.virtuals.push(Virtual {
        place: item.place(),
        name,
        listens,
        protocol,
        scheduler,
        scheduler_place,
        flags,
        persistence: persistence.map(|seconds| (seconds, granularity.filter(|bits| *bits < all))),
        one_packet,
        servers,
        sorry,
    });
}

fn note_quorum(quorum: Option<(&Item, u64)>, has_sorry: bool, notes: &mut Notes) {
    let Some((own, least)) = quorum.filter(|(_, least)| *least > 1) else { return };
    let what = format!("a quorum of {least} has no counterpart: the sorry server takes over when no server is left");
    let todo =
        if has_sorry { "watch pools by `eqctl pool --json`" } else { "nothing to do unless programs are started" };
    notes.add(own.place(), what, todo);
}

fn protocol_of(own: &Item, notes: &mut Notes) -> Option<Protocol> {
    match own.argument(1).map(str::to_ascii_uppercase).as_deref() {
        Some("TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some("SCTP") => Some(Protocol::Sctp),
        _ => {
            notes.add(own.place(), "an unknown protocol", "keepalived ignores it, too: correct it");
            None
        }
    }
}

/// The schedulers that keepalived knows.
const SCHEDULERS: [&str; 14] =
    ["rr", "wrr", "lc", "wlc", "lblc", "sh", "mh", "dh", "fo", "ovf", "lblcr", "sed", "nq", "twos"];

fn scheduler_of(own: &Item, scheduler: &mut String, notes: &mut Notes) -> Option<Place> {
    let word = own.words.get(1)?;
    if !SCHEDULERS.contains(&word.text.as_str()) {
        let what = format!("keepalived ignores the unknown scheduler {:?}", word.text);
        notes.add(word.place, what, format!("{scheduler} is written, which it uses instead; correct it"));
        return None;
    }
    scheduler.clone_from(&word.text);
    Some(word.place)
}

fn method_of(own: &Item, notes: &mut Notes) -> Option<Method> {
    match own.argument(1) {
        Some("NAT") => Some(Method::Nat),
        Some("DR") => Some(Method::Route),
        Some("TUN") => Some(Method::Tunnel),
        _ => {
            notes.add(own.place(), "an unknown forwarding method", "keepalived ignores it, too: correct it");
            None
        }
    }
}

fn port(word: Option<&str>, place: Place, notes: &mut Notes) -> Option<Option<u16>> {
    match word.map(str::parse::<u16>) {
        None => Some(None),
        Some(Ok(port)) => Some(Some(port).filter(|port| *port > 0)),
        Some(Err(_)) => {
            notes.add(place, format!("{:?} is not a port", word.unwrap_or_default()), "write it as a number");
            None
        }
    }
}

/// Returns the name and the addresses of a virtual server; none if it is left out.
fn listens(
    item: &Item,
    (groups, used): (&[&Item], &mut Vec<String>),
    notes: &mut Notes,
) -> Option<(Option<String>, Vec<Listen>)> {
    let place = item.place();
    let mark = "list the addresses and ports that the mark stands for under `listen`, and write the service by hand";
    match item.argument(1) {
        Some("fwmark") => {
            notes.add(place, "a virtual server by firewall mark has no counterpart: left out with its servers", mark);
            None
        }
        Some("group") => {
            let name = item.argument(2).unwrap_or_default();
            let Some(group) = groups.iter().find(|group| group.argument(1) == Some(name)) else {
                notes.add(place, format!("there is no virtual_server_group {name:?}: left out"), "correct the name");
                return None;
            };
            used.push(name.to_owned());
            let mut listens = Vec::new();
            for own in &group.items {
                match own.word() {
                    "fwmark" => notes.add(own.place(), "a firewall mark has no counterpart: left out", mark),
                    _ => listens.extend(range(own, notes)),
                }
            }
            Some((Some(name.to_owned()), listens))
        }
        Some(address) => match address.parse::<IpAddr>() {
            Ok(address) => Some((None, vec![Listen { address, port: port(item.argument(2), place, notes)? }])),
            Err(_) => {
                notes.add(place, format!("{address:?} is not an address: left out"), "write the address as a number");
                None
            }
        },
        None => {
            notes.add(place, "a virtual server without an address: left out", "correct it");
            None
        }
    }
}

/// Reads a line of a group: `192.0.2.91-95 53`, `2001:db8::10-1f 53` or one address.
fn range(own: &Item, notes: &mut Notes) -> Vec<Listen> {
    let (first, last) = own.word().split_once('-').map_or((own.word(), None), |(first, last)| (first, Some(last)));
    let all = match (first.parse::<IpAddr>(), last) {
        (Ok(address), None) => vec![address],
        (Ok(IpAddr::V4(from)), Some(last)) => {
            let base = from.to_bits() & !0xff;
            let to = last.parse::<u8>().map(|last| base | u32::from(last)).unwrap_or(0);
            (from.to_bits()..=to).map(|bits| IpAddr::V4(bits.into())).collect()
        }
        (Ok(IpAddr::V6(from)), Some(last)) => {
            let base = from.to_bits() & !0xffff;
            let to = u16::from_str_radix(last, 16).map(|last| base | u128::from(last)).unwrap_or(0);
            let most = from.to_bits().saturating_add(u128::from(MOST_ADDRESSES));
            (from.to_bits()..=to.min(most)).map(|bits| IpAddr::V6(bits.into())).collect()
        }
        (Err(_), _) => Vec::new(),
    };
    if all.is_empty() || all.len() > MOST_ADDRESSES as usize {
        notes.add(
            own.place(),
            format!("{:?} is not an address or range of up to 256: left out", own.word()),
            "correct it",
        );
        return Vec::new();
    }
    let Some(port) = port(own.argument(1), own.place(), notes) else { return Vec::new() };
    all.into_iter().map(|address| Listen { address, port }).collect()
}

fn address(own: &Item, notes: &mut Notes) -> Option<IpAddr> {
    let word = own.words.get(1)?;
    let found = word.text.parse().ok();
    if found.is_none() {
        notes.add(
            word.place,
            format!("{:?} is not an address: the server is left out", word.text),
            "write it as a number",
        );
    }
    found
}

fn real(item: &Item, service_port: Option<u16>, inherited: &Inherited, notes: &mut Notes) -> Option<Real> {
    let address = address(item, notes)?;
    let written = port(item.argument(2), item.place(), notes)?;
    let mut own_port = written;
    let mut usual = inherited.usual.clone();
    let (mut weight, mut method) = (inherited.weight, inherited.method);
    let (mut thresholds, mut keeps) = ((0, 0), inherited.keeps_on_failure);
    let small = |own: &Item, notes: &mut Notes| number(own, notes).and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
    let mut blocks = Vec::new();
    for own in &item.items {
        match own.word() {
            "weight" => weight = number(own, notes).and_then(|n| u32::try_from(n).ok()).unwrap_or(weight),
            "lvs_method" => method = method_of(own, notes).or(method),
            "uthreshold" => thresholds.0 = small(own, notes),
            "lthreshold" => thresholds.1 = small(own, notes),
            "inhibit_on_failure" => keeps = true,
            "snmp_name" => {}
            word if checks::is_check(word) => blocks.push(own),
            _ if usual.takes(own, notes) => {}
            _ => unknown(own, notes),
        }
    }
    let method = method.unwrap_or(Method::Nat);
    if method != Method::Nat || own_port.is_none() {
        // Without NAT, the port stays that of the service, whatever is given.
        own_port = service_port;
    }
    let mut found = Vec::new();
    for own in blocks {
        found.extend(checks::read(own, &usual, notes));
    }
    // Checks ask the port that is written, whatever becomes of it.
    if own_port != written {
        found.iter_mut().for_each(|check| check.port = check.port.or(written));
    }
    Some(Real {
        place: item.place(),
        address,
        port: own_port,
        weight,
        method,
        thresholds,
        keeps_on_failure: keeps,
        checks: found,
    })
}

fn sorry_of(
    own: &Item,
    of: &Item,
    service_port: Option<u16>,
    inherited: &Inherited,
    notes: &mut Notes,
) -> Option<Real> {
    let address = address(own, notes)?;
    let own_port = port(own.argument(2), own.place(), notes)?;
    let method = of.find("sorry_server_lvs_method").and_then(|item| method_of(item, notes)).or(inherited.method);
    Some(Real {
        place: own.place(),
        address,
        port: own_port.or(service_port),
        weight: 1,
        method: method.unwrap_or(Method::Nat),
        thresholds: (0, 0),
        keeps_on_failure: false,
        checks: Vec::new(),
    })
}
