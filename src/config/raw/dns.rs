//! The table `[dns]`: each value read and checked by itself.
//!
//! It must not know pools.

use crate::config::fields::Fields;
use crate::config::keys;
use crate::config::problem::Draft;
use crate::config::words::quoted;
use crate::sources::DnsSettings;
use std::net::{IpAddr, SocketAddr};
use toml::de::DeTable;

/// The port of DNS (RFC 1035, section 4.2).
const PORT: u16 = 53;
/// Most resolvers.
const MOST: usize = 8;

/// Reads `[dns]`.
pub(crate) fn dns(top: &mut Fields<'_, '_>) -> DnsSettings {
    let empty = DeTable::new();
    let (table, span) = top.table(&keys::DNS).unwrap_or((&empty, 0..0));
    let mut fields = Fields::new(table, span, &keys::DNS, top.drafts);
    DnsSettings {
        servers: servers(&mut fields),
        min_ttl: fields.duration_or_default("min-ttl"),
        max_ttl: fields.duration_or_default("max-ttl"),
    }
}

fn servers(fields: &mut Fields<'_, '_>) -> Vec<SocketAddr> {
    let form = "servers = [\"192.0.2.53\", \"[2001:db8::53]:5353\"]";
    let mut all: Vec<SocketAddr> = Vec::new();
    let Some(value) = fields.value("servers") else { return all };
    for text in fields.strings("servers", value, form).unwrap_or_default() {
        let written = text.get_ref().as_str();
        let address = written.parse::<IpAddr>().map(|address| SocketAddr::new(address, PORT)).or(written.parse());
        let problem = match address {
            Err(_) => {
                Some((format!("{} is not the address of a resolver", quoted(written)), format!("write `{form}`")))
            }
            Ok(address) if address.port() == 0 || address.ip().is_unspecified() || address.ip().is_multicast() => {
                Some((
                    format!("{address} cannot be a resolver"),
                    "use the unicast address and port at which the resolver answers".into(),
                ))
            }
            Ok(address) if all.contains(&address) => {
                Some((format!("resolver {address} is listed twice"), "remove one of them".into()))
            }
            Ok(_) if all.len() == MOST => {
                Some((format!("more than {MOST} resolvers"), "name those that answer fastest".into()))
            }
            Ok(address) => {
                all.push(address);
                None
            }
        };
        if let Some((title, help)) = problem {
            fields.drafts.push(Draft::error(text.span(), title).help(help));
        }
    }
    all
}
