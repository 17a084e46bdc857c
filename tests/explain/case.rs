//! A case and how it is run.

use equipoise::balance::Algorithm;
use equipoise::config;
use equipoise::control::{PacketWords, difference, render};
use equipoise::engine::{Consumed, Duty, Engine, Reason, Verdict};
use equipoise::packet::{Meta, describe};
use equipoise::replay;
use equipoise::time::{Duration, Instant};
use std::fs;
use std::path::{Path, PathBuf};

/// What a case shows; its golden file is named after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shows {
    Algorithm(Algorithm),
    Drop(Reason),
    Consume(Consumed),
    /// Something else.
    Other(&'static str),
}

impl Shows {
    pub(crate) fn name(self) -> String {
        match self {
            Shows::Algorithm(algorithm) => format!("algorithm-{}", algorithm.name()),
            Shows::Drop(reason) => format!("drop-{}", reason.name()),
            Shows::Consume(kind) => format!("consume-{}", kind.name()),
            Shows::Other(name) => name.into(),
        }
    }
}

/// What happens before the packet is explained.
enum Step {
    Packet(Vec<u8>, Meta),
    Event(&'static str),
    /// Time passes, and timers run.
    Wait(u64),
}

/// An engine, what happens to it, and a packet.
pub(crate) struct Case {
    pub(crate) shows: Shows,
    config: String,
    steps: Vec<Step>,
    /// Whether the monitors follow probes of the capture, as in a replay.
    observes: bool,
    /// Whether nobody takes the engine's own packets.
    stuck: bool,
    /// What the gateway answers for when the packet comes.
    duty: Duty,
}

/// A service for TCP on port 80 and one for UDP on port 53, of both families, with three servers each.
pub(crate) const CONFIG: &str = r#"
seed = 1
[flows]
max = 100
[[service]]
name = "web"
listen = ["192.0.2.80:80/tcp", "[2001:db8::80]:80/tcp"]
pool = "web"
[[service]]
name = "dns"
listen = ["192.0.2.80:53/udp", "[2001:db8::80]:53/udp"]
pool = "dns"
[[pool]]
name = "web"
server = [
    { name = "web-1", address = ["10.0.2.1", "fd00::1"], port = 8080 },
    { name = "web-2", address = ["10.0.2.2", "fd00::2"], port = 8080, weight = 2 },
    { name = "web-3", address = "10.0.2.3", port = 8080 },
]
[[pool]]
name = "dns"
server = [
    { name = "dns-1", address = ["10.0.2.1", "fd00::1"] },
    { name = "dns-2", address = ["10.0.2.2", "fd00::2"] },
]
"#;

/// A configuration in which an experiment fails.
pub(crate) fn config_with(head: &str, tail: &str) -> String {
    format!("{head}\n{CONFIG}\n{tail}")
}

/// The words of a packet as bytes.
pub(crate) fn bytes(words: &str) -> Vec<u8> {
    words.parse::<PacketWords>().unwrap_or_else(|error| panic!("{words}: {error}")).bytes()
}

impl Case {
    /// A case with [`CONFIG`].
    pub(crate) fn new(shows: Shows) -> Self {
        Case::with(shows, CONFIG)
    }

    pub(crate) fn with(shows: Shows, config: &str) -> Self {
        Case { shows, config: config.into(), steps: Vec::new(), observes: false, stuck: false, duty: Duty::Full }
    }

    /// A packet in words; the last packet is the one that is explained.
    pub(crate) fn packet(self, words: &str) -> Self {
        self.bytes(bytes(words))
    }

    /// A packet; the last packet is the one that is explained.
    pub(crate) fn bytes(self, packet: Vec<u8>) -> Self {
        self.with_meta(packet, Meta::default())
    }

    pub(crate) fn with_meta(mut self, packet: Vec<u8>, meta: Meta) -> Self {
        self.steps.push(Step::Packet(packet, meta));
        self
    }

    pub(crate) fn event(mut self, words: &'static str) -> Self {
        self.steps.push(Step::Event(words));
        self
    }

    pub(crate) fn wait(mut self, ms: u64) -> Self {
        self.steps.push(Step::Wait(ms));
        self
    }

    pub(crate) fn observing(self) -> Self {
        Case { observes: true, ..self }
    }

    pub(crate) fn with_duty(self, duty: Duty) -> Self {
        Case { duty, ..self }
    }

    pub(crate) fn stuck(self) -> Self {
        Case { stuck: true, ..self }
    }

    /// Runs it; returns what is wrong.
    pub(crate) fn run(mut self) -> Result<(), String> {
        let name = self.shows.name();
        let wrong = |what: String| Err(format!("{name}: {what}"));
        let settings = config::parse(&self.config, &name).map_err(|error| error.to_string())?;
        let mut engine = Engine::new(&settings);
        if self.observes {
            engine.observe_probes();
        }
        let mut now = Instant::from_nanos(1_000_000_000);
        engine.handle_timeout(now);
        drain(&mut engine, now);
        let Some(Step::Packet(packet, meta)) = self.steps.pop() else { panic!("{name}: no packet at the end") };
        for step in self.steps {
            match step {
                Step::Packet(mut bytes, meta) => {
                    if let Verdict::Drop(reason) = engine.handle_packet(now, &mut bytes, meta) {
                        return wrong(format!("{} is dropped: {}", describe(&bytes), reason.text()));
                    }
                }
                Step::Event(words) => {
                    let change = replay::event(words, &engine).unwrap_or_else(|error| panic!("{name}: {error}"));
                    engine.apply(now, change).unwrap_or_else(|error| panic!("{name}: {error}"));
                }
                Step::Wait(ms) => {
                    let until = now + Duration::from_millis(ms);
                    while let Some(due) = engine.poll_timeout().filter(|due| *due <= until) {
                        engine.handle_timeout(due.max(now));
                    }
                    now = until;
                }
            }
            if !self.stuck {
                drain(&mut engine, now);
            }
        }

        engine.set_duty(now, self.duty);
        explained(&name, (self.shows, self.stuck), &mut engine, now, (&packet, meta)).or_else(wrong)
    }
}

/// Compares what an explanation says with what then happens to the packet, and its text with the golden file.
fn explained(
    name: &str,
    (shows, stuck): (Shows, bool),
    engine: &mut Engine,
    now: Instant,
    (packet, meta): (&[u8], Meta),
) -> Result<(), String> {
    let before = (engine.counters(), engine.servers(now), engine.rules(), engine.nat_pools());
    let explanation = engine.explain(now, packet, meta);
    let foreseen = engine.foresee(now, packet, meta);
    if engine.explain(now, packet, meta) != explanation {
        return Err("two explanations of one packet differ".into());
    }
    if (engine.counters(), engine.servers(now), engine.rules(), engine.nat_pools()) != before {
        return Err("explaining has left a trace".into());
    }
    if stuck {
        // What waits is not of the packet.
        assert!(matches!(foreseen.verdict, Some(Verdict::Drop(Reason::AnswerQueueFull))), "{name}");
    }
    let mut went = packet.to_vec();
    let verdict = engine.handle_packet(now, &mut went, meta);
    if let Some(how) = difference(&explanation.outcome, engine, now, &verdict, &went) {
        return Err(format!("{how}\n{}", render::explanation_text(&explanation)));
    }
    let sent = drain(engine, now);
    if let Some(expected) = foreseen.verdict
        && !is_of_store(&verdict)
    {
        if expected != verdict {
            return Err(format!("foreseen {expected:?}, met {verdict:?}"));
        }
        if matches!(verdict, Verdict::Forward { .. }) && foreseen.bytes != went {
            return Err(format!("foreseen bytes {:02x?}, met {went:02x?}", foreseen.bytes));
        }
        if !stuck && foreseen.sends != sent {
            return Err(format!("foreseen {} packets, met {}: or other ones", foreseen.sends.len(), sent.len()));
        }
    }
    check_shown(shows, &verdict)?;
    compare(name, &render::explanation_text(&explanation))
}

/// Takes the packets that the engine sends.
fn drain(engine: &mut Engine, now: Instant) -> Vec<Vec<u8>> {
    let mut buffer = vec![0; 65_535];
    let mut sent = Vec::new();
    while let Some((len, _)) = engine.poll_transmit(now, &mut buffer) {
        sent.push(buffer[..len].to_vec());
    }
    sent
}

/// The fragment store alone refuses so, which no explanation looks into.
fn is_of_store(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Drop(Reason::FragmentOverlap | Reason::FragmentStoreFull))
}

/// Whether a case shows what it claims to.
fn check_shown(shows: Shows, verdict: &Verdict) -> Result<(), String> {
    let shown = match (shows, verdict) {
        (Shows::Drop(reason), Verdict::Drop(met)) => reason == *met,
        (Shows::Consume(kind), Verdict::Consume(met)) => kind == *met,
        (Shows::Algorithm(_), Verdict::Forward { .. }) | (Shows::Other(_), _) => true,
        _ => false,
    };
    if shown { Ok(()) } else { Err(format!("the packet met {verdict:?}")) }
}

pub(crate) fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/explain")
}

/// Compares a text with its golden file, or writes it there with `BLESS=1`.
fn compare(name: &str, text: &str) -> Result<(), String> {
    let path = directory().join(format!("{name}.txt"));
    if std::env::var_os("BLESS").is_some_and(|value| value == "1") {
        return fs::write(&path, text).map_err(|error| format!("cannot write {}: {error}", path.display()));
    }
    let want = fs::read_to_string(&path)
        .map_err(|error| format!("cannot read {}: {error}; BLESS=1 in the environment writes it", path.display()))?;
    let differs = |(have, want): &(&str, &str)| have != want;
    match text.lines().chain([""]).zip(want.lines().chain([""])).find(differs) {
        _ if text == want => Ok(()),
        Some((have, want)) => {
            Err(format!("the text differs; where this is right, run again with BLESS=1\n- {want}\n+ {have}"))
        }
        None => Err("the text is shorter or longer than its file; run with BLESS=1 where this is right".into()),
    }
}
