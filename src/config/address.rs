//! The notation of listen addresses, and which addresses are usable at all.
//!
//! It must not know where in a file a text is.

use super::values::host_bits;
use super::words::{did_you_mean, quoted};
use crate::balance::{Listen, Protocol};
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why a text is not a listen address, and what to write instead.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) title: String,
    pub(super) help: String,
}

fn wrong(title: impl Into<String>, help: impl Into<String>) -> Wrong {
    Wrong { title: title.into(), help: help.into() }
}

const FORMS: &str = "write \"192.0.2.80:80/tcp\", \"192.0.2.80:8000-8100/udp\", \"[2001:db8::80]:80/tcp\", \"192.0.2.80/icmp\", \
                     \"203.0.113.0/24:80/tcp\" or \"any4:80/tcp\"";

/// The words for every address, and the networks that they stand for.
const ANY: [(&str, &[IpAddr]); 3] = [
    ("any", &[IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)]),
    ("any4", &[IpAddr::V4(Ipv4Addr::UNSPECIFIED)]),
    ("any6", &[IpAddr::V6(Ipv6Addr::UNSPECIFIED)]),
];

/// Reads the name of a protocol that a service can listen for.
pub(super) fn protocol(word: &str) -> Result<Protocol, Wrong> {
    Protocol::from_name(word).ok_or_else(|| {
        let guess = did_you_mean(word, ["tcp", "udp", "icmp", "sctp", "gre", "esp"].into_iter());
        let help =
            "allowed: \"tcp\", \"udp\", \"icmp\", \"sctp\", \"gre\", \"esp\", \"ipip\" or a number such as \"ip-89\"";
        wrong(format!("unknown protocol {}", quoted(word)), format!("{guess}{help}"))
    })
}

/// Reads `address:port/protocol`, `address:first-last/protocol` or `address/icmp`; an IPv6 address is in brackets.
///
/// `address/prefix` is a network. "any" is every address of both families, and so yields two.
pub(super) fn listen(text: &str) -> Result<Vec<Listen>, Wrong> {
    let (target, word) = text
        .rsplit_once('/')
        .ok_or_else(|| wrong(format!("listen address {} has no protocol", quoted(text)), FORMS))?;
    let protocol = protocol(word)?;
    let (place, ports) = split(target)?;
    let networks = networks(place)?;
    let (first_port, last_port) = match (protocol, ports) {
        (Protocol::Icmp | Protocol::Ip(_), None) => (0, u16::MAX),
        (Protocol::Icmp, Some(_)) => return Err(wrong("ICMP has no ports", format!("write \"{place}/icmp\""))),
        (Protocol::Ip(_), Some(_)) => {
            return Err(wrong(format!("{word} has no ports"), format!("write \"{place}/{word}\"")));
        }
        (_, None) => {
            let help = format!("write \"{place}:80/{word}\" for one port, or \"80-90\" for a range");
            return Err(wrong("the port is missing", help));
        }
        (_, Some(ports)) => port_range(ports)?,
    };
    let listen =
        |net: IpNet| Listen { prefix: net.prefix_len(), ..Listen::one(net.addr(), protocol, first_port, last_port) };
    Ok(networks.into_iter().map(listen).collect())
}

/// Splits an address or network, or the word for one, from its ports.
fn split(target: &str) -> Result<(&str, Option<&str>), Wrong> {
    if target.starts_with('[') {
        let (_, after) = target.split_once(']').ok_or_else(|| wrong("the bracket is not closed", FORMS))?;
        // A network's prefix length is between the bracket and the ports.
        let prefix = after.strip_prefix('/').map_or(0, |rest| 1 + rest.find(':').unwrap_or(rest.len()));
        let (place, rest) = target.split_at(target.len() - after.len() + prefix);
        return match rest.strip_prefix(':') {
            Some(ports) => Ok((place, Some(ports))),
            None if rest.is_empty() => Ok((place, None)),
            None => Err(wrong(format!("unexpected {} between address and protocol", quoted(rest)), FORMS)),
        };
    }
    if target.matches(':').count() > 1 {
        return Err(wrong("an IPv6 listen address must be in brackets", FORMS));
    }
    Ok(match target.split_once(':') {
        Some((place, ports)) => (place, Some(ports)),
        None => (target, None),
    })
}

/// Reads an address, a network or the word for one, as written before a port.
fn networks(place: &str) -> Result<Vec<IpNet>, Wrong> {
    if let Some((_, every)) = ANY.iter().find(|(word, _)| *word == place) {
        let all = |address: &IpAddr| IpNet::new(*address, 0).unwrap_or_else(|_| (*address).into());
        return Ok(every.iter().map(all).collect());
    }
    let (address, prefix) = place.split_once('/').map_or((place, None), |(address, prefix)| (address, Some(prefix)));
    let inside = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let parsed = match inside {
        Some(inside) => inside.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => address.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    };
    let parsed =
        parsed.ok_or_else(|| wrong(format!("{} is not an IP address", quoted(inside.unwrap_or(address))), FORMS))?;
    let net = match prefix {
        None => parsed.into(),
        Some(prefix) => network(parsed, prefix)?,
    };
    // A network may include such addresses and does not take their packets, but must not consist of them.
    let why = unusable(net.network()).filter(|why| unusable(net.broadcast()) == Some(why));
    match why {
        None => Ok(vec![net]),
        Some(why) => Err(wrong(
            format!("{} cannot be a service address: {why}", prefix.map_or(parsed.to_string(), |_| net.to_string())),
            "use a unicast address that clients reach through this gateway",
        )),
    }
}

/// Reads the network of an address and the text after its slash.
fn network(address: IpAddr, prefix: &str) -> Result<IpNet, Wrong> {
    let most = IpNet::from(address).max_prefix_len();
    let digits = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
    let length = prefix.parse().ok().filter(|length| digits && *length <= most);
    let net = length.and_then(|length: u8| IpNet::new(address, length).ok());
    let net = net.ok_or_else(|| {
        wrong(
            format!("{} is not a valid prefix length", quoted(prefix)),
            format!("allowed: 0 to {most}, the number of leading bits that count"),
        )
    })?;
    if net.addr() != net.network() {
        let (first, length) = (bracketed(net.network()), net.prefix_len());
        let (title, help) = host_bits(net, &format!("{first}/{length}"), &bracketed(address));
        return Err(wrong(title, help));
    }
    Ok(net)
}

/// Reads `8000` or `8000-8100`.
pub(super) fn port_range(text: &str) -> Result<(u16, u16), Wrong> {
    let port = |text: &str| -> Result<u16, Wrong> {
        // `parse` alone would take "+80".
        let number = if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None };
        match number {
            Some(0) => Err(wrong("port 0 is not allowed", "allowed: 1 to 65535")),
            Some(number) => Ok(number),
            None => Err(wrong(
                format!("{} is not a port", quoted(text)),
                "allowed: 1 to 65535, or a range such as 8000-8100",
            )),
        }
    };
    let Some((first, last)) = text.split_once('-') else { return port(text).map(|port| (port, port)) };
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err(wrong(format!("the port range {first}-{last} is reversed"), format!("write {last}-{first}")));
    }
    Ok((first, last))
}

/// Returns why an address can belong to neither a service nor a server.
pub(super) fn unusable(address: IpAddr) -> Option<&'static str> {
    let v4 = |address: Ipv4Addr| match address.octets() {
        [0, ..] => Some("it is unspecified (0.0.0.0/8)"),
        [127, ..] => Some("it is a loopback address, which never leaves its host"),
        [255, 255, 255, 255] => Some("it is the broadcast address"),
        [224..=239, ..] => Some("it is a multicast address"),
        _ => None,
    };
    match address {
        IpAddr::V4(address) => v4(address),
        IpAddr::V6(address) if address.is_unspecified() => Some("it is unspecified (::)"),
        IpAddr::V6(address) if address.is_loopback() => Some("it is the loopback address, which never leaves its host"),
        IpAddr::V6(address) if address.is_multicast() => Some("it is a multicast address"),
        IpAddr::V6(address) if address.is_unicast_link_local() => {
            Some("it is a link-local address, which no router forwards")
        }
        IpAddr::V6(address) if address.to_ipv4_mapped().is_some() => {
            Some("it is an IPv4-mapped address, which no packet carries")
        }
        IpAddr::V6(_) => None,
    }
}

/// Writes an address as before a port.
fn bracketed(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listen_address_is_written_as_it_is_read() {
        for text in [
            "192.0.2.80:80/tcp",
            "192.0.2.80:1-65535/udp",
            "192.0.2.80/icmp",
            "[2001:db8::80]:443/tcp",
            "[2001:db8::80]:8000-8100/udp",
            "[2001:db8::80]/icmp",
            "192.0.2.80/gre",
            "203.0.113.0/24:80/tcp",
            "203.0.113.0/24/icmp",
            "[2001:db8::]/32:1-65535/udp",
            "[2001:db8::]/32/ip-89",
            "0.0.0.0/0:1-65535/udp",
            "[::]/0/icmp",
            "10.0.0.0/31:80/tcp",
        ] {
            let listens = listen(text).expect(text);
            assert_eq!(listens.iter().map(ToString::to_string).collect::<Vec<_>>(), [text]);
        }
        let icmp = listen("192.0.2.80/icmp").expect("valid")[0];
        assert_eq!((icmp.first_port, icmp.last_port), (0, u16::MAX));
    }

    #[test]
    fn one_word_stands_for_every_address_and_a_full_prefix_for_one() {
        for (text, want) in [
            ("any:80/tcp", &["0.0.0.0/0:80/tcp", "[::]/0:80/tcp"][..]),
            ("any4:1-9/udp", &["0.0.0.0/0:1-9/udp"]),
            ("any6/icmp", &["[::]/0/icmp"]),
            ("192.0.2.80/32:80/tcp", &["192.0.2.80:80/tcp"]),
            ("[2001:db8::80]/128/icmp", &["[2001:db8::80]/icmp"]),
        ] {
            let listens = listen(text).expect(text);
            assert_eq!(listens.iter().map(ToString::to_string).collect::<Vec<_>>(), want, "{text}");
        }
    }

    #[test]
    fn each_wrong_listen_address_gets_its_message() {
        for (text, want) in [
            ("", "listen address \"\" has no protocol"),
            ("192.0.2.80:80", "listen address \"192.0.2.80:80\" has no protocol"),
            ("192.0.2.80:80/", "unknown protocol \"\""),
            ("192.0.2.80:80/TCP", "unknown protocol \"TCP\""),
            ("192.0.2.80/tcp", "the port is missing"),
            ("192.0.2.80:80/icmp", "ICMP has no ports"),
            ("192.0.2.80:0/tcp", "port 0 is not allowed"),
            ("192.0.2.80:0-5/tcp", "port 0 is not allowed"),
            ("192.0.2.80:65536/tcp", "\"65536\" is not a port"),
            ("192.0.2.80:+80/tcp", "\"+80\" is not a port"),
            ("192.0.2.80:/tcp", "\"\" is not a port"),
            ("192.0.2.80:80-/tcp", "\"\" is not a port"),
            ("192.0.2.80:90-80/tcp", "the port range 90-80 is reversed"),
            ("192.0.2.080:80/tcp", "\"192.0.2.080\" is not an IP address"),
            ("web:80/tcp", "\"web\" is not an IP address"),
            ("2001:db8::80:80/tcp", "an IPv6 listen address must be in brackets"),
            ("[2001:db8::80:80/tcp", "the bracket is not closed"),
            ("[2001:db8::80]80/tcp", "unexpected \"80\" between address and protocol"),
            ("[192.0.2.80]:80/tcp", "\"192.0.2.80\" is not an IP address"),
            ("[fe80::1%eth0]:80/tcp", "\"fe80::1%eth0\" is not an IP address"),
            ("0.0.0.0:80/tcp", "0.0.0.0 cannot be a service address: it is unspecified (0.0.0.0/8)"),
            ("[::]:80/tcp", ":: cannot be a service address: it is unspecified (::)"),
            ("203.0.113.0/24/tcp", "the port is missing"),
            ("203.0.113.7/24:80/tcp", "203.0.113.7/24 has bits set after its prefix"),
            ("[2001:db8::1]/64:80/tcp", "2001:db8::1/64 has bits set after its prefix"),
            ("192.0.2.80/33:80/tcp", "\"33\" is not a valid prefix length"),
            ("192.0.2.80/:80/tcp", "\"\" is not a valid prefix length"),
            ("192.0.2.80/+8:80/tcp", "\"+8\" is not a valid prefix length"),
            ("[::]/129:80/tcp", "\"129\" is not a valid prefix length"),
            ("any5:80/tcp", "\"any5\" is not an IP address"),
            ("any/8:80/tcp", "\"any\" is not an IP address"),
            ("[any]:80/tcp", "\"any\" is not an IP address"),
            (
                "127.0.0.0/8:80/tcp",
                "127.0.0.0/8 cannot be a service address: it is a loopback address, which never leaves its host",
            ),
            ("224.0.0.0/4:80/udp", "224.0.0.0/4 cannot be a service address: it is a multicast address"),
            ("[ff00::]/8:80/udp", "ff00::/8 cannot be a service address: it is a multicast address"),
        ] {
            assert_eq!(listen(text).expect_err(text).title, want, "{text}");
        }
    }

    #[test]
    fn only_unicast_addresses_that_a_router_forwards_are_usable() {
        for bad in ["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "239.255.255.255", "255.255.255.255"] {
            assert!(unusable(bad.parse().expect(bad)).is_some(), "{bad}");
        }
        for bad in ["::", "::1", "ff02::1", "fe80::1", "::ffff:192.0.2.1"] {
            assert!(unusable(bad.parse().expect(bad)).is_some(), "{bad}");
        }
        for good in ["10.0.0.1", "192.0.2.80", "223.255.255.255", "2001:db8::1", "fd00::1"] {
            assert!(unusable(good.parse().expect(good)).is_none(), "{good}");
        }
    }
}
