//! `equipoise explain`: what would become of hypothetical packets under a configuration.

use super::{Failed, args, load};
use crate::control::{self, PacketWords, render};
use crate::engine::{Engine, Verdict};
use crate::replay;
use crate::time::Instant;
use serde::Serialize;
use std::io::Write;

/// When the packets come; the engine needs a time, and nothing depends on which.
const NOW: Instant = Instant::from_nanos(1_000_000_000);

/// Explains packets in turn; each is handled after it was explained, so that the next meets what it left.
pub(super) fn explain(args: &args::Explain, out: &mut dyn Write) -> Result<(), Failed> {
    let mut settings = load(&args.config)?.settings;
    if let Some(seed) = args.seed {
        settings = settings.with_seed(seed);
    }
    let mut engine = Engine::try_new(&settings).map_err(|error| Failed::Message(error.to_string()))?;
    // No probe is ever answered here: without this, servers would go down.
    engine.observe_probes();
    engine.handle_timeout(NOW);
    for words in &args.events {
        let usage = |what| Failed::Usage(format!("--event {words:?}: {what}"));
        let wrong = |error: replay::ScriptError| usage(format!("column {}: {}", error.column, error.what));
        let change = replay::event(words, &engine).map_err(wrong)?;
        engine.apply(NOW, change).map_err(|refused| usage(refused.to_string()))?;
    }
    for (place, packet) in args.packets.iter().enumerate() {
        let explanation = control::explain(&engine, NOW, packet);
        if args.json {
            pretty(&explanation, out)?;
        } else {
            let gap = if place > 0 { "\n" } else { "" };
            write!(out, "{gap}{}", render::explanation_text(&explanation))?;
        }
        let (verdict, went) = handle(&mut engine, packet);
        if let Some(how) = control::difference(&explanation.outcome, &engine, NOW, &verdict, &went) {
            return Err(Failed::Message(format!(
                "the packet did not meet the verdict that was explained ({how}): this is a fault of equipoise; please \
                 report it with the configuration"
            )));
        }
    }
    Ok(out.flush()?)
}

/// Hands a packet to the engine; returns its verdict and the packet as it is then.
fn handle(engine: &mut Engine, packet: &PacketWords) -> (Verdict, Vec<u8>) {
    let (mut bytes, mut sent) = (packet.bytes(), vec![0; usize::from(u16::MAX)]);
    let meta = packet.meta(&engine.plan().settings().policy.interfaces);
    let verdict = engine.handle_packet(NOW, &mut bytes, meta);
    while engine.poll_transmit(NOW, &mut sent).is_some() {}
    while engine.poll_event().is_some() {}
    (verdict, bytes)
}

/// Writes one JSON object.
fn pretty<T: Serialize>(value: &T, out: &mut dyn Write) -> Result<(), Failed> {
    serde_json::to_writer_pretty(&mut *out, value).map_err(|error| Failed::Output(error.into()))?;
    Ok(writeln!(out)?)
}
