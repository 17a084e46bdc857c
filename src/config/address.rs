//! The notation of addresses: what a service listens on, and which addresses can serve at all.
//!
//! It must not know where in a file a text stood.

use super::fields::{did_you_mean, quoted};
use crate::balance::{Listen, Protocol};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why a text is no listen address, and what to write.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) title: String,
    pub(super) help: String,
}

fn wrong(title: impl Into<String>, help: impl Into<String>) -> Wrong {
    Wrong { title: title.into(), help: help.into() }
}

const FORMS: &str =
    "write \"192.0.2.80:80/tcp\", \"192.0.2.80:8000-8100/udp\", \"[2001:db8::80]:80/tcp\" or \"192.0.2.80/icmp\"";

/// Reads `address:port/protocol`, `address:first-last/protocol` or `address/icmp`; an IPv6 address
/// stands in brackets.
pub(super) fn listen(text: &str) -> Result<Listen, Wrong> {
    let (target, word) = text
        .rsplit_once('/')
        .ok_or_else(|| wrong(format!("listen address {} has no protocol", quoted(text)), FORMS))?;
    let protocol = Protocol::from_name(word).ok_or_else(|| {
        let guess = did_you_mean(word, ["tcp", "udp", "icmp", "sctp", "gre", "esp"].into_iter());
        let help =
            "allowed: \"tcp\", \"udp\", \"icmp\", \"sctp\", \"gre\", \"esp\", \"ipip\" or a number such as \"ip-89\"";
        wrong(format!("unknown protocol {}", quoted(word)), format!("{guess}{help}"))
    })?;
    let (address, ports) = split(target)?;
    if let Some(why) = unusable(address) {
        return Err(wrong(
            format!("{address} cannot be a service address: {why}"),
            "use a unicast address that clients reach through this gateway",
        ));
    }
    let (first_port, last_port) = match (protocol, ports) {
        (Protocol::Icmp, None) => (0, u16::MAX),
        (Protocol::Icmp, Some(_)) => {
            return Err(wrong("ICMP has no ports", format!("write \"{}/icmp\"", bracketed(address))));
        }
        (Protocol::Ip(_), None) => (0, u16::MAX),
        (Protocol::Ip(_), Some(_)) => {
            return Err(wrong(format!("{word} has no ports"), format!("write \"{}/{word}\"", bracketed(address))));
        }
        (_, None) => {
            let help = format!("write \"{}:80/{word}\" for one port, or \"80-90\" for a range", bracketed(address));
            return Err(wrong("the port is missing", help));
        }
        (_, Some(ports)) => port_range(ports)?,
    };
    Ok(Listen { address, protocol, first_port, last_port })
}

/// Parts an address from its ports.
fn split(target: &str) -> Result<(IpAddr, Option<&str>), Wrong> {
    let bad = |address: &str| wrong(format!("{} is not an IP address", quoted(address)), FORMS);
    if let Some(rest) = target.strip_prefix('[') {
        let (address, behind) = rest.split_once(']').ok_or_else(|| wrong("the bracket is not closed", FORMS))?;
        let v6: Ipv6Addr = address.parse().map_err(|_| bad(address))?;
        return match (behind, behind.strip_prefix(':')) {
            ("", _) => Ok((v6.into(), None)),
            (_, Some(ports)) => Ok((v6.into(), Some(ports))),
            _ => Err(wrong(format!("{} stands between address and protocol", quoted(behind)), FORMS)),
        };
    }
    if target.matches(':').count() > 1 {
        return Err(wrong("an IPv6 address of a service must stand in brackets", FORMS));
    }
    let (address, ports) = match target.split_once(':') {
        Some((address, ports)) => (address, Some(ports)),
        None => (target, None),
    };
    let v4: Ipv4Addr = address.parse().map_err(|_| bad(address))?;
    Ok((v4.into(), ports))
}

/// Reads `8000` or `8000-8100`.
pub(super) fn port_range(text: &str) -> Result<(u16, u16), Wrong> {
    let port = |text: &str| -> Result<u16, Wrong> {
        // `parse` alone would take "+80".
        let number = if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None };
        match number {
            Some(0) => Err(wrong("port 0 cannot be listened on", "1 to 65535 is allowed")),
            Some(number) => Ok(number),
            None => Err(wrong(
                format!("{} is not a port", quoted(text)),
                "1 to 65535 is allowed, or a range such as 8000-8100",
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

/// Why an address can be neither a service's nor a server's.
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
        IpAddr::V6(address) if address.is_unicast_link_local() => Some("it is link-local, which no router forwards"),
        IpAddr::V6(address) if address.to_ipv4_mapped().is_some() => {
            Some("it is an IPv4 address in IPv6 notation, which no packet carries")
        }
        IpAddr::V6(_) => None,
    }
}

/// An address as it stands before a port.
fn bracketed(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// A listen address as the operator writes it.
pub(super) fn written(listen: &Listen) -> String {
    let (address, protocol) = (bracketed(listen.address), listen.protocol.name());
    match (listen.protocol, listen.first_port, listen.last_port) {
        (Protocol::Icmp, ..) => format!("{address}/{protocol}"),
        (_, first, last) if first == last => format!("{address}:{first}/{protocol}"),
        (_, first, last) => format!("{address}:{first}-{last}/{protocol}"),
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
        ] {
            assert_eq!(listen(text).map(|listen| written(&listen)).as_deref(), Ok(text));
        }
        let icmp = listen("192.0.2.80/icmp").expect("valid");
        assert_eq!((icmp.first_port, icmp.last_port), (0, u16::MAX));
    }

    #[test]
    fn each_wrong_listen_address_is_told_what_is_wrong_with_it() {
        for (text, want) in [
            ("", "listen address \"\" has no protocol"),
            ("192.0.2.80:80", "listen address \"192.0.2.80:80\" has no protocol"),
            ("192.0.2.80:80/", "unknown protocol \"\""),
            ("192.0.2.80:80/TCP", "unknown protocol \"TCP\""),
            ("192.0.2.80/tcp", "the port is missing"),
            ("192.0.2.80:80/icmp", "ICMP has no ports"),
            ("192.0.2.80:0/tcp", "port 0 cannot be listened on"),
            ("192.0.2.80:0-5/tcp", "port 0 cannot be listened on"),
            ("192.0.2.80:65536/tcp", "\"65536\" is not a port"),
            ("192.0.2.80:+80/tcp", "\"+80\" is not a port"),
            ("192.0.2.80:/tcp", "\"\" is not a port"),
            ("192.0.2.80:80-/tcp", "\"\" is not a port"),
            ("192.0.2.80:90-80/tcp", "the port range 90-80 is reversed"),
            ("192.0.2.080:80/tcp", "\"192.0.2.080\" is not an IP address"),
            ("web:80/tcp", "\"web\" is not an IP address"),
            ("2001:db8::80:80/tcp", "an IPv6 address of a service must stand in brackets"),
            ("[2001:db8::80:80/tcp", "the bracket is not closed"),
            ("[2001:db8::80]80/tcp", "\"80\" stands between address and protocol"),
            ("[192.0.2.80]:80/tcp", "\"192.0.2.80\" is not an IP address"),
            ("[fe80::1%eth0]:80/tcp", "\"fe80::1%eth0\" is not an IP address"),
            ("0.0.0.0:80/tcp", "0.0.0.0 cannot be a service address: it is unspecified (0.0.0.0/8)"),
            ("[::]:80/tcp", ":: cannot be a service address: it is unspecified (::)"),
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
