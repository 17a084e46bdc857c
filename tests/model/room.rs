//! Room for a flow where there is none: which flow gives way, and the shortages that are reported.

use super::flows::{Flow, Flows, ticks};
use super::model::Model;
use equipoise::engine::{Count, Ended, Event, PressureRow, Reason, Short};
use equipoise::flow::Class;
use equipoise::time::{Duration, Instant};

/// A flow that is over has this long for what is still under way.
pub const GRACE: Duration = Duration::from_secs(2);
/// Established connections and conversations of datagrams give way after being idle for this long, the latter as long as
/// they have no more than half of the table.
const IDLE: Duration = Duration::from_secs(300);
const IDLE_DATAGRAMS: Duration = Duration::from_secs(120);
/// Brief flows with packets, and conversations beyond half of the table, give way after being idle for this long: to any
/// flow, and to one whose handshake is complete.
const IDLE_TO_ANY: Duration = Duration::from_secs(10);
const IDLE_TO_PROVEN: Duration = Duration::from_secs(1);
/// So many of them per second.
const SETTLED_RATE: u32 = 1000;
/// So many flows of a queue are looked at.
const LOOKED_AT: usize = 16;
/// A shortage is over after this long.
const QUIET: Duration = Duration::from_secs(60);

/// The flow that gives way, if any, and those that go to the end of their queue, in order.
#[derive(Debug, Default)]
pub struct Room {
    victim: Option<usize>,
    passed_over: Vec<usize>,
}

/// A time in which flows gave way or were refused.
#[derive(Debug, Clone)]
pub struct Shortage {
    began: Instant,
    last: Instant,
    gave_way: Vec<Count<Class>>,
    refused: u64,
}

/// Returns a count of zero for every class.
pub fn no_flows() -> Vec<Count<Class>> {
    Class::ALL.iter().map(|kind| Count { kind: *kind, count: 0 }).collect()
}

impl Flows {
    /// Returns the flows of a class, those that entered it first in front.
    fn in_order(&self, class: Class) -> Vec<usize> {
        let mut places: Vec<usize> = (0..self.all.len()).filter(|place| self.all[*place].class() == class).collect();
        places.sort_by_key(|place| self.all[*place].queued);
        places
    }

    pub fn idle(&self, now: Instant, flow: &Flow) -> u64 {
        self.tick(now) - self.tick(flow.touched)
    }

    /// Returns the flow that has been idle longest; the first of several.
    fn idlest(&self, now: Instant, places: impl Iterator<Item = usize>) -> Option<usize> {
        places.min_by_key(|place| std::cmp::Reverse(self.idle(now, &self.all[*place])))
    }

    /// Chooses among those that can wait no longer, then the brief ones, then the idle ones, then those just over.
    fn room(&self, now: Instant, half_open: bool, is_proven: bool, may_be_settled: bool) -> Room {
        if half_open {
            return Room { victim: self.in_order(Class::HalfOpen).first().copied(), passed_over: Vec::new() };
        }
        let over = self.in_order(Class::Over).first().copied();
        if let Some(over) = over.filter(|over| self.idle(now, &self.all[*over]) >= ticks(GRACE)) {
            return Room { victim: Some(over), passed_over: Vec::new() };
        }
        let mut brief = self.in_order(Class::Brief);
        brief.truncate(LOOKED_AT);
        if let Some(fresh) = brief.iter().position(|place| !self.all[*place].refreshed) {
            return Room { victim: Some(brief[fresh]), passed_over: brief[..fresh].to_vec() };
        }
        let short = if is_proven { IDLE_TO_PROVEN } else { IDLE_TO_ANY };
        let idlest_for = |places: &[usize], span: Duration| {
            let is_exchange =
                |flow: &Flow| flow.class() == Class::Brief && flow.packets[0] <= 1 && flow.packets[1] <= 4;
            let may_go = |place: &usize| {
                let flow = &self.all[*place];
                self.idle(now, flow) >= ticks(span) || is_exchange(flow)
            };
            self.idlest(now, places.iter().copied().filter(may_go))
        };
        let mut victim = idlest_for(&brief, short);
        let mut looked_at = brief;
        if victim.is_none() {
            let mut conversing = self.in_order(Class::Conversing);
            let are_many = conversing.len() > self.most / 2;
            conversing.truncate(LOOKED_AT);
            victim = idlest_for(&conversing, if are_many { short } else { IDLE_DATAGRAMS });
            looked_at.extend(conversing);
        }
        if victim.is_none() && may_be_settled {
            let mut settled = self.in_order(Class::Settled);
            settled.truncate(LOOKED_AT);
            victim = idlest_for(&settled, IDLE);
            looked_at.extend(settled);
        }
        looked_at.retain(|place| Some(*place) != victim);
        Room { victim: victim.or(over), passed_over: looked_at }
    }
}

impl Model {
    /// Makes room for a flow in the table or the store of half-open flows, if it is full.
    pub fn make_room(&mut self, now: Instant, half_open: bool, is_proven: bool) -> Result<(), Reason> {
        let most = if half_open { self.flows.most_half_open } else { self.flows.most };
        if self.flows.count(half_open) < most {
            return Ok(());
        }
        let may_be_settled = self.settled.clone().take(now, SETTLED_RATE, 0);
        let room = self.flows.room(now, half_open, is_proven, may_be_settled);
        for place in &room.passed_over {
            self.flows.queue(*place);
        }
        let class = room.victim.map(|place| self.flows.all[place].class());
        let short = if half_open { Short::HalfOpen } else { Short::Table };
        self.note_shortage(now, short, class, most);
        self.note_choice(now, &room);
        match room.victim {
            None => Err(Reason::TableFull),
            Some(victim) => {
                self.forget(now, victim, Ended::Evicted);
                Ok(())
            }
        }
    }

    fn note_choice(&mut self, now: Instant, room: &Room) {
        let Some(flow) = room.victim.map(|place| &self.flows.all[place]) else {
            return self.seen("no flow may give way");
        };
        let (class, idle) = (flow.class(), self.flows.idle(now, flow));
        let what = match class {
            Class::Over if idle < ticks(GRACE) => "over gives way within its grace".into(),
            Class::Brief if flow.refreshed => "the idlest of refreshed ones gives way".into(),
            Class::Conversing if idle < ticks(IDLE_TO_ANY) => "conversation gives way to a handshake".into(),
            Class::Conversing if idle < ticks(IDLE_DATAGRAMS) => "conversation gives way after seconds".into(),
            Class::Conversing => format!("conversation gives way: {}", flow.protocol.name()),
            Class::Settled => "settled gives way".into(),
            _ => format!("{} gives way", class.name()),
        };
        let state = format!("{} evicted", flow.state.name());
        self.seen(&what);
        self.seen(&state);
        if !room.passed_over.is_empty() {
            self.seen(&format!("passed over for one that is {}", class.name()));
        }
    }

    /// Records that a flow gave way for want of something, or was refused.
    pub fn note_shortage(&mut self, now: Instant, short: Short, class: Option<Class>, most: usize) {
        if self.shortages[short as usize].is_none() {
            self.seen(&format!("{} full", short.name()));
            self.events.push(Event::Full { what: short, max: most as u32 });
        }
        let new = Shortage { began: now, last: now, gave_way: no_flows(), refused: 0 };
        let shortage = self.shortages[short as usize].get_or_insert(new);
        shortage.last = now;
        match class {
            None => shortage.refused += 1,
            Some(class) => {
                for counts in [&mut shortage.gave_way, &mut self.counters.gave_way] {
                    counts.iter_mut().filter(|count| count.kind == class).for_each(|count| count.count += 1);
                }
            }
        }
        if class == Some(Class::Settled) {
            self.settled.take(now, SETTLED_RATE, 0);
        }
    }

    /// Reports the shortages that are over.
    pub fn relieve(&mut self, now: Instant) {
        for short in Short::ALL {
            let shortage = &mut self.shortages[short as usize];
            let Some(Shortage { began, last, gave_way, refused }) = shortage.take_if(|it| it.last + QUIET <= now)
            else {
                continue;
            };
            let for_ms = last.since(began).as_millis() as u64;
            self.seen(&format!("{} relieved", short.name()));
            self.events.push(Event::Relieved { what: short, for_ms, gave_way, refused });
        }
    }

    /// Returns the rows of the shortages that are not over.
    pub fn pressure_rows(&self, now: Instant) -> Vec<PressureRow> {
        let row = |short: Short| {
            let Shortage { began, gave_way, refused, .. } = self.shortages[short as usize].clone()?;
            Some(PressureRow { of: short, for_ms: now.since(began).as_millis() as u64, gave_way, refused })
        };
        Short::ALL.into_iter().filter_map(row).collect()
    }

    /// Returns when the next shortage is over if nothing gives way any more.
    pub fn next_relief(&self) -> Option<Instant> {
        self.shortages.iter().flatten().map(|shortage| shortage.last + QUIET).min()
    }
}
