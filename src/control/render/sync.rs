//! The other gateway of a pair: who is active, what both know, what is wrong.

use super::{bytes, count, duration, printable};
use crate::control::protocol::{LinkRow, SyncRow, TakeoverRow};

/// Prints the state of a pair.
pub fn sync_text(row: &SyncRow) -> String {
    let peer = printable(row.peer.clone());
    let ready = if row.ready { "" } else { ": it may not be elected yet" };
    let mut text = format!(
        "gateway    {} at {}: {} (term {}){ready}\n",
        printable(row.node.clone()),
        row.address,
        row.role,
        count(row.term),
    );
    let role = row.peer_role.as_deref().unwrap_or("not connected");
    let since = match (&row.link, row.trouble_for_ms) {
        (Some(link), _) => format!(", connected for {}", duration(link.for_ms)),
        (None, Some(for_ms)) => format!(" for {}: {}", duration(for_ms), row.trouble.as_deref().unwrap_or_default()),
        (None, None) => String::new(),
    };
    text.push_str(&format!("peer       {peer} at {}: {role}{}\n", row.peer_address, printable(since)));
    text.push_str(&format!(
        "flows      {}, {}\n",
        count(row.flows),
        row.link.map_or("alone".into(), |link| known(&link))
    ));
    text.push_str(&format!("digest     {}\n", row.digest));
    text.push_str(&format!(
        "traffic    {} sent, {} received; {}\n",
        bytes(row.sent_bytes),
        bytes(row.received_bytes),
        if row.connections == 1 { "1 connection".into() } else { format!("{} connections", count(row.connections)) },
    ));
    text.push_str(&differences(row, &peer));
    if row.follows_health {
        let probes = match row.probed_here {
            0 => "this gateway sends no probes".into(),
            own => format!("this gateway probes {} addresses and ports that {peer} does not monitor", count(own)),
        };
        text.push_str(&format!("health     from {peer}; {probes}\n"));
    }
    if let Some(held) = &row.held {
        text.push_str(&format!(
            "answers    {} SYN-ACKs held for {peer}: {} acknowledged, {} sent after 20 ms or when it was lost; {} not held\n",
            count(held.held),
            count(held.acknowledged),
            count(held.late),
            count(held.not_held),
        ));
    }
    if let Some(takeover) = &row.takeover {
        text.push_str(&format!("active     {}\n", since_takeover(takeover, &peer)));
    }
    text
}

/// Says in what the configurations differ, and which flows a failover would lose for it.
fn differences(row: &SyncRow, peer: &str) -> String {
    let mut text = String::new();
    if row.link.is_some_and(|link| link.differs) {
        text.push_str("config     DIFFERS from that of the peer in what concerns flows: give both the same\n");
    }
    for refused in &row.refused {
        text.push_str(&format!(
            "refused    {} records of flows of {peer}: {}; they would be lost in a failover\n",
            count(refused.records),
            printable(refused.why.clone()),
        ));
    }
    if !row.unknown_services.is_empty() {
        let names = printable(row.unknown_services.join(", "));
        text.push_str(&format!("services   of {peer} that are NOT CONFIGURED here: {names}\n"));
    }
    if row.refused_there > 0 {
        let records = count(row.refused_there);
        text.push_str(&format!("refused    {records} records by {peer}: `eqctl sync` there says why\n"));
    }
    text
}

/// Says how far one knows what the other knows.
fn known(link: &LinkRow) -> String {
    if !link.in_step {
        return format!("{} of about {} have come", count(link.came), count(link.announced));
    }
    let agreed = if link.agreed { " (digests agree)" } else { "" };
    let lag = match link.lag_frames {
        0 => String::new(),
        1 => ", 1 frame behind".into(),
        frames => format!(", {} frames behind", count(frames)),
    };
    format!("in step{agreed}{lag}")
}

fn since_takeover(row: &TakeoverRow, peer: &str) -> String {
    let whole = if row.whole { "all that" } else { "WITHOUT all that" };
    let silent = match row.silent_ms {
        Some(silent) => format!("; {peer} had been silent for {}", duration(silent)),
        None => String::new(),
    };
    format!("for {}: began with {} flows, {whole} {peer} had reported{silent}", duration(row.ago_ms), count(row.flows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::{HeldRow, RefusedRow};

    fn row() -> SyncRow {
        SyncRow {
            node: "a".into(),
            address: "10.255.0.1:7400".parse().unwrap(),
            role: "active".into(),
            term: 3,
            ready: true,
            peer: "b".into(),
            peer_address: "10.255.0.2:7400".parse().unwrap(),
            peer_role: Some("standby".into()),
            link: Some(LinkRow {
                for_ms: 12_000,
                in_step: true,
                agreed: false,
                lag_frames: 2,
                announced: 10,
                came: 10,
                skipped: 0,
                differs: false,
            }),
            trouble: None,
            trouble_for_ms: None,
            connections: 1,
            sent_bytes: 12_000_000,
            received_bytes: 1_000,
            flows: 1_234_567,
            digest: "00ff".into(),
            takeover: Some(TakeoverRow { ago_ms: 5_000, flows: 1_200, whole: true, silent_ms: Some(340) }),
            refused: Vec::new(),
            unknown_services: Vec::new(),
            refused_there: 0,
            follows_health: false,
            probed_here: 0,
            held: Some(HeldRow { held: 1_300, acknowledged: 1_290, late: 8, not_held: 4 }),
        }
    }

    #[test]
    fn a_pair_in_step_and_one_that_is_apart() {
        let text = sync_text(&row());
        assert!(text.starts_with("gateway    a at 10.255.0.1:7400: active (term 3)\n"), "{text}");
        assert!(text.contains("b at 10.255.0.2:7400: standby, connected for 12"), "{text}");
        assert!(text.contains("flows      1,234,567, in step, 2 frames behind\n"), "{text}");
        let held = "answers    1,300 SYN-ACKs held for b: 1,290 acknowledged, 8 sent after 20 ms or when it was lost; 4 not held\n";
        assert!(text.contains(held), "{text}");
        assert!(text.contains("with 1,200 flows, all that b had reported; b had been silent for 0.3s"), "{text}");
        let apart = SyncRow {
            ready: false,
            peer_role: None,
            link: None,
            trouble: Some("it does not answer".into()),
            trouble_for_ms: Some(60_000),
            takeover: None,
            ..row()
        };
        let text = sync_text(&apart);
        assert!(text.contains("(term 3): it may not be elected yet\n"), "{text}");
        assert!(
            text.contains("not connected for 1m: it does not answer\n") || text.contains("it does not answer\n"),
            "{text}"
        );
        assert!(text.contains("flows      1,234,567, alone\n"), "{text}");
        let refused = vec![RefusedRow { why: "its service is gone".into(), records: 12 }];
        let refused = SyncRow { refused, unknown_services: vec!["web2".into()], refused_there: 3, ..row() };
        let text = sync_text(&refused);
        assert!(text.contains("12 records of flows of b: its service is gone; they would be lost"), "{text}");
        assert!(text.contains("services   of b that are NOT CONFIGURED here: web2\n"), "{text}");
        assert!(text.contains("refused    3 records by b: `eqctl sync` there says why\n"), "{text}");
        let follows = sync_text(&SyncRow { follows_health: true, ..row() });
        assert!(follows.contains("health     from b; this gateway sends no probes\n"), "{follows}");
        let mixed = sync_text(&SyncRow { follows_health: true, probed_here: 3, ..row() });
        let probes = "health     from b; this gateway probes 3 addresses and ports that b does not monitor\n";
        assert!(mixed.contains(probes), "{mixed}");
        let mut differs = row();
        differs.link.iter_mut().for_each(|link| (link.differs, link.in_step) = (true, false));
        let text = sync_text(&differs);
        assert!(text.contains("DIFFERS") && text.contains("10 of about 10 have come"), "{text}");
    }
}
