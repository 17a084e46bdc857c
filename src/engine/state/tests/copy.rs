//! A copy that is written while packets go on is, in the end, the engine that it is of.

use super::talks::{packet, pass};
use super::*;
use crate::packet::Protocol;

/// A copy under way: the engine that it is of, its talks, and the engine that it becomes.
struct Way {
    rng: Rng,
    old: Engine,
    talks: Vec<Talk>,
    now: Instant,
    new: Engine,
    load: StateLoad,
    copy: StateCopy,
    held: Vec<u8>,
}

impl Way {
    fn new(seed: u64) -> Way {
        let mut rng = Rng::new(seed);
        let (mut old, talks, now) = busy(seed, &mut rng);
        let copy = old.begin_copy(now).unwrap();
        Way { rng, old, talks, now, new: Engine::new(&after()), load: StateLoad::new(now), copy, held: Vec::new() }
    }

    /// Lets packets pass, flows end and time go on in the old engine.
    fn pass(&mut self, packets: u64) {
        self.now =
            self.now + Duration::from_millis(self.rng.below(if packets.is_multiple_of(7) { 20_000 } else { 500 }));
        tick(&mut self.old, self.now);
        for _ in 0..packets {
            if self.talks.is_empty() || self.rng.below(4) == 0 {
                self.talks.push(Talk::new(&mut self.rng));
            }
            let place = self.rng.below(self.talks.len() as u64) as usize;
            self.talks[place].go_on(&mut self.rng, self.now, &mut [&mut self.old]);
        }
        if self.rng.below(3) == 0 {
            let mut rows = Vec::new();
            self.old.flows(self.now, &FlowQuery::default(), Cursor::default(), 1 << 16, &mut rows);
            if let Some(row) = rows.get(self.rng.below(rows.len() as u64 + 1) as usize) {
                self.old.apply(self.now, Change::Kill { flow: row.id }).unwrap();
            }
        }
        let mut buffer = vec![0; 65_535];
        while self.old.poll_transmit(self.now, &mut buffer).is_some() {}
    }

    /// The new engine reads what is written.
    fn read(&mut self) {
        let read = self.new.load_state(&mut self.load, self.now, &self.held).expect("records");
        self.held.drain(..read);
    }

    /// Writes passes until `most` are over, with packets between the portions.
    fn write(&mut self, most: usize) {
        let mut passes = 0;
        while passes < most {
            let portion = 1 + self.rng.below(60) as usize;
            let over = self.old.write_copy(&mut self.copy, self.now, portion, &mut self.held);
            passes += usize::from(over.is_some());
            self.read();
            let packets = self.rng.below(8);
            self.pass(packets);
        }
    }

    /// Finishes the copy and takes over; returns what the new engine says of it.
    fn finish(&mut self) -> Loaded {
        self.old.handle_timeout(self.now);
        self.old.finish_copy(&mut self.copy, self.now, &mut self.held);
        self.read();
        assert!(self.held.is_empty());
        let load = std::mem::replace(&mut self.load, StateLoad::new(self.now));
        let loaded = self.new.end_load(&load, self.now).expect("a whole copy");
        // Ports whose rest is over meanwhile are due.
        tick(&mut self.new, self.now);
        self.new.handle_timeout(self.now);
        loaded
    }
}

/// Half-open flows, without what begins anew in another store.
fn half_open(engine: &Engine, now: Instant) -> Vec<String> {
    let mut rows = Vec::new();
    engine.flows(now, &FlowQuery::default(), Cursor::default(), 1 << 16, &mut rows);
    rows.retain(|row| row.id.index & crate::ids::FlowId::HALF_OPEN != 0);
    let mut shown: Vec<String> = rows
        .iter()
        .map(|row| {
            let ends = (row.client, row.listen, row.server_address, row.source);
            format!("{ends:?} {} {} {:?} {:?}", row.server, row.service, row.state, [row.packets_in, row.packets_out])
        })
        .collect();
    shown.sort();
    shown
}

#[test]
fn a_copy_that_is_written_amid_packets_becomes_the_same_engine() {
    let (mut kinds, mut most_half_open) = ([0u64; 4], 0);
    for seed in 0..80 {
        let mut way = Way::new(3000 + seed);
        way.write(1 + seed as usize % 4);
        let loaded = way.finish();
        let now = way.now;
        let want = views(&way.old, now);
        assert_eq!(views(&way.new, now), want, "seed {seed}: {loaded}");
        let opening = half_open(&way.old, now);
        assert_eq!(half_open(&way.new, now), opening, "seed {seed}");
        assert_eq!(loaded.flows, (want.flows.len() + opening.len()) as u64, "seed {seed}: {loaded}");
        assert_eq!((loaded.lost(), loaded.skipped, loaded.unreadable, loaded.servers), (0, 0, 0, [6, 0]), "{loaded}");
        most_half_open = most_half_open.max(opening.len());
        kinds[0] += want.flows.len() as u64;
        kinds[1] += loaded.resting[0];
        kinds[2] += want.sticky[0] as u64;
        kinds[3] += want.nat.iter().map(|row| u64::from(row.resting > 0)).sum::<u64>();
        let counters = way.new.counters();
        let ended: u64 = counters.flows_ended.iter().map(|ended| ended.count).sum();
        assert_eq!((counters.flows_opened, ended), (counters.flows, 0), "each flow counts once");
        // Handshakes and flows go on: each packet has the same fate in both.
        for _ in 0..200 {
            way.now = way.now + Duration::from_millis(way.rng.below(500));
            [&mut way.old, &mut way.new].into_iter().for_each(|engine| tick(engine, way.now));
            way.talks.retain(|talk| is_known(&way.old, talk));
            if way.talks.is_empty() {
                break;
            }
            let place = way.rng.below(way.talks.len() as u64) as usize;
            way.talks[place].go_on(&mut way.rng, way.now, &mut [&mut way.old, &mut way.new]);
        }
        assert!(way.new.counters().add_up());
    }
    assert!(kinds.iter().all(|count| *count > 50) && most_half_open > 3, "{kinds:?} {most_half_open}");
}

#[test]
fn passes_get_shorter_and_an_idle_engine_has_nothing_more_to_write() {
    let mut way = Way::new(9);
    let portion = 50;
    let mut over = Vec::new();
    while over.len() < 4 {
        over.extend(way.old.write_copy(&mut way.copy, way.now, portion, &mut way.held));
        if over.len() == 1 {
            way.pass(1);
        }
        // Slots used at the very time of a pass come once more.
        way.now = way.now + Duration::from_millis(1);
    }
    assert!(over[0] > 50 && over[1] < 10 && over[2] < over[0] / 4, "{over:?}");
    assert_eq!(over[3], 0, "{over:?}");
    way.old.end_copy();
    way.read();
    assert!(!way.old.shard.table().notes_changes(crate::flow::Watcher::Successor));
}

#[test]
fn a_copy_that_ends_early_leaves_flows_that_take_later_packets() {
    let mut unfinished = 0;
    for seed in 0..30 {
        let mut way = Way::new(5000 + seed);
        way.write(1);
        let load = std::mem::replace(&mut way.load, StateLoad::new(way.now));
        assert_eq!(way.new.end_load(&load, way.now), Err(StateError::NotWhole));
        // A minute's traffic is unknown to the new engine; what it knows still passes.
        let known: Vec<Talk> = way.talks.iter().filter(|talk| is_known(&way.new, talk)).cloned().collect();
        for mut talk in known.into_iter().filter(|talk| talk.protocol == Protocol::Tcp && is_known(&way.old, talk)) {
            talk.next = talk.next.map(|next| next.wrapping_add(50_000_000));
            let (there, [seq, ack]) = (talk.there.unwrap(), talk.next);
            let data = packet((Protocol::Tcp, ack, seq, "PA"), there.1, there.0);
            let (verdict, _) = pass(&mut way.new, way.now, &data);
            assert!(verdict.starts_with("Server"), "{verdict}");
            unfinished += 1;
        }
    }
    assert!(unfinished > 100, "{unfinished}");
}

#[test]
fn another_plan_in_the_middle_of_a_copy_begins_it_anew() {
    for seed in 0..20 {
        let mut way = Way::new(7000 + seed);
        way.write(usize::from(seed % 2 == 0));
        if seed % 2 == 1 {
            way.old.write_copy(&mut way.copy, way.now, 30, &mut way.held);
            way.read();
        }
        way.old.reload(way.now, &after(), Removed::Drain);
        way.write(1);
        way.finish();
        let want = views(&way.old, way.now);
        assert_eq!(views(&way.new, way.now), want, "seed {seed}");
    }
}
