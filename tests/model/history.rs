//! One history: applies the same steps to the engine and the model and compares everything.

use super::craft;
use super::engine::{Answer, Fate, Order, Real};
use super::errors;
use super::model::Model;
use super::random::Random;
use super::servers::Server;
use super::setup;
use super::traffic;
use super::wire::{self, Body, Read};
use equipoise::balance::{Admin, ServiceSettings};
use equipoise::config::Settings;
use equipoise::engine::{Event, NatRow, Successor};
use equipoise::packet::Meta;
use equipoise::time::{Duration, Instant};
use std::collections::{BTreeSet, VecDeque};
use std::fmt::Debug;
use std::net::SocketAddr;
use std::slice;

/// Number of log entries shown when the engine and the model disagree.
const LAST: usize = 30;

/// The engine and the model at one point in time.
pub struct History {
    seed: u64,
    step: u64,
    random: Random,
    real: Real,
    model: Model,
    now: Instant,
    /// Descriptions of the last inputs and outcomes, with the bytes of packets.
    last: VecDeque<(String, Vec<u8>)>,
    seen: BTreeSet<String>,
    /// Settings to be put in force, and what the engine has prepared for them.
    next: Option<(Settings, Successor)>,
}

impl History {
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let settings = setup::settings(&mut random);
        let (real, model) = (Real::new(&settings), Model::new(&settings));
        History {
            seed,
            step: 0,
            random,
            real,
            model,
            now: Instant::ZERO,
            last: VecDeque::new(),
            seen: BTreeSet::new(),
            next: None,
        }
    }

    /// Returns the number of packets whose verdict was foreseen correctly.
    pub fn foreseen(&self) -> u64 {
        self.real.foreseen()
    }

    /// Returns the events that occurred, by name.
    pub fn seen(self) -> BTreeSet<String> {
        let mut seen = self.seen;
        seen.extend(self.model.seen);
        seen
    }

    fn note(&mut self, input: String) {
        self.note_with(input, &[]);
    }

    fn note_with(&mut self, input: String, bytes: &[u8]) {
        self.last.push_back((format!("{} step {}: {input}", self.now, self.step), bytes.to_vec()));
        if self.last.len() > LAST {
            self.last.pop_front();
        }
    }

    pub fn step(&mut self, step: u64) {
        self.step = step;
        // Some histories have hardly any operator commands.
        let calm = self.seed.is_multiple_of(4);
        match self.random.below(100) {
            _ if self.random.per_mille(10) => self.flood(),
            _ if self.seed % 3 == 1 && self.random.per_mille(25) => self.reload(),
            90.. if !calm || self.random.per_mille(50) => self.order(),
            68..90 => self.pass(),
            _ => self.packet(),
        }
        if !self.model.objections.is_empty() {
            let objections = std::mem::take(&mut self.model.objections);
            self.disagree("the engine's choice", &objections, &Vec::<String>::new());
        }
        self.compare();
    }

    fn packet(&mut self) {
        let (bytes, meta) = traffic::packet(&mut self.random, &self.model);
        self.pass_in(bytes, meta);
    }

    /// Many clients begin at the same time.
    fn flood(&mut self) {
        for bytes in traffic::flood(&mut self.random) {
            self.pass_in(bytes, Meta::default());
        }
    }

    fn pass_in(&mut self, bytes: Vec<u8>, meta: Meta) {
        let Some(shown) = self.within_the_model(&bytes) else { return };
        self.note_with(format!("{shown} {meta:?}"), &bytes);
        let real = self.real.packet(self.now, &bytes, meta);
        let Some(model) = self.model.packet(self.now, &bytes, meta, &real) else { return };
        self.note(format!("    -> {:?}", real.fate));
        for event in &real.events {
            self.note(format!("    {event}; {event:?}"));
        }
        for event in model.events.iter().filter(|event| !real.events.contains(event)) {
            self.note(format!("    the model: {event:?}"));
        }
        self.model.counters.transmitted += real.sent.len() as u64;
        self.compare_answers(&bytes, &real, &model);
        self.seen.insert(match &real.fate {
            Fate::Translated { cut: true, .. } => "cut".into(),
            Fate::Translated { from, .. } => format!("from {from:?}"),
            Fate::Error { .. } => "an error".into(),
            Fate::Foreign => "foreign".into(),
            Fate::Consumed(kind) => kind.name().into(),
            Fate::Dropped(reason) => reason.name().into(),
        });
    }

    fn compare_answers(&self, bytes: &[u8], real: &Answer, model: &Answer) {
        self.agree("the verdict", &real.fate, &model.fate);
        let wrong = match wire::read(bytes) {
            Read::Packet(packet) if !packet.sum_is_right(bytes) => Some(packet),
            _ => None,
        };
        // An incorrect checksum may be written as 0x0000 or 0xffff with the same error.
        let same = |real: &[u8], model: &[u8]| match &wrong {
            Some(packet) => craft::same(real, model, packet),
            None => real == model,
        };
        if !same(&real.bytes, &model.bytes) {
            self.disagree("the bytes", &hex(slice::from_ref(&real.bytes)), &hex(slice::from_ref(&model.bytes)));
        }
        // If the packet is cut, its first fragment has its checksum.
        let cut = matches!(real.fate, Fate::Translated { cut: true, .. });
        let pairs = || real.sent.iter().zip(&model.sent);
        let agree = real.sent.len() == model.sent.len() && pairs().all(|(a, b)| a == b || cut && same(a, b));
        if !agree {
            self.disagree("the packets that the engine originates", &hex(&real.sent), &hex(&model.sent));
        }
        self.agree_on_events(&real.events, &model.events);
    }

    /// Advances the time; in some cases wakes the engine exactly when its timeouts are due.
    fn pass(&mut self) {
        let spans = [0, 1, 49, 50, 51, 99, 100, 101, 500, 501, 999, 1000, 1001, 2000, 3000, 5000];
        let mut millis = *self.random.pick(&spans).expect("a span");
        let patient = setup::is_patient(&self.model.settings);
        if self.random.per_mille(if patient { 120 } else { 25 }) {
            millis = *self.random.pick(&[59_999, 61_000, 61_000, 121_000, 301_000]).expect("a span");
        }
        let end = self.now + Duration::from_millis(millis);
        let in_time = self.random.per_mille(500);
        self.note(format!("{millis} ms pass{}", if in_time { ", woken in time" } else { "" }));
        while let Some(due) = self.real.due().filter(|due| in_time && *due < end) {
            self.now = self.now.max(due);
            self.wake();
        }
        self.now = end;
        self.wake();
    }

    fn wake(&mut self) {
        let (real, events) = self.real.timeout(self.now);
        self.model.counters.transmitted += real.len() as u64;
        let (mut model, expected) = self.model.timeout(self.now, &events);
        let mut real = self.model.asks(self.now, real);
        // The order in which flows end is unspecified.
        real.sort();
        model.sort();
        self.agree("the packets that the engine originates", &hex(&real), &hex(&model));
        self.agree_on_events(&events, &expected);
    }

    fn order(&mut self) {
        if self.random.per_mille(60) {
            // All servers report similar loads at the same time.
            for server in 0..self.model.servers.len() {
                let load = 10 + self.random.below(12) as u8;
                self.carry_out(Order::Load { server, load, maintenance: false });
            }
        }
        let order = self.draw_order();
        self.carry_out(order);
    }

    fn carry_out(&mut self, order: Order) {
        self.note(format!("{order:?}"));
        let real = self.real.change(self.now, &order);
        let model = self.model.change(self.now, &order);
        self.agree("whether the command is accepted", &real.is_ok(), &model);
        let events = self.real.events();
        let expected = std::mem::take(&mut self.model.events);
        self.agree_on_events(&events, &expected);
        let sent = self.real.sent(self.now);
        self.model.counters.transmitted += sent.len() as u64;
        let real_sent = self.model.asks(self.now, sent);
        let model_sent = std::mem::take(&mut self.model.sent);
        self.agree("the packets that the engine originates", &hex(&real_sent), &hex(&model_sent));
        if real.is_ok() && self.random.per_mille(500) {
            self.wake();
        }
    }

    /// Prepares other settings, or puts those in force that are prepared.
    fn reload(&mut self) {
        let Some((settings, mut successor)) = self.next.take() else {
            let settings = setup::edited(&mut self.random, &self.model.settings);
            let mut successor = self.real.prepare(self.now, &settings);
            if self.random.per_mille(500) {
                while self.random.per_mille(700) && self.real.get_ready(self.now, &mut successor) {}
            }
            self.note("a reload is prepared".into());
            self.next = Some((settings, successor));
            return;
        };
        self.note("and is put in force".into());
        if self.random.per_mille(500) {
            while self.real.get_ready(self.now, &mut successor) {}
        }
        self.real.follow(self.now, successor);
        self.model.reload(self.now, &settings);
        let (events, expected) = (self.real.events(), std::mem::take(&mut self.model.events));
        self.agree_on_events(&events, &expected);
        if self.random.per_mille(500) {
            self.wake();
        }
    }

    fn draw_order(&mut self) -> Order {
        let random = &mut self.random;
        // Sometimes choose a server that does not exist.
        let server = random.below(self.model.servers.len() as u64 + 1) as usize;
        let server = if random.per_mille(900) { server.min(self.model.servers.len() - 1) } else { server };
        let busy = random.pick(&self.model.flows.all).map(|flow| flow.server);
        let server = busy.filter(|_| random.per_mille(400)).unwrap_or(server);
        match random.below(100) {
            0..20 => Order::Weight { server, weight: random.below(6) as u16 },
            20..50 => {
                let all = [Admin::Enabled, Admin::Enabled, Admin::Enabled, Admin::Draining, Admin::Disabled];
                let deadline = random.per_mille(600).then(|| Duration::from_millis(random.below(4000)));
                Order::Admin { server, admin: *random.pick(&all).expect("one of five"), deadline }
            }
            50..65 => {
                let load = random.below(103) as u8;
                Order::Load { server, load, maintenance: random.per_mille(150) }
            }
            65..80 => {
                let up = *random.pick(&[None, Some(true), Some(true), Some(false)]).expect("one of four");
                Order::Health { server, up }
            }
            80..85 => {
                let rule = random.below(self.model.policy.rules.len() as u64 + 1) as usize;
                Order::Rule { rule, on: random.per_mille(600) }
            }
            85..90 => {
                let mtu = *random.pick(&[0, 68, 1000, 1280, 1400, 1500]).expect("one of six");
                Order::Mtu { server, v6: random.per_mille(500), mtu }
            }
            _ => match random.pick(&self.model.flows.all) {
                Some(flow) => Order::Kill { flow: flow.name() },
                None => {
                    let nobody = SocketAddr::from(([192, 0, 2, 1], 1));
                    Order::Kill { flow: (nobody, nobody, equipoise::packet::Protocol::Tcp) }
                }
            },
        }
    }

    fn compare(&self) {
        let real = self.real.rows(self.now);
        let model = self.model.rows(self.now);
        self.agree("the counters", &real.counters, &model.counters);
        self.agree_on_rows("servers", &real.servers, &model.servers);
        self.agree_on_rows("services", &real.services, &model.services);
        self.agree_on_rows("rules", &real.rules, &model.rules);
        self.agree_on_rows("flows", &real.flows, &model.flows);
        self.agree_on_rows("shortages", &real.pressures, &model.pressures);
        for pool in &self.model.pools {
            let rows: Vec<&NatRow> = real.nat.iter().filter(|row| row.pool == pool.settings.name).collect();
            if !pool.agrees(&rows) {
                self.disagree("the NAT pool", &rows, pool);
            }
        }
        let (real, model) = (self.real.due(), self.model.next(self.now));
        let sleeps_too_long = match (real, model) {
            (Some(real), Some(model)) => real > model.max(self.now),
            (None, Some(_)) => true,
            _ => false,
        };
        if sleeps_too_long {
            self.disagree("the time of the next timeout", &real, &model);
        }
    }

    /// Returns a description of a packet, or `None` if the model does not cover it.
    fn within_the_model(&self, bytes: &[u8]) -> Option<String> {
        match wire::read(bytes) {
            Read::Beyond => None,
            Read::Malformed(reason) => Some(reason.name().into()),
            Read::Packet(packet) => {
                // The model supports only echo probes.
                let known = !self.model.is_probe_address(packet.dst) || matches!(packet.body, Body::Echo { .. });
                (known && errors::is_within(bytes, &packet)).then(|| match packet.ends() {
                    Some((protocol, src, dst)) => format!("{} {src} > {dst} {:?}", protocol.name(), packet.body),
                    None => format!("{} > {} {:?}", packet.src, packet.dst, packet.body),
                })
            }
        }
    }

    fn agree_on_rows<T: Debug + PartialEq>(&self, what: &str, real: &[T], model: &[T]) {
        if real != model {
            let unlike = |a: &[T], b: &[T]| a.iter().filter(|row| !b.contains(row)).map(|r| format!("{r:?}")).collect();
            let (real, model): (Vec<String>, Vec<String>) = (unlike(real, model), unlike(model, real));
            self.disagree(&format!("rows of {what}"), &real, &model);
        }
    }

    /// Compares events regardless of order, since flows that end at the same time may end in any order.
    fn agree_on_events(&self, real: &[Event], model: &[Event]) {
        let words = |events: &[Event]| {
            let mut words: Vec<String> = events.iter().map(|event| format!("{event:?}")).collect();
            words.sort();
            words
        };
        let (real, model) = (words(real), words(model));
        self.agree_on_rows("events", &real, &model);
        self.agree("the number of events", &real.len(), &model.len());
    }

    fn agree<T: Debug + PartialEq>(&self, what: &str, real: &T, model: &T) {
        if real != model {
            self.disagree(what, real, model);
        }
    }

    fn disagree(&self, what: &str, real: &dyn Debug, model: &dyn Debug) {
        let input = |(input, bytes): &(String, Vec<u8>)| format!("{input} {}", hex(slice::from_ref(bytes)).concat());
        let last: Vec<String> = self.last.iter().map(input).collect();
        let service = |s: &ServiceSettings| format!("{} ({}, pool {})", s.name, s.algorithm.name(), s.pool.0);
        let services: Vec<String> = self.model.settings.services.iter().map(service).collect();
        let server = |s: &Server| {
            let (weight, step) = (s.settings.weight, s.step(self.now));
            format!("{} (weight {weight} x {step}/16, {:?}, {} flows)", s.settings.name, s.admin, s.flows)
        };
        let servers: Vec<String> = self.model.servers.iter().map(server).collect();
        panic!(
            "disagreement on {what}: MODEL_SEED={} step {}\n{}\n{services:?}\n{servers:?}\nengine: {real:?}\nmodel:  {model:?}",
            self.seed,
            self.step,
            last.join("\n")
        );
    }
}

fn hex(packets: &[Vec<u8>]) -> Vec<String> {
    packets.iter().map(|packet| packet.iter().map(|byte| format!("{byte:02x}")).collect()).collect()
}
