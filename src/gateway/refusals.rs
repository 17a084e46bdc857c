//! Logs that flows were refused for lack of NAT ports, table space or servers.
//!
//! It decides nothing; the engine counts.

use crate::engine::{Engine, Reason};
use crate::time::Instant;
use std::time::Duration;

/// The shortest interval between two log lines.
const PAUSE: Duration = Duration::from_secs(10);
/// The reasons that are logged, with the command that shows more.
const GRAVE: [(Reason, &str); 4] = [
    (Reason::NatExhausted, "a NAT pool had no port left; `eqctl nat` shows them"),
    (Reason::TableFull, "the flow table was full; `eqctl status` shows its size, `[flows] max` sets it"),
    (Reason::ReturnKeyTaken, "another flow had the only return key; `eqctl counters` explains"),
    (Reason::NoServer, "no server was up; `eqctl servers` shows why"),
];

/// The counts at the last log line, and when the next one is due.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    told: [u64; GRAVE.len()],
    rest: Option<Instant>,
}

impl Refusals {
    /// Logs the packets refused since the last line.
    pub(super) fn tell(&mut self, engine: &Engine, now: Instant) {
        for line in self.lines(engine, now) {
            log::warn!("{line}");
        }
    }

    fn lines(&mut self, engine: &Engine, now: Instant) -> Vec<String> {
        if self.rest.is_some_and(|rest| now < rest) {
            return Vec::new();
        }
        self.rest = Some(now + PAUSE);
        let mut lines = Vec::new();
        for ((reason, why), told) in GRAVE.iter().zip(&mut self.told) {
            let count = engine.refused(*reason);
            let more = count - *told;
            *told = count;
            if more > 0 {
                let packets = if more == 1 { "packet" } else { "packets" };
                lines.push(format!("{more} {packets} refused since the last such line, {}: {why}", reason.name()));
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;
    use crate::packet::Meta;

    #[test]
    fn refusals_are_logged_once_and_not_too_often_however_the_service_refuses() {
        for last_resort in ["drop", "unreachable"] {
            let text = format!(
                "[[service]]\nname = \"s\"\nlisten = \"192.0.2.80:53/udp\"\npool = \"p\"\nlast-resort = \"{last_resort}\"\n\
                 [[pool]]\nname = \"p\"\nserver = [{{ name = \"a\", address = \"10.0.0.1\" }}]\n"
            );
            let settings: Settings = crate::config::parse(&text, "test").unwrap_or_else(|error| panic!("{error}"));
            let mut engine = Engine::new(&settings);
            let mut refusals = Refusals::default();
            let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
            let mut query = Vec::new();
            let packet = etherparse::PacketBuilder::ipv4([198, 51, 100, 7], [192, 0, 2, 80], 64).udp(4000, 53);
            packet.write(&mut query, b"?").expect("a packet");
            assert_eq!(refusals.lines(&engine, at(0)), Vec::<String>::new());
            let down = crate::engine::Change::Weight { server: crate::ids::ServerId(0), weight: 0 };
            engine.apply(at(0), down).expect("a server");
            for _ in 0..3 {
                engine.handle_packet(at(1), &mut query.clone(), Meta::default());
            }
            assert_eq!(refusals.lines(&engine, at(9)), Vec::<String>::new());
            let lines = refusals.lines(&engine, at(10));
            let is_told = lines.len() == 1 && lines[0].starts_with("3 packets") && lines[0].contains("no-server");
            assert!(is_told, "{last_resort}: {lines:?}");
            assert_eq!(refusals.lines(&engine, at(20)), Vec::<String>::new());
        }
    }
}
