//! The recorded world: capture -> engine -> capture and report.
//!
//! It takes its time from the capture and must not know a clock; only `files` opens files.

mod files;
mod report;

pub use files::{Args, ReplayError, run};
pub use report::Format;

use crate::capture::{CaptureError, Frame, Reader, Writer, describe};
use crate::config::Settings;
use crate::engine::{Engine, Event, Verdict};
use crate::flow::TableTooBig;
use crate::ids::FlowId;
use crate::packet::{Meta, checksum};
use crate::time::Instant;
use report::{Fate, Report};
use std::collections::BTreeMap;
use std::io::{self, Write};

/// Bytes of the largest packet of the engine's own.
const MOST: usize = 65_535;

/// What a replay came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Summary {
    /// Frames of the capture.
    pub frames: u64,
    /// Frames whose IP packet the engine was given.
    pub packets: u64,
    /// Frames without a whole IP packet.
    pub skipped: u64,
    /// Packets that came with only a partial checksum, as captures of a sending host show them.
    pub partial_checksums: u64,
    /// Frames whose time lay before the frame before them; they count as of the same time.
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
    /// Service and server of each flow that lives.
    names: BTreeMap<FlowId, (String, String)>,
    buffer: Vec<u8>,
}

impl<'o> Replay<'o> {
    fn new(
        settings: &Settings,
        report: Report<'o>,
        capture: Option<Writer<Box<dyn Write + 'o>>>,
    ) -> Result<Self, TableTooBig> {
        let mut engine = Engine::try_new(settings)?;
        engine.tell_flows(true);
        Ok(Replay {
            engine,
            report,
            capture,
            summary: Summary::default(),
            now: None,
            names: BTreeMap::new(),
            buffer: vec![0; MOST],
        })
    }

    /// Replays what the reader still has.
    fn all(&mut self, reader: &mut Reader<'_>) -> Result<(), Stop> {
        while let Some(frame) = reader.next_frame().map_err(Stop::Capture)? {
            self.frame(frame)?;
        }
        Ok(())
    }

    fn frame(&mut self, mut frame: Frame) -> Result<(), Stop> {
        let told = Instant::from_nanos(frame.at);
        let now = self.now.map_or(told, |now| now.max(told));
        self.summary.frames += 1;
        self.summary.back_in_time += u64::from(now > told);
        if self.now.is_none() {
            self.report.starts(now);
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
                    Ok(_) if whole => "no packet behind the link header".into(),
                    Ok(_) => format!("only {} of {} bytes were captured", frame.data.len(), frame.original_len),
                };
                return Ok(self.report.skipped(now, frame.number, &why)?);
            }
        };
        self.packet(now, &mut frame, offset)
    }

    fn packet(&mut self, now: Instant, frame: &mut Frame, offset: usize) -> Result<(), Stop> {
        self.summary.packets += 1;
        let (header, packet) = frame.data.split_at_mut(offset);
        let came = describe(packet);
        let partial_checksum = checksum::is_partial(packet);
        self.summary.partial_checksums += u64::from(partial_checksum);
        let verdict = self.engine.handle_packet(now, packet, Meta { partial_checksum, gso_size: 0 });
        let events = self.take_events();
        let fate = match verdict {
            Verdict::Forward { len, why } => {
                if let Some(capture) = &mut self.capture {
                    capture.frame(now.as_nanos(), frame.link, header, &packet[..len])?;
                    self.summary.written += 1;
                }
                Fate::Forward { why, went: describe(&packet[..len]), names: &self.names }
            }
            Verdict::Consume(kind) => Fate::Consume(kind),
            Verdict::Drop(reason) => Fate::Drop(reason),
        };
        self.report.packet(now, frame.number, &came, &fate)?;
        self.events(now, events)?;
        while let Some((len, _)) = self.engine.poll_transmit(now, &mut self.buffer) {
            let packet = &self.buffer[..len];
            self.report.own(now, &describe(packet))?;
            if let Some(capture) = &mut self.capture {
                let header = frame.link.answer_header(&frame.data, offset);
                capture.frame(now.as_nanos(), frame.link, &header, packet)?;
                self.summary.written += 1;
            }
        }
        Ok(())
    }

    /// Runs every timer that is due until `to`, each at its time.
    fn advance(&mut self, to: Instant) -> Result<(), Stop> {
        while let Some(due) = self.engine.poll_timeout().filter(|due| *due <= to) {
            self.engine.handle_timeout(due);
            let events = self.take_events();
            self.events(due, events)?;
        }
        Ok(())
    }

    /// Takes what the engine has to tell, and notes the names of flows that were made.
    fn take_events(&mut self) -> Vec<Event> {
        let events: Vec<_> = std::iter::from_fn(|| self.engine.poll_event()).collect();
        for event in &events {
            if let Event::FlowOpened(flow) = event {
                self.names.insert(flow.id, (flow.service.clone(), flow.server.clone()));
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

    /// Writes the end of the report: flows, servers, counters.
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
