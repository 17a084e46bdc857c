//! What the gateways serve, and to whom.

use std::net::Ipv4Addr;

/// Listen addresses: TCP, TCP with full NAT, sticky TCP, UDP, UDP with full NAT, UDP with any server.
pub const SERVICES: [(Ipv4Addr, u16, bool); 6] = [
    (Ipv4Addr::new(192, 0, 2, 80), 80, false),
    (Ipv4Addr::new(192, 0, 2, 81), 80, false),
    (Ipv4Addr::new(192, 0, 2, 82), 80, false),
    (Ipv4Addr::new(192, 0, 2, 83), 4000, true),
    (Ipv4Addr::new(192, 0, 2, 84), 4000, true),
    (Ipv4Addr::new(192, 0, 2, 85), 4000, true),
];

/// A server that one of the two gateways may lack.
pub const ONE_SERVER: &str = "    { name = \"c\", address = \"10.0.0.3\" },\n";

/// The sticky one.
pub const STICKY: usize = 2;

/// The one of which a gateway that does not know a conversation chooses another server for it.
pub const ANY: usize = 5;

/// What pools are probed by, in some histories.
pub const MONITOR: &str =
    "[[pool.monitor]]\nname = \"ping\"\ntype = \"icmp\"\ninterval = \"1s\"\ntimeout = \"500ms\"\nfall = 3\nrise = 1\n";

pub const CONFIG: &str = r#"
seed = 7
[flows]
max = 2048
half-open = 256
[[service]]
name = "web"
listen = "192.0.2.80:80/tcp"
pool = "web"
algorithm = "round-robin"
[[service]]
name = "full"
listen = "192.0.2.81:80/tcp"
pool = "web"
algorithm = "random"
nat = "full"
nat-pool = "out"
[[service]]
name = "sticky"
listen = "192.0.2.82:80/tcp"
pool = "web"
algorithm = "random"
sticky = { idle = "5m" }
[[service]]
name = "dns"
listen = "192.0.2.83:4000/udp"
pool = "web"
algorithm = "source-hash"
[[service]]
name = "dns-full"
listen = "192.0.2.84:4000/udp"
pool = "web"
algorithm = "source-hash"
nat = "full"
nat-pool = "out"
[[service]]
name = "any"
listen = "192.0.2.85:4000/udp"
pool = "web"
algorithm = "random"
[[pool]]
name = "web"
server = [
    { name = "a", address = "10.0.0.1" },
    { name = "b", address = "10.0.0.2" },
    { name = "c", address = "10.0.0.3" },
]
[[nat-pool]]
name = "out"
addresses = ["10.9.0.1"]
ports = "2000-2399"
hold = "60s"
"#;
