//! Writes the configuration.

use super::Options;
use super::ipvs::{Ask, Check, Plan, Pool, Protocol, Service, Timeouts, seconds, shown};
use std::fmt::Write;

/// Seconds after which the kernel forgets idle connections: TCP, TCP after a FIN, UDP (`ipvsadm -L --timeout`).
const KERNEL: (u32, u32, u32) = (900, 120, 300);
/// Service ports whose UDP flows would live shorter here (RFC 4787, REQ-5a).
const SHORT: [u16; 3] = [53, 123, 161];

fn quoted(text: &str) -> String {
    // TOML's basic strings have JSON's escapes.
    serde_json::Value::from(text).to_string()
}

/// Returns the text, and the numbers of services and servers in it.
pub(super) fn write(plan: &Plan, origin: &str, options: &Options) -> (String, usize, usize) {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = text(plan, origin, options, &mut out);
    (out, plan.services.len(), plan.pools.iter().map(|pool| pool.servers.len()).sum())
}

fn text(plan: &Plan, origin: &str, options: &Options, out: &mut String) -> std::fmt::Result {
    let origin = origin.replace(char::is_control, "?");
    writeln!(out, "# Imported from {origin}; see docs/moving-from-ipvs.md.")?;
    if plan.services.is_empty() {
        writeln!(out, "\nservice = []")?;
    }
    if plan.pools.iter().any(|pool| !pool.monitors.is_empty()) {
        writeln!(out, "\n[gateway]")?;
        writeln!(
            out,
            "# Where probes come from: an address that the servers route to this gateway, assigned to no interface."
        )?;
        if options.probe_addresses.is_empty() {
            writeln!(out, "# probe-address = \"192.0.2.1\"       # REQUIRED")?;
        } else {
            let all: Vec<String> = options.probe_addresses.iter().map(|address| format!("\"{address}\"")).collect();
            writeln!(out, "probe-address = [{}]", all.join(", "))?;
        }
    }
    let Timeouts { tcp, fin, udp } = plan.timeouts;
    let (tcp, fin, udp) = (tcp.unwrap_or(KERNEL.0), fin.unwrap_or(KERNEL.1), udp.unwrap_or(KERNEL.2));
    writeln!(
        out,
        "\n# Those of IPVS. `equipoise check` warns of values below those of the RFCs: remove them for the defaults."
    )?;
    writeln!(out, "[timeouts]\ntcp-established = \"{tcp}s\"\ntcp-closing = \"{fin}s\"")?;
    writeln!(out, "udp-one-way = \"{udp}s\"\nudp-two-way = \"{udp}s\"")?;
    for service in &plan.services {
        write_service(service, udp, out)?;
    }
    plan.pools.iter().try_for_each(|pool| write_pool(pool, out))
}

fn write_service(service: &Service, udp: u32, out: &mut String) -> std::fmt::Result {
    writeln!(out, "\n[[service]]\nname = {}", quoted(&service.name))?;
    let listens: Vec<String> = service.listens.iter().map(|listen| quoted(&shown(*listen, service.protocol))).collect();
    match listens.as_slice() {
        [one] => writeln!(out, "listen = {one}")?,
        all => writeln!(out, "listen = [\n    {},\n]", all.join(",\n    "))?,
    }
    writeln!(out, "pool = {}\nalgorithm = \"{}\"", quoted(&service.pool), service.algorithm)?;
    if let Some(hash) = service.hash {
        writeln!(out, "hash = \"{hash}\"")?;
    }
    if service.keeps_flows {
        writeln!(out, "on-down = \"keep\"")?;
    }
    match &service.sorry {
        Some(pool) => writeln!(out, "last-resort-pool = {}", quoted(pool))?,
        None => writeln!(out, "last-resort = \"unreachable\"")?,
    }
    let is_short = service.listens.iter().any(|listen| listen.port.is_none_or(|port| SHORT.contains(&port)));
    if service.protocol == Protocol::Udp && is_short {
        writeln!(out, "\n[[service.timeouts]]\nudp-one-way = \"{udp}s\"\nudp-two-way = \"{udp}s\"")?;
    }
    if let Some((idle, bits)) = service.sticky {
        writeln!(out, "\n[service.sticky]")?;
        match bits.filter(|bits| *bits > 0) {
            Some(bits) => {
                let key = if service.listens.iter().all(|listen| listen.address.is_ipv4()) { "ipv4" } else { "ipv6" };
                writeln!(out, "by = \"network\"\n{key}-prefix = {bits}")?;
            }
            None => writeln!(out, "by = \"address\"")?,
        }
        writeln!(out, "idle = \"{idle}s\"")?;
    }
    Ok(())
}

fn write_pool(pool: &Pool, out: &mut String) -> std::fmt::Result {
    writeln!(out, "\n[[pool]]\nname = {}", quoted(&pool.name))?;
    for (place, check) in pool.monitors.iter().enumerate() {
        write_monitor(check, place, pool.monitors.len(), out)?;
    }
    for server in &pool.servers {
        writeln!(out, "\n[[pool.server]]\nname = {}\naddress = \"{}\"", quoted(&server.name), server.address)?;
        if let Some(port) = server.port {
            writeln!(out, "port = {port}")?;
        }
        if server.weight != 1 {
            writeln!(out, "weight = {}", server.weight)?;
        }
        if let Some(priority) = server.priority {
            writeln!(out, "priority = {priority}")?;
        }
        if let Some(most) = server.most {
            writeln!(out, "max-flows = {most}")?;
        }
        if server.drains {
            writeln!(out, "state = \"draining\"           # its weight was 0, as that of all others")?;
        }
    }
    Ok(())
}

fn write_monitor(check: &Check, place: usize, all: usize, out: &mut String) -> std::fmt::Result {
    let (kind, keys) = match &check.ask {
        Ask::Icmp => ("icmp", Vec::new()),
        Ask::Tcp => ("tcp", Vec::new()),
        Ask::Http { path, host, status } => {
            let mut keys = vec![format!("path = {}", quoted(path))];
            keys.extend(host.as_ref().map(|host| format!("host = {}", quoted(host))));
            let status: Vec<String> = status
                .iter()
                .map(|status| if status.contains('-') { quoted(status) } else { status.clone() })
                .collect();
            keys.push(format!("status = [{}]", status.join(", ")));
            ("http", keys)
        }
        Ask::Udp { payload, prefix } => {
            let mut keys = vec![format!("payload-hex = {}", quoted(payload))];
            keys.extend(prefix.as_ref().map(|prefix| format!("expect-prefix = {}", quoted(prefix))));
            ("udp", keys)
        }
        Ask::Dns { query, record } => {
            ("dns", vec![format!("query = {}", quoted(query)), format!("record = \"{record}\"")])
        }
    };
    writeln!(out, "\n[[pool.monitor]]")?;
    if all > 1 {
        writeln!(out, "name = \"{kind}-{}\"", place + 1)?;
    }
    writeln!(out, "type = \"{kind}\"")?;
    if let Some(port) = check.port {
        writeln!(out, "ports = [{port}]")?;
    }
    writeln!(out, "interval = \"{}\"\ntimeout = \"{}\"", seconds(check.interval_ms), seconds(check.timeout_ms))?;
    writeln!(out, "fall = {}\nrise = 1", check.retries + 1)?;
    if check.is_down_at_first {
        writeln!(out, "initial = \"down\"")?;
    }
    keys.iter().try_for_each(|key| writeln!(out, "{key}"))
}
