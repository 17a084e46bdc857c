//! Replay: capture -> engine -> capture and report.
//!
//! Time comes from the capture: it must not know a clock. Only `files` opens files.

mod explain;
mod files;
mod report;
mod script;

pub use files::{Args, Progress, ReplayError, explain, run, run_telling};
pub use report::Format;
pub use script::{ScriptError, event};

use crate::capture::{CaptureError, Frame, Link, Reader, Writer, describe};
use crate::config::Settings;
use crate::engine::{Engine, Event, Verdict};
use crate::flow::TableTooBig;
use crate::ids::FlowId;
use crate::packet::{Meta, checksum};
use crate::time::Instant;
use explain::Asked;
use report::{Fate, Opened, Report};
use script::Script;
use std::collections::BTreeMap;
use std::io::{self, Write};

/// The link type of an IP packet without a link header (LINKTYPE_RAW).
const RAW: i32 = 101;
/// Size in bytes of the largest packet that the engine sends by itself.
const MOST: usize = 65_535;

/// The figures of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Summary {
    /// Frames in the capture.
    pub frames: u64,
    /// Frames whose IP packet was passed to the engine.
    pub packets: u64,
    /// Frames without a complete IP packet.
    pub skipped: u64,
    /// Packets with only a partial checksum, as in captures taken on the sending host.
    pub partial_checksums: u64,
    /// Frames with an earlier timestamp than the previous frame; they are replayed at the time of that frame.
    pub back_in_time: u64,
    /// Packets written to the translated capture.
    pub written: u64,
}

/// Why a replay stopped.
enum Stop {
    Capture(CaptureError),
    Output(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Stop::Output(error)
    }
}

/// One run of the engine over a capture.
struct Replay<'o> {
    engine: Engine,
    report: Report<'o>,
    capture: Option<Writer<Box<dyn Write + 'o>>>,
    summary: Summary,
    now: Option<Instant>,
    /// Names of the interfaces that rules refer to.
    interfaces: Vec<String>,
    /// The remaining events, the last one first; times are relative to the first frame.
    script: Script,
    /// Service, server and the reason for the choice, for each current flow.
    names: BTreeMap<FlowId, Opened>,
    /// The frame to explain, and what was found out about it.
    asked: Asked,
    buffer: Vec<u8>,
}

impl<'o> Replay<'o> {
    fn new(
        settings: &Settings,
        report: Report<'o>,
        capture: Option<Writer<Box<dyn Write + 'o>>>,
    ) -> Result<Self, TableTooBig> {
        let mut engine = Engine::try_new(settings)?;
        engine.report_flows(true);
        engine.observe_probes();
        Ok(Replay {
            engine,
            report,
            capture,
            summary: Summary::default(),
            now: None,
            script: Vec::new(),
            interfaces: settings.policy.interfaces.clone(),
            names: BTreeMap::new(),
            asked: Asked::default(),
            buffer: vec![0; MOST],
        })
    }

    /// Reads the events to apply besides the packets.
    fn follow(&mut self, text: &str) -> Result<(), ScriptError> {
        self.script = script::parse(text, &self.engine)?;
        self.script.reverse();
        Ok(())
    }

    /// Replays the remaining frames of the reader, or those up to the one to explain; tells after each how many it were.
    fn all(&mut self, reader: &mut Reader<'_>, tell: &mut dyn FnMut(u64)) -> Result<(), Stop> {
        while !self.asked.is_answered()
            && let Some(frame) = reader.next_frame().map_err(Stop::Capture)?
        {
            self.frame(frame)?;
            tell(self.summary.frames);
        }
        Ok(())
    }

    fn frame(&mut self, mut frame: Frame) -> Result<(), Stop> {
        let stamp = Instant::from_nanos(frame.at);
        let now = self.now.map_or(stamp, |now| now.max(stamp));
        self.summary.frames += 1;
        self.summary.back_in_time += u64::from(now > stamp);
        if self.now.is_none() {
            self.report.starts(now);
            for (at, ..) in &mut self.script {
                *at += now.since(Instant::ZERO);
            }
        }
        self.advance(now)?;
        self.now = Some(now);
        let whole = frame.data.len() == frame.original_len;
        let offset = match frame.link.ip_offset(&frame.data) {
            Ok(offset) if whole && offset < frame.data.len() => offset,
            other => {
                self.summary.skipped += 1;
                let why = match other {
                    Err(why) => why.0,
                    Ok(_) if whole => "no packet after the link header".into(),
                    Ok(_) => format!("only {} of {} bytes were captured", frame.data.len(), frame.original_len),
                };
                self.asked.skipped(frame.number, &why);
                return Ok(self.report.skipped(now, frame.number, &why)?);
            }
        };
        self.packet(now, &mut frame, offset)
    }

    fn packet(&mut self, now: Instant, frame: &mut Frame, offset: usize) -> Result<(), Stop> {
        self.summary.packets += 1;
        let ingress = self.ingress(frame);
        frame.link.ends_with_packet(&mut frame.data);
        let (header, packet) = frame.data.split_at_mut(offset);
        let input = describe(packet);
        let partial_checksum = checksum::is_partial(packet);
        self.summary.partial_checksums += u64::from(partial_checksum);
        let meta = Meta { partial_checksum, ingress, ..Meta::default() };
        let explanation = self.asked.wants(frame.number).then(|| self.engine.explain(now, packet, meta));
        let verdict = self.engine.handle_packet(now, packet, meta);
        if let Some(explanation) = explanation {
            let time = self.report.time(now);
            self.asked = Asked::explained(explanation, time, &self.engine, now, (&verdict, packet));
        }
        let events = self.take_events();
        let fate = match verdict {
            Verdict::Forward { len, why } => {
                if let Some(capture) = &mut self.capture {
                    capture.frame(now.as_nanos(), frame.link, header, &packet[..len])?;
                    self.summary.written += 1;
                }
                Fate::Forward { why, went: describe(&packet[..len]), names: &self.names }
            }
            Verdict::Emit { why } => Fate::Emit { why, names: &self.names },
            Verdict::Consume(kind) => Fate::Consume(kind),
            Verdict::Drop(reason) => Fate::Drop(reason),
        };
        self.report.packet(now, frame.number, &input, &fate)?;
        self.events(now, events)?;
        let answer = matches!(verdict, Verdict::Consume(_) | Verdict::Drop(_));
        self.own_packets(now, Some((frame, offset, answer)))
    }

    /// The number that rules use for the ingress interface of a frame; 0 if no rule refers to it.
    fn ingress(&self, frame: &Frame) -> u16 {
        let number = |name: &str| self.interfaces.iter().position(|known| known == name);
        frame.interface.as_deref().and_then(number).map_or(0, |place| place as u16 + 1)
    }

    /// Writes the packets that the engine sends by itself; in the capture with the link header of the frame that caused
    /// them, or as raw IP.
    fn own_packets(&mut self, now: Instant, answered: Option<(&Frame, usize, bool)>) -> Result<(), Stop> {
        while let Some((len, _)) = self.engine.poll_transmit(now, &mut self.buffer) {
            let packet = &self.buffer[..len];
            self.report.own(now, &describe(packet))?;
            if let Some(capture) = &mut self.capture {
                let (link, header) = match answered {
                    Some((frame, offset, answer)) => {
                        (frame.link.carrying(packet), frame.link.header_of(&frame.data, offset, packet, answer))
                    }
                    None => (Link::Raw(RAW), Vec::new()),
                };
                capture.frame(now.as_nanos(), link, &header, packet)?;
                self.summary.written += 1;
            }
        }
        Ok(())
    }

    /// Runs all timers and scripted events up to `to`, each at its time.
    fn advance(&mut self, to: Instant) -> Result<(), Stop> {
        loop {
            // A timer due before the capture begins is due when it begins.
            let timer = self.engine.poll_timeout().map(|due| due.max(self.now.unwrap_or(to))).filter(|due| *due <= to);
            let next = self.script.last().map(|(at, ..)| Instant::ZERO + *at).filter(|at| *at <= to);
            let now = match (timer, next) {
                (None, None) => return Ok(()),
                (Some(due), next) if next.is_none_or(|at| due <= at) => {
                    self.engine.handle_timeout(due);
                    due
                }
                (_, next) => {
                    let now = next.unwrap_or(to);
                    self.apply_next(now)?;
                    now
                }
            };
            let events = self.take_events();
            self.events(now, events)?;
            self.own_packets(now, None)?;
        }
    }

    /// Applies the next scripted event.
    fn apply_next(&mut self, now: Instant) -> Result<(), Stop> {
        let Some((_, change, words)) = self.script.pop() else { return Ok(()) };
        let refused = self.engine.apply(now, change).err();
        Ok(self.report.script(now, &words, refused.as_ref())?)
    }

    /// Takes the events of the engine and remembers the names of created flows.
    fn take_events(&mut self) -> Vec<Event> {
        let events: Vec<_> = std::iter::from_fn(|| self.engine.poll_event()).collect();
        for event in &events {
            match event {
                Event::FlowOpened(flow) => {
                    self.names.insert(flow.id, Opened::new(flow, &self.engine));
                }
                Event::FlowEstablished { was, id } => {
                    if let Some(opened) = self.names.remove(was) {
                        self.names.insert(*id, opened);
                    }
                }
                _ => {}
            }
        }
        events
    }

    fn events(&mut self, at: Instant, events: Vec<Event>) -> Result<(), Stop> {
        for event in events {
            self.report.event(at, &event)?;
            if let Event::FlowEnded { flow, .. } = &event {
                self.names.remove(&flow.id);
            }
        }
        Ok(())
    }

    /// Writes the end of the report: flows, servers and counters.
    fn finish(mut self, drain: bool, missing: Option<&CaptureError>) -> Result<Summary, Stop> {
        if drain {
            self.advance(Instant::FAR)?;
        }
        let now = self.now.unwrap_or_default();
        self.report.end(&self.engine, now, &self.summary, missing)?;
        if let Some(capture) = self.capture {
            capture.finish()?;
        }
        Ok(self.summary)
    }
}
