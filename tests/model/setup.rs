//! Random settings: small tables, short timeouts and few ports, so that every limited resource does run out.

use super::random::Random;
use equipoise::balance::{
    Admin, Algorithm, LastResort, Listen, Mss, Nat, OnDown, Passive, PoolSettings, PortTimeouts, Prefixes, Priority,
    ServerSettings, ServiceSettings, Stickiness, Tuning, UnknownTcp,
};
use equipoise::config::{AnswerSettings, NoRoom, Settings};
use equipoise::flow::{NatPoolSettings, Pooling, TableSettings, Timeouts};
use equipoise::health::HealthSettings;
use equipoise::health::settings::{Floor, MonitorSettings, PoolWatch, Probe, ServerWatch};
use equipoise::ids::{NatPoolId, PoolId, ServerId, ServiceId};
use equipoise::packet::Protocol;
use equipoise::policy::{Action, Limits, PolicySettings, RuleSettings};
use equipoise::state::Health;
use equipoise::time::Duration;
use ipnet::IpNet;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The addresses of services: for each family one mainly for TCP and UDP, and one mainly for echoes.
pub const VIPS: [&str; 4] = ["192.0.2.80", "192.0.2.90", "2001:db8::80", "2001:db8::90"];
/// The number of the group of services that share their sticky clients, and its name.
const SHARED: u32 = 9999;
/// Networks that a service listens on.
pub const NETWORKS: [&str; 2] = ["203.0.113.0/28", "2001:db8:1::/64"];

fn one_of<T: Clone>(random: &mut Random, from: &[T]) -> T {
    random.pick(from).expect("a non-empty choice").clone()
}

fn secs(random: &mut Random, from: &[u64]) -> Duration {
    Duration::from_millis(one_of(random, from))
}

/// Returns whether flows live for longer than the spans after which settled ones give way.
pub fn is_patient(settings: &Settings) -> bool {
    settings.table.timeouts.established > Duration::from_secs(1000)
}

/// Returns random settings.
pub fn settings(random: &mut Random) -> Settings {
    let mut servers = Vec::new();
    let pools = vec![pool(random, "a", &mut servers), pool(random, "b", &mut servers), pool(random, "c", &mut servers)];
    let nat_pools = vec![nat_pool(random)];
    let services = services(random);
    let mut settings = Settings {
        seed: one_of(random, &[0, 0, 1, 77, u64::MAX - 5]),
        table: table(random),
        policy: policy(random, services.len()),
        services,
        pools,
        servers,
        nat_pools,
        answers: AnswerSettings {
            no_service: random.per_mille(700),
            other_protocol: random.per_mille(700),
            no_room: one_of(random, &[NoRoom::Prohibited, NoRoom::HostUnreachable, NoRoom::Drop]),
            per_second: one_of(random, &[1, 3, 1000, 1000]),
        },
        ..Settings::default()
    };
    if random.per_mille(600) {
        settings.health = health(random, &settings);
        if random.per_mille(400) {
            settings.services[0].algorithm = Algorithm::LeastLatency;
        }
    }
    settings.gateway.client_mtu = one_of(random, &[None, None, Some(1280), Some(1400)]);
    named(settings)
}

/// Names the shared group, if there is one.
fn named(mut settings: Settings) -> Settings {
    let is_shared = |service: &ServiceSettings| service.sticky.as_ref().is_some_and(|sticky| sticky.group == SHARED);
    let is_used = settings.services.iter().any(is_shared);
    settings.sticky_groups = is_used.then(|| (SHARED, "shared".into())).into_iter().collect();
    settings
}

/// Returns settings of the same objects, some of whose keys differ.
pub fn edited(random: &mut Random, old: &Settings) -> Settings {
    let (fresh, mut new) = (settings(random), old.clone());
    let often = one_of(random, &[30, 200, 600]);
    let mut coin = || random.per_mille(often);
    for (own, other) in new.servers.iter_mut().zip(&fresh.servers) {
        own.weight = if coin() { other.weight } else { own.weight };
        own.max_flows = if coin() { other.max_flows } else { own.max_flows };
        own.slow_start = if coin() { other.slow_start } else { own.slow_start };
        own.backup = if coin() { other.backup } else { own.backup };
        own.priority = if coin() { other.priority } else { own.priority };
        own.admin = if coin() { other.admin } else { own.admin };
    }
    for (own, other) in new.pools.iter_mut().zip(&fresh.pools) {
        own.mtu = if coin() { other.mtu } else { own.mtu };
        own.passive = if coin() { other.passive.clone() } else { own.passive.clone() };
    }
    let together = coin();
    for (at, (own, other)) in new.services.iter_mut().zip(&fresh.services).enumerate() {
        if coin() {
            (own.algorithm, own.tuning) = (other.algorithm, other.tuning.clone());
        }
        // The first two may share a group.
        if if at < 2 { together } else { coin() } {
            own.sticky = other.sticky.clone();
        }
        own.on_down = if coin() { other.on_down } else { own.on_down };
        own.last_resort = if coin() { other.last_resort } else { own.last_resort };
        own.unknown_tcp = if coin() { other.unknown_tcp } else { own.unknown_tcp };
        own.timeouts = if coin() { other.timeouts.clone() } else { own.timeouts.clone() };
        own.priority = if coin() { other.priority } else { own.priority };
        own.mss = if coin() { other.mss } else { own.mss };
    }
    for (own, other) in new.policy.rules.iter_mut().zip(&fresh.policy.rules) {
        if coin() {
            *own = other.clone();
        }
    }
    new.policy.rate = if coin() { fresh.policy.rate } else { new.policy.rate };
    new.answers = if coin() { fresh.answers } else { new.answers };
    for (own, other) in new.nat_pools.iter_mut().zip(&fresh.nat_pools) {
        own.hold = if coin() { other.hold } else { own.hold };
        own.pooling = if coin() { other.pooling } else { own.pooling };
    }
    if coin() {
        (new.table.timeouts, new.table.profiles) = (fresh.table.timeouts, fresh.table.profiles);
    }
    new.gateway.client_mtu = if coin() { fresh.gateway.client_mtu } else { new.gateway.client_mtu };
    named(new)
}

fn table(random: &mut Random) -> TableSettings {
    let ms = Duration::from_millis;
    let short = Timeouts {
        opening: ms(3000),
        established: ms(30_000),
        closing: ms(2000),
        reset: ms(2500),
        udp_one_way: ms(3000),
        udp_two_way: ms(6000),
        icmp: ms(1000),
    };
    let long = Timeouts {
        opening: ms(20_000),
        established: ms(2_000_000),
        closing: ms(10_000),
        reset: ms(7000),
        udp_one_way: ms(20_000),
        udp_two_way: ms(1_000_000),
        icmp: ms(500_000),
    };
    let patient = random.per_mille(400);
    let timeouts = if patient { long } else { short };
    let other = Timeouts { opening: ms(1000), udp_one_way: ms(1000), established: ms(5000), ..timeouts };
    TableSettings {
        max_flows: one_of(random, if patient { &[1, 1, 1, 2, 2, 3, 5, 9, 20] } else { &[2, 5, 9, 10, 12, 40] }),
        max_half_open: one_of(random, &[1, 2, 5, 1000, 1000]),
        timeouts,
        profiles: vec![other],
    }
}

fn pool(random: &mut Random, name: &str, servers: &mut Vec<ServerSettings>) -> PoolSettings {
    let id = PoolId(match name {
        "a" => 0,
        "b" => 1,
        _ => 2,
    });
    let first = servers.len();
    let port = one_of(random, &[None, Some(8080)]);
    for i in 0..one_of(random, &[1, 2, 3, 4, 5]) {
        let n = servers.len() as u8 + 1;
        let both = id.0 == 2 || random.per_mille(800);
        let v6 = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, u16::from(n));
        servers.push(ServerSettings {
            v4: (both || i % 2 == 0).then_some(Ipv4Addr::new(10, 0, 2, n)),
            v6: (both || i % 2 == 1).then_some(v6),
            port: if random.per_mille(100) { Some(9000) } else { port },
            weight: one_of(random, &[0, 1, 1, 1, 2, 3, 5]),
            max_flows: one_of(random, &[None, None, None, Some(1), Some(3)]),
            slow_start: secs(random, &[0, 0, 4000]),
            backup: random.per_mille(150),
            priority: one_of(random, &[1, 1, 2]),
            admin: if random.per_mille(50) { Admin::Disabled } else { Admin::Enabled },
            ..ServerSettings::new(&format!("s{n}"), id)
        });
    }
    let s = Duration::from_secs;
    let passive = Passive { failures: one_of(random, &[1, 2, 3]), within: s(3), hold: s(2), longest: s(5) };
    PoolSettings {
        passive: random.per_mille(600).then_some(passive),
        mtu: one_of(random, &[None, None, Some(1000), Some(1400)]),
        ..PoolSettings::new(name, (first..servers.len()).map(|at| ServerId(at as u32)).collect())
    }
}

/// Returns health settings with one monitor for the servers of pool a.
fn health(random: &mut Random, settings: &Settings) -> HealthSettings {
    let ms = Duration::from_millis;
    let monitor = MonitorSettings {
        interval: ms(one_of(random, &[400, 900])),
        timeout: ms(one_of(random, &[200, 390, 600])),
        samples: one_of(random, &[1, 3, 6]),
        max_lost: one_of(random, &[None, None, Some(2)]),
        max_latency: one_of(random, &[None, None, Some(ms(60))]),
        fall: one_of(random, &[1, 2, 50, 50]),
        rise: one_of(random, &[1, 2]),
        initial: one_of(random, &[Health::Up, Health::Up, Health::Down, Health::Unknown]),
        jitter_percent: one_of(random, &[0, 10, 50]),
        ..MonitorSettings::new("ping", Probe::Icmp)
    };
    let watch = |id: &ServerId| {
        let server = &settings.servers[id.0 as usize];
        ServerWatch { server: *id, v4: server.v4, v6: server.v6, ports: Vec::new() }
    };
    let servers = settings.pools[0].servers.iter().map(watch).collect();
    HealthSettings {
        seed: settings.seed,
        source_v4: Some(Ipv4Addr::new(192, 0, 2, 1)),
        source_v6: Some(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
        pools: vec![PoolWatch { pool: PoolId(0), monitors: vec![monitor], floor: Floor::None, servers }],
    }
}

fn nat_pool(random: &mut Random) -> NatPoolSettings {
    let (first_port, last_port) = one_of(random, &[(1020, 1029), (2000, 2002), (1022, 1025), (2000, 2100)]);
    let address = |n| Ipv4Addr::new(10, 0, 9, n);
    NatPoolSettings {
        v4: (1..=one_of(random, &[1, 2, 3])).map(address).collect(),
        v6: vec![Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 1)],
        first_port,
        last_port,
        hold: secs(random, &[0, 1500]),
        parity: random.per_mille(300),
        range_class: random.per_mille(300),
        pooling: one_of(random, &[Pooling::Paired, Pooling::Arbitrary]),
        ..NatPoolSettings::new("out")
    }
}

fn listen(text: &str, protocol: Protocol, first: u16, last: u16) -> Listen {
    let net: IpNet = text.parse().or_else(|_| text.parse().map(IpNet::from_addr)).expect("an address or a network");
    Listen { prefix: net.prefix_len(), ..Listen::one(net.addr(), protocol, first, last) }
}

trait FromAddr {
    fn from_addr(address: std::net::IpAddr) -> Self;
}

impl FromAddr for IpNet {
    fn from_addr(address: std::net::IpAddr) -> Self {
        address.into()
    }
}

fn services(random: &mut Random) -> Vec<ServiceSettings> {
    use Protocol::{Icmp, Ip, Tcp, Udp};
    let [web4, ping4, web6, ping6] = VIPS;
    let [net4, net6] = NETWORKS;
    let all = vec![
        ("web", vec![listen(web4, Tcp, 80, 80), listen(web6, Tcp, 80, 80)], 0),
        ("dns", vec![listen(web4, Udp, 53, 60), listen(web6, Udp, 53, 60), listen(web4, Tcp, 53, 53)], 0),
        ("ping", vec![listen(ping4, Icmp, 0, 65_535), listen(ping6, Icmp, 0, 65_535)], 1),
        ("net", vec![listen(net4, Tcp, 80, 1000), listen(net4, Udp, 80, 1000), listen(net6, Tcp, 80, 80)], 1),
        (
            "one",
            vec![
                listen("203.0.113.5", Tcp, 80, 80),
                listen("203.0.113.8/30", Tcp, 80, 80),
                listen(ping4, Ip(47), 0, 65_535),
            ],
            0,
        ),
        ("full", vec![listen(ping4, Tcp, 80, 81), listen(ping4, Udp, 53, 54), listen(ping6, Tcp, 80, 81)], 2),
        ("fping", vec![listen("192.0.2.91", Icmp, 0, 65_535)], 2),
    ];
    let mut services: Vec<ServiceSettings> =
        all.into_iter().map(|(name, listen, pool)| service(random, name, listen, pool)).collect();
    for full in [5, 6] {
        let only_for = one_of(random, &[vec![], vec!["198.51.100.0/30".parse().expect("a network")]]);
        services[full].nat = Nat::Full { pool: NatPoolId(0), only_for, families: [true, true] };
    }
    // The first two services of pool a may share a stickiness group.
    if let Some(sticky) = services[0].sticky.clone().filter(|_| random.per_mille(500)) {
        let sticky = Stickiness { group: SHARED, ..sticky };
        services[0].sticky = Some(sticky.clone());
        services[1].sticky = Some(sticky);
    }
    services
}

fn service(random: &mut Random, name: &str, listen: Vec<Listen>, pool: u32) -> ServiceSettings {
    let prefixes = [Prefixes::ADDRESS, Prefixes { v4: 24, v6: 64 }];
    let algorithm = one_of(random, &Algorithm::ALL);
    let hash = match algorithm {
        Algorithm::Maglev => one_of(random, &[None, Some(prefixes[0]), Some(prefixes[1])]),
        _ => one_of(random, &[None, Some(prefixes[1])]),
    };
    let sticky = Stickiness {
        prefixes: one_of(random, &prefixes),
        idle: secs(random, &[500, 3000]),
        slots: one_of(random, &[1, 2, 100]),
        group: name.bytes().map(u32::from).sum(),
    };
    let other = PoolId((pool + 1) % 2);
    let last_resorts = [
        LastResort::Drop,
        LastResort::Reset,
        LastResort::Unreachable,
        if pool == 2 { LastResort::Drop } else { LastResort::Pool(other) },
    ];
    ServiceSettings {
        algorithm,
        tuning: Tuning { rate_window: secs(random, &[800, 10_000]), maglev_table: 53, hash },
        sticky: random.per_mille(400).then_some(sticky),
        on_down: one_of(random, &[None, Some(OnDown::Keep), Some(OnDown::Reset)]),
        last_resort: one_of(random, &last_resorts),
        unknown_tcp: one_of(random, &[UnknownTcp::Reset, UnknownTcp::Drop, UnknownTcp::Adopt]),
        timeouts: if random.per_mille(300) {
            vec![PortTimeouts { protocol: Protocol::Tcp, first_port: 80, last_port: 90, profile: 1 }]
        } else {
            Vec::new()
        },
        priority: one_of(random, &[Priority::Low, Priority::Normal, Priority::High]),
        mss: one_of(random, &[Mss::Off, Mss::Auto, Mss::To(900)]),
        ..ServiceSettings::new(name, listen, PoolId(pool))
    }
}

fn policy(random: &mut Random, services: usize) -> PolicySettings {
    let rules = (0..one_of(random, &[0, 1, 2, 4])).map(|i| rule(random, i, services)).collect();
    PolicySettings { rules, rate: one_of(random, &[None, None, None, Some(4), Some(20)]), interfaces: Vec::new() }
}

fn rule(random: &mut Random, i: usize, services: usize) -> RuleSettings {
    let net = |text: &str| vec![text.parse().expect("a network")];
    let some = |random: &mut Random, from: &[u32]| random.per_mille(500).then(|| one_of(random, from));
    // Service 4 listens on IPv4 only.
    let service = if random.per_mille(300) { 4 } else { random.below(services as u64) as u32 };
    let named = random.per_mille(400).then_some(ServiceId(service));
    let action = one_of(
        random,
        &[
            Action::Balance(None),
            Action::Balance(None),
            Action::Balance(named),
            Action::Pass,
            Action::Drop,
            Action::Reject,
        ],
    );
    let limits = Limits {
        rate: some(random, &[1, 4]),
        flows: some(random, &[2, 6]),
        client_rate: some(random, &[1, 3]),
        client_flows: some(random, &[1, 3]),
    };
    let protocol = one_of(random, &[None, Some(Protocol::Tcp), Some(Protocol::Udp), Some(Protocol::Icmp)]);
    let has_ports = matches!(protocol, Some(Protocol::Tcp | Protocol::Udp));
    RuleSettings {
        enabled: random.per_mille(800),
        from: one_of(random, &[vec![], vec![], net("198.51.100.0/30"), net("2001:db8:c::/48")]),
        to: one_of(random, &[vec![], vec![], net("192.0.2.0/24"), net("203.0.113.0/29"), net("2001:db8::/48")]),
        protocol,
        source_ports: if has_ports { one_of(random, &[vec![], vec![(1000, 1001)]]) } else { vec![] },
        ports: if has_ports { one_of(random, &[vec![], vec![(53, 80)], vec![(80, 80), (443, 443)]]) } else { vec![] },
        priority: one_of(random, &[None, Some(Priority::Low), Some(Priority::High)]),
        limits: if matches!(action, Action::Balance(_)) { limits } else { Limits::default() },
        client: Prefixes { v4: one_of(random, &[24, 32]), v6: 64 },
        ..RuleSettings::new(&format!("r{i}"), action)
    }
}
