//! The table `[sync]`: each value read and checked by itself, and against the others of the table.
//!
//! It must not know services.

use crate::config::fields::Fields;
use crate::config::keys;
use crate::config::problem::Draft;
use crate::config::settings::{PairHealth, PairRoutes, PairSettings};
use crate::config::values;
use crate::config::words::quoted;
use serde_spanned::Spanned;
use std::net::SocketAddr;
use std::path::PathBuf;

/// The words for when service addresses are routed.
pub(crate) const ROUTES: [(&str, PairRoutes); 2] =
    [("always", PairRoutes::Always), ("when-active", PairRoutes::WhenActive)];

/// The words for whose view of the servers' health a standby has.
pub(crate) const HEALTH: [(&str, PairHealth); 2] = [("own", PairHealth::Own), ("active", PairHealth::Active)];

/// Reads `[sync]`, if it is there and has what it needs.
pub(crate) fn sync(top: &mut Fields<'_, '_>) -> Option<PairSettings> {
    let (table, span) = top.table(&keys::SYNC)?;
    let mut fields = Fields::new(table, span, &keys::SYNC, top.drafts);
    let node = name(&mut fields, "node", "node = \"gateway-1\"");
    let peer = name(&mut fields, "peer", "peer = \"gateway-2\"");
    let address = address(&mut fields, "address", "address = \"10.255.0.1:7400\"");
    let peer_address = self::address(&mut fields, "peer-address", "peer-address = \"10.255.0.2:7400\"");
    let key_file = match fields.required("key-file", "key-file = \"/etc/equipoise/sync.key\"") {
        Some(_) => path(&mut fields, "key-file", "/etc/equipoise/sync.key"),
        None => None,
    };
    let interface = values::interface(&mut fields, "interface", "interface = \"wg0\"");
    let insecure = fields.flag_or_default("insecure");
    let learning = fields.duration_or_default("learning");
    let track_file = path(&mut fields, "track-file", "/run/equipoise/track");
    let routes = fields.choice("routes", &ROUTES).unwrap_or_default();
    let before_answer = fields.flag_or_default("before-answer");
    let health = fields.choice("health", &HEALTH).unwrap_or_default();
    if let (Some(node), Some(peer)) = (&node, &peer)
        && node.get_ref() == peer.get_ref()
    {
        let draft = Draft::error(peer.span(), "`peer` is this gateway itself").also(node.span(), "its name");
        fields.drafts.push(draft.help("give the two gateways different names: `node` here is `peer` there"));
    }
    let (address, peer_address) = (address?, peer_address?);
    if address.get_ref().is_ipv4() != peer_address.get_ref().is_ipv4() {
        let draft = Draft::error(peer_address.span(), "`peer-address` is of another family than `address`");
        fields.drafts.push(draft.also(address.span(), "this gateway").help("use two IPv4 or two IPv6 addresses"));
    } else if address.get_ref() == peer_address.get_ref() {
        let draft = Draft::error(peer_address.span(), "`peer-address` is the address of this gateway itself");
        fields.drafts.push(draft.also(address.span(), "this gateway").help("write the `address` of the other one"));
    }
    let loops = [&address, &peer_address].iter().all(|address| address.get_ref().ip().is_loopback());
    if !loops && interface.is_none() && !insecure {
        let title = format!("flows would be sent to {} without encryption", peer_address.get_ref().ip());
        fields.drafts.push(Draft::error(peer_address.span(), title).help(
            "name the tunnel that leads there: `interface = \"wg0\"`; or, if the network between the two is trusted or \
             protected in another way, write `insecure = true`",
        ));
    }
    Some(PairSettings {
        node: node?.into_inner(),
        peer: peer?.into_inner(),
        address: address.into_inner(),
        peer_address: peer_address.into_inner(),
        key_file: key_file?,
        interface: interface.map(Spanned::into_inner),
        insecure,
        learning,
        track_file,
        routes,
        before_answer,
        health,
    })
}

fn name(fields: &mut Fields<'_, '_>, key: &str, form: &str) -> Option<Spanned<String>> {
    let value = fields.required(key, form)?;
    values::name_of(fields, key, value, form)
}

fn address(fields: &mut Fields<'_, '_>, key: &str, form: &str) -> Option<Spanned<SocketAddr>> {
    let value = fields.required(key, form)?;
    let text = fields.string(key, value, form)?;
    let written = text.get_ref().as_str();
    let (title, help) = match written.parse::<SocketAddr>() {
        Ok(address) if address.port() == 0 => (format!("{address} has no port"), "use a port from 1 to 65535".into()),
        Ok(address) if address.ip().is_unspecified() || address.ip().is_multicast() => (
            format!("{} cannot be the address of a gateway", address.ip()),
            "use the unicast address of one interface".into(),
        ),
        Ok(address) => return Some(Spanned::new(text.span(), address)),
        Err(_) => (format!("{} is not an address with a port", quoted(written)), format!("write `{form}`")),
    };
    fields.drafts.push(Draft::error(text.span(), title).help(help));
    None
}

fn path(fields: &mut Fields<'_, '_>, key: &str, example: &str) -> Option<PathBuf> {
    let path = values::text(fields, key, &format!("{key} = \"{example}\""))?;
    let text = path.get_ref();
    if !fields.length_fits(key, text.len()) || text.ends_with('/') || text.contains('\0') {
        let title = format!("`{key}` is not the path of a file");
        let help = format!("allowed: {}, such as \"{example}\"", fields.takes(key));
        fields.drafts.push(Draft::error(path.span(), title).help(help));
    }
    Some(path.into_inner().into())
}
