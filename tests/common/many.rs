//! Configurations of many services, servers and rules, as text. It knows only the format of the configuration.

#![allow(dead_code)]

use std::fmt::Write;
use std::net::Ipv4Addr;

/// The address of the first service; the others follow.
pub const FIRST_SERVICE: u32 = u32::from_be_bytes([192, 0, 2, 1]) & 0xffff_0000;
/// The address of the first server; the others follow.
pub const FIRST_SERVER: u32 = 0x0a00_0001;

/// A configuration.
#[derive(Debug, Clone)]
pub struct Many {
    /// Services; each listens on port 80 of its own address.
    pub services: u32,
    /// Servers in total.
    pub servers: u32,
    /// Whether all services share one pool of all servers; otherwise each has a pool of its own with its part of them.
    pub shared: bool,
    /// Rules, none of which but the last matches a client in 100.64.0.0/10.
    pub rules: u32,
    pub algorithm: &'static str,
    pub max_flows: u32,
}

impl Default for Many {
    fn default() -> Self {
        Many { services: 1, servers: 10, shared: true, rules: 0, algorithm: "round-robin", max_flows: 20_000 }
    }
}

impl Many {
    /// Returns the configuration as TOML.
    pub fn text(&self) -> String {
        let mut text = format!("seed = 7\n\n[flows]\nmax = {}\n", self.max_flows);
        let pools = if self.shared { 1 } else { self.services };
        for n in 0..self.services {
            let (address, pool) = (Ipv4Addr::from(FIRST_SERVICE + n), n % pools);
            let _ = write!(
                text,
                "\n[[service]]\nname = \"service-{n}\"\nlisten = [\"{address}:80/tcp\"]\npool = \"pool-{pool}\"\n\
                 algorithm = \"{}\"\n",
                self.algorithm
            );
            if self.algorithm == "maglev" {
                text.push_str("maglev-table = 655373\n");
            }
        }
        for pool in 0..pools {
            let _ = write!(text, "\n[[pool]]\nname = \"pool-{pool}\"\n");
            for n in (pool..self.servers).step_by(pools as usize) {
                let address = Ipv4Addr::from(FIRST_SERVER + n);
                let weight = 1 + n % 5;
                let _ = write!(
                    text,
                    "\n[[pool.server]]\nname = \"server-{n}\"\naddress = \"{address}\"\nport = 8080\nweight = {weight}\n"
                );
            }
        }
        for n in 0..self.rules {
            text.push_str(&rule(n, n + 1 == self.rules));
        }
        text
    }
}

/// Returns a rule: prefixes of several lengths that overlap, ranges of ports, protocols, "any"; the last one is for
/// everybody.
fn rule(n: u32, last: bool) -> String {
    let mut text = format!("\n[[rule]]\nname = \"rule-{n}\"\n");
    let length = 9 + n % 20;
    let network = (0xac10_0000 | n.wrapping_mul(0x9e37) & 0xf_ffff) & (u32::MAX << (32 - length));
    let from = format!("from = [\"{}/{length}\"]\n", Ipv4Addr::from(network));
    let parts = match n % 5 {
        _ if last => "action = \"balance\"\n".to_string(),
        0 => format!("{from}action = \"drop\"\n"),
        1 => format!("{from}ports = [\"{}-{}\"]\nprotocol = \"tcp\"\naction = \"drop\"\n", 1 + n % 79, 80 + n),
        2 => format!(
            "ports = [{}, \"{}-{}\"]\nprotocol = \"udp\"\naction = \"reject\"\n",
            1 + n % 60,
            81 + n,
            20_000 + n
        ),
        3 => format!("source-ports = [\"1-{}\"]\nprotocol = \"tcp\"\naction = \"drop\"\n", 1 + n % 900),
        _ => {
            let length = 25 + n % 8;
            let network = (0xc633_0000 | n << 4) & (u32::MAX << (32 - length));
            format!("to = [\"{}/{length}\"]\naction = \"drop\"\n", Ipv4Addr::from(network))
        }
    };
    text.push_str(&parts);
    text
}
