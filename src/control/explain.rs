//! Explanations of hypothetical packets, and whether what happened is what an explanation said.

use super::packet_words::PacketWords;
use crate::engine::explain::OutcomeRow;
use crate::engine::{Consumed, Engine, Explanation, Forwarded, Reason, Verdict};
use crate::packet::{Transport, parse};
use crate::time::Instant;
use std::net::SocketAddr;

/// Explains what would become of a hypothetical packet.
pub fn explain(engine: &Engine, now: Instant, packet: &PacketWords) -> Explanation {
    let interfaces = &engine.plan().settings().policy.interfaces;
    let meta = packet.meta(interfaces);
    let mut explanation = engine.explain(now, &packet.bytes(), meta);
    if let Some(name) = packet.ingress()
        && meta.ingress == 0
    {
        explanation.notes.push(format!("no rule refers to the interface {name}"));
    }
    explanation
}

/// Returns how the verdict on a packet differs from what was explained; none where it does not.
///
/// `went` begins with the packet as it was after the verdict. What the monitors or the fragment store decide cannot be
/// explained; of those only the part of the gateway is compared.
pub fn difference(
    explained: &OutcomeRow,
    engine: &Engine,
    now: Instant,
    verdict: &Verdict,
    went: &[u8],
) -> Option<String> {
    let (word, reason) = words(verdict);
    let other_part = match explained.verdict.as_str() {
        _ if is_of_store(verdict, went) => Some(true),
        "monitors" => Some(is_of_monitors(verdict)),
        // Any verdict can come from the store: a first fragment meets that of the packet it begins.
        "fragment" => Some(true),
        _ => None,
    };
    if let Some(agrees) = other_part {
        return (!agrees).then(|| format!("explained {}, met {word}", explained.verdict));
    }
    let said = (explained.verdict.as_str(), explained.reason.as_deref().filter(|_| reason.is_some()));
    if said != (word, reason) {
        let shown = |(word, reason): (&str, Option<&str>)| reason.map_or(word.into(), |why| format!("{word} ({why})"));
        return Some(format!("explained {}, met {}", shown(said), shown((word, reason))));
    }
    let (Verdict::Forward { why, .. } | Verdict::Emit { why }) = verdict else { return None };
    let Forwarded::Translated { flow, opened, .. } = *why else { return None };
    if explained.opens != opened {
        let shown = |opens| if opens { "a new flow" } else { "no new flow" };
        return Some(format!("explained {}, met {}", shown(explained.opens), shown(opened)));
    }
    let server = engine.flow_row(now, flow).map(|row| row.server_name());
    if explained.server != server {
        let shown = |name: Option<&String>| name.map_or("none".to_owned(), Clone::clone);
        return Some(format!("explained server {}, met {}", shown(explained.server.as_ref()), shown(server.as_ref())));
    }
    match (verdict, &explained.to, destination(went)) {
        (Verdict::Forward { .. }, Some(said), Some(to)) if !same_end(said, to) => {
            Some(format!("explained a packet to {said}, met one to {to}"))
        }
        _ => None,
    }
}

/// Returns the words for a verdict that explanations use.
fn words(verdict: &Verdict) -> (&'static str, Option<&'static str>) {
    match verdict {
        Verdict::Forward { why: Forwarded::Foreign, .. } => ("pass", None),
        Verdict::Forward { .. } => ("forward", None),
        Verdict::Emit { .. } => ("emit", None),
        Verdict::Consume(kind) => ("consume", Some(kind.name())),
        Verdict::Drop(reason) => ("drop", Some(reason.name())),
    }
}

fn is_of_monitors(verdict: &Verdict) -> bool {
    matches!(
        verdict,
        Verdict::Consume(Consumed::Probe | Consumed::LateProbe)
            | Verdict::Drop(Reason::NoProbe | Reason::BadProbeChecksum)
    )
}

/// Whether the fragment store refused a packet: a first fragment is explained as if the store took it.
fn is_of_store(verdict: &Verdict, packet: &[u8]) -> bool {
    let refused = matches!(verdict, Verdict::Drop(Reason::FragmentOverlap | Reason::FragmentStoreFull));
    refused && parse(packet).is_ok_and(|parsed| matches!(parsed.transport, Transport::Fragment { .. }))
}

/// Returns where a packet goes; its port is 0 where it has none.
fn destination(packet: &[u8]) -> Option<SocketAddr> {
    let parsed = parse(packet).ok()?;
    let port = match parsed.transport {
        Transport::Tcp { dst, .. } | Transport::Udp { dst, .. } | Transport::Sctp { dst, .. } => dst,
        _ => 0,
    };
    Some(SocketAddr::new(parsed.addresses.dst(), port))
}

/// Whether an end is what the explanation says; neither an echo request nor a fragment shows a port, which is 0 here.
fn same_end(said: &str, to: SocketAddr) -> bool {
    let address = match said.parse::<SocketAddr>() {
        Ok(end) if to.port() != 0 => return end == to,
        Ok(end) => Some(end.ip()),
        Err(_) => said.parse().ok(),
    };
    address == Some(to.ip())
}
