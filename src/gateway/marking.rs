//! Keeps the programs that mark the packets of flows attached, and their keys in step with the engine's flows.
//!
//! A key too many costs a packet the way through the device; a flow without its key would have its replies reach the client
//! untranslated. So keys are removed only if the engine has no such flow, and while any may be missing, the programs mark
//! everything that comes from the servers. It holds no policy: which flows there are is the engine's to say.

use super::bpf::marks::{Attached, Keys, Marks, Reply};
use super::bpf::{AddressSet, BpfError};
use super::event_loop::BEGIN;
use super::netlink::{Netlink, NetlinkError};
use crate::config::Settings;
use crate::engine::{Cursor, Engine};
use crate::flow::Key;
use crate::time::{Duration, Instant};
use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

/// The most devices that get a program: each takes a descriptor, of which a process may have 1,024 by default.
const MOST_DEVICES: usize = 256;
/// The time between two comparisons of keys and flows.
const REST: Duration = Duration::from_secs(30);
/// While a comparison is under way: the time between its steps, and the keys or slots of the table that a step looks at. Both
/// take about 1 % of the time: with a million flows, a step some 60 µs if the comparison is a matter of routine, so that
/// packets hardly wait for it, and half a millisecond if something is known to be missing.
const PAUSE: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(25)];
const PORTION: [usize; 2] = [32, 256];
/// Slots of a portion where no packet waits.
const ALL_AT_ONCE: usize = 4096;
/// For how long connections of the gateway before this one are looked for.
const YOUTH: Duration = Duration::from_secs(300);
/// How soon it is looked whether keys are missing.
const SOON: Duration = Duration::from_secs(1);

/// What a comparison is at.
#[derive(Debug, Clone, Copy)]
enum At {
    /// Nothing: it begins when it is due.
    Rest,
    /// The keys, which are removed if there is no flow; the last one looked at.
    Keys(Option<Reply>),
    /// The flows, whose keys are stored if they are missing; and how many keys the programs had no room for when it began.
    Flows { next: Cursor, missed: u32, has_room: bool },
}

/// The programs, where they are attached, and the comparison of their keys with the flows.
#[derive(Debug)]
pub(super) struct Marking {
    marks: Marks,
    netlink: Netlink,
    device: String,
    /// By the index of the device; `None` where a program could not be attached.
    attached: BTreeMap<u32, Option<Attached>>,
    /// Whether devices may have come or gone.
    is_stale: bool,
    at: At,
    /// Whether a comparison is under way because keys are missing or too many.
    is_behind: bool,
    due: Instant,
    /// When the last comparison ended.
    rested: Instant,
    /// Until when connections of the gateway before this one may live.
    young_until: Option<Instant>,
    lost: u64,
    was_broad: bool,
}

impl Marking {
    /// Loads the programs and attaches them to the gateway's own device and to all others of the namespace.
    pub(super) fn open(settings: &Settings, device: &str) -> Result<Marking, BpfError> {
        let mut marking = Marking::with(Marks::load(settings)?, device)?;
        marking.expect_unknown(BEGIN)?;
        Ok(marking)
    }

    /// The same beside the programs of another gateway whose flows all become known: those keep marking until it ends. With
    /// its keys, if it has passed them on; returns whether these are used. `young_until` is until when it looks for
    /// connections of the gateway before it.
    pub(super) fn beside(
        settings: &Settings,
        device: &str,
        keys: Option<Keys>,
        young_until: Option<Instant>,
    ) -> Result<(Marking, bool), BpfError> {
        let (mut marks, has_keys) = match keys {
            Some(keys) => Marks::load_with(settings, keys)?,
            None => (Marks::load(settings)?, false),
        };
        marks.set_young(young_until.is_some())?;
        let marking = Marking { young_until, ..Marking::with(marks, device)? };
        Ok((marking, has_keys))
    }

    /// Returns for how long connections of the gateway before this one are still looked for.
    pub(super) fn youth(&self, now: Instant) -> Option<Duration> {
        self.young_until.map(|until| until.since(now)).filter(|left| !left.is_zero())
    }

    /// Returns the map of the keys, for a gateway that takes the place of this one; none if keys are missing in it.
    pub(super) fn keys(&self) -> Option<BorrowedFd<'_>> {
        self.marks.to_pass()
    }

    /// Takes into account that connections of the gateway before this one may live that are not known here.
    pub(super) fn expect_unknown(&mut self, now: Instant) -> Result<(), BpfError> {
        self.marks.set_young(true)?;
        self.young_until = Some(now + YOUTH);
        Ok(())
    }

    /// Leaves it to the programs of the gateway that has taken the place of this one to mark what arrives.
    pub(super) fn step_aside(&mut self) {
        if let Err(error) = self.marks.set_over() {
            log::warn!("replies may not be translated for a moment: {error}");
        }
    }

    /// The same with programs that are loaded.
    pub(super) fn with(marks: Marks, device: &str) -> Result<Marking, BpfError> {
        let netlink = Netlink::open().map_err(|e| BpfError::new(&e))?;
        let mut marking = Marking {
            marks,
            netlink,
            device: device.into(),
            attached: BTreeMap::new(),
            is_stale: false,
            at: At::Rest,
            is_behind: false,
            due: Instant::ZERO + SOON,
            rested: Instant::ZERO,
            young_until: None,
            lost: 0,
            was_broad: false,
        };
        let failed = marking.look_at_devices().map_err(|e| BpfError::new(&e))?;
        match failed {
            Some(error) => Err(error),
            None => Ok(marking),
        }
    }

    /// Adds the servers and sources of settings to those that the programs know.
    pub(super) fn extend(&mut self, settings: &Settings, servers: &AddressSet) -> Result<(), BpfError> {
        self.marks.extend(settings, servers)
    }

    /// Has the programs forget servers and sources that are not in the settings.
    pub(super) fn restrict(&mut self, settings: &Settings, servers: &AddressSet) {
        self.marks.restrict(settings, servers);
    }

    /// Takes note that devices may have come or gone.
    pub(super) fn devices_changed(&mut self) {
        self.is_stale = true;
    }

    /// Returns whether replies may arrive at a device without the program: then they must be selected by their addresses.
    pub(super) fn has_gaps(&self) -> bool {
        self.attached.values().any(Option::is_none)
    }

    /// Returns when there is work to do.
    pub(super) fn poll_timeout(&self) -> Instant {
        self.due
    }

    /// Removes the keys of flows that have ended, and does one step of what is due; returns whether [`Marking::has_gaps`]
    /// may have changed. To be called when all packets of the engine are written.
    pub(super) fn work(&mut self, engine: &mut Engine, now: Instant) -> bool {
        while let Some(key) = engine.poll_ended() {
            // The flow after it may have the same key.
            if !engine.expects(&key) && !self.marks.is_own(&key) {
                self.marks.remove(&Reply::new(&key));
            }
        }
        let had_gaps = self.has_gaps();
        if std::mem::take(&mut self.is_stale) {
            match self.look_at_devices() {
                Ok(None) => {}
                Ok(Some(error)) => log::warn!(
                    "replies of servers are selected by their addresses too, because a device has no BPF program: {error}"
                ),
                Err(error) => log::warn!("devices may lack the BPF program that marks replies of servers: {error}"),
            }
        }
        if self.due <= now {
            self.compare(engine, now);
        }
        had_gaps != self.has_gaps()
    }

    /// Attaches the programs where they are missing, and forgets devices that are gone; returns why one could not be
    /// attached.
    fn look_at_devices(&mut self) -> Result<Option<BpfError>, NetlinkError> {
        let devices = self.netlink.layer3_devices()?;
        self.attached.retain(|index, _| devices.contains_key(index));
        let mut failed = None;
        for (index, name) in devices.iter().filter(|(_, name)| name.as_str() != "lo") {
            if self.attached.get(index).is_some_and(Option::is_some) {
                continue;
            }
            let attached = match (*name == self.device, self.attached.len() < MOST_DEVICES) {
                (true, _) => self.marks.attach_to_own(name, *index),
                (false, true) => self.marks.attach_to_other(name),
                (false, false) => Err(BpfError::of(format!("there are more than {MOST_DEVICES} devices"))),
            };
            match attached {
                Ok(attached) => drop(self.attached.insert(*index, Some(attached))),
                // A device that has just gone.
                Err(error) if error.is_no_device() => {}
                Err(error) => {
                    self.attached.insert(*index, None);
                    failed = Some(error.at(name));
                }
            }
        }
        Ok(failed)
    }

    /// Compares a portion of the keys with the flows, or of the flows with the keys.
    fn compare(&mut self, engine: &Engine, now: Instant) {
        self.at = match self.at {
            At::Rest => {
                if self.young_until.take_if(|until| *until <= now).is_some()
                    && let Err(error) = self.marks.set_young(false)
                {
                    log::warn!("connections past the gateway continue to enter the device: {error}");
                }
                let (broad, missed) = self.marks.missing();
                self.tell(broad, missed);
                self.is_behind = broad || engine.lost_ended() != self.lost;
                self.lost = engine.lost_ended();
                if self.is_behind || now >= self.rested + REST { At::Keys(None) } else { At::Rest }
            }
            At::Keys(last) => self.compare_keys(engine, last),
            At::Flows { next, missed, has_room } => {
                let portion = PORTION[usize::from(self.is_behind)];
                self.compare_flows(engine, now, (next, portion), (missed, has_room))
            }
        };
        // What is found to be missing in the middle of it is not looked for at leisure.
        self.is_behind |= engine.lost_ended() != self.lost || self.marks.missing().0;
        self.due = now + if let At::Rest = self.at { SOON } else { PAUSE[usize::from(self.is_behind)] };
    }

    fn compare_keys(&mut self, engine: &Engine, mut last: Option<Reply>) -> At {
        for _ in 0..PORTION[usize::from(self.is_behind)] {
            let next = self.marks.next(last.as_ref());
            // A key's successor can be found only while it is there itself, so it is removed after that.
            if let Some(looked_at) = std::mem::replace(&mut last, next)
                && !engine.expects(&looked_at.key())
            {
                self.marks.remove(&looked_at);
            }
            if last.is_none() {
                return At::Flows { next: Cursor::default(), missed: self.marks.missing().1, has_room: true };
            }
        }
        At::Keys(last)
    }

    /// Stores the key of a flow that came otherwise than by a packet. Without room for it, all that comes from servers enters
    /// the device for a while.
    pub(super) fn learn(&mut self, key: &Key, now: Instant) {
        if self.marks.is_own(key) || self.marks.has(key) {
            return;
        }
        match self.marks.store(key) {
            Ok(true) => {}
            Ok(false) if self.young_until.is_some() => {}
            Ok(false) => {
                log::warn!("flows of the peer found no room for the keys of their replies");
                let _ = self.expect_unknown(now);
            }
            Err(error) => log::warn!("cannot store the key of a flow's replies: {error}"),
        }
    }

    /// Stores the keys of all flows.
    pub(super) fn store_all(&mut self, engine: &Engine) {
        let mut at = At::Flows { next: Cursor::default(), missed: self.marks.missing().1, has_room: true };
        while let At::Flows { next, missed, has_room } = at {
            at = self.compare_flows(engine, self.rested, (next, ALL_AT_ONCE), (missed, has_room));
        }
    }

    fn compare_flows(
        &mut self,
        engine: &Engine,
        now: Instant,
        (next, portion): (Cursor, usize),
        (missed, mut has_room): (u32, bool),
    ) -> At {
        let marks = &mut self.marks;
        let next = engine.reply_keys(next, portion, |key| {
            if marks.is_own(&key) || marks.has(&key) {
                return;
            }
            match marks.store(&key) {
                Ok(stored) => has_room &= stored,
                Err(error) => {
                    has_room = false;
                    log::warn!("cannot store the key of a flow's replies: {error}");
                }
            }
        });
        if let Some(next) = next {
            return At::Flows { next, missed, has_room };
        }
        if has_room && let Err(error) = self.marks.is_complete(missed) {
            log::warn!("cannot declare the keys of flows complete: {error}");
        }
        self.rested = now;
        At::Rest
    }

    /// Logs the begin and the end of a time in which keys are missing.
    fn tell(&mut self, broad: bool, missed: u32) {
        if broad != self.was_broad {
            self.was_broad = broad;
            if broad {
                log::warn!(
                    "{missed} flows found no room for the key of their replies: until every flow has one, all packets from \
                     servers enter the device"
                );
            } else {
                log::info!("every flow has the key of its replies again");
            }
        }
    }

    /// Returns the attached devices.
    #[cfg(test)]
    pub(super) fn devices(&self) -> Vec<u32> {
        self.attached.iter().filter(|(_, attached)| attached.is_some()).map(|(index, _)| *index).collect()
    }

    #[cfg(test)]
    pub(super) fn marks(&mut self) -> &mut Marks {
        &mut self.marks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::Protocol;
    use crate::gateway::netns::Namespace;
    use crate::gateway::testing::{namespace, settings, tun};
    use crate::packet::Addresses;
    use crate::packet::Meta;
    use etherparse::PacketBuilder;

    const MINUTE: Duration = Duration::from_secs(60);

    /// An engine with a UDP service, its device, and the programs with room for some keys.
    struct Bench {
        engine: Engine,
        marking: Marking,
        tun: tun_tap::Iface,
        now: Instant,
    }

    /// Runs a test with a bench in a namespace of its own; not in a user namespace, where no program may be loaded.
    fn bench(label: &str, keys: u32, test: impl FnOnce(&mut Bench) + Send) {
        let Some(ns) = namespace(label) else { return };
        let run = |_: &Namespace| {
            let settings = settings(&[("192.0.2.1", Protocol::Udp, 7, 7)], &[("10.9.0.2", None)]);
            let marks = match Marks::with_room(&settings, keys) {
                Ok(marks) => marks,
                Err(e) if e.fix().contains("CAP_BPF") => return println!("SKIPPED: {e}; {}", e.fix()),
                Err(e) => panic!("{e}"),
            };
            let tun = tun("eqtest0");
            // A device that is down takes no packets.
            let up = std::process::Command::new("ip").args(["link", "set", "eqtest0", "up"]).status().unwrap();
            assert!(up.success());
            let marking = Marking::with(marks, "eqtest0").unwrap();
            let mut engine = Engine::new(&settings);
            engine.collect_ended();
            test(&mut Bench { engine, marking, tun, now: Instant::ZERO + MINUTE });
        };
        ns.run(|| run(&ns)).unwrap();
    }

    impl Bench {
        /// Has a client send a datagram from a port, and the engine's packet leave the device.
        fn opens(&mut self, port: u16) {
            let mut packet = Vec::new();
            let to = PacketBuilder::ipv4([198, 51, 100, 7], [192, 0, 2, 1], 64).udp(port, 7);
            to.write(&mut packet, b"question").unwrap();
            let verdict = self.engine.handle_packet(self.now, &mut packet, Meta::default());
            assert!(matches!(verdict, crate::engine::Verdict::Forward { .. }), "{verdict:?}");
            self.tun.send(&packet).unwrap();
        }

        /// Lets time pass, with everything that is due in it.
        fn pass(&mut self, span: Duration) {
            let until = self.now + span;
            while self.now < until {
                self.now = self.now + Duration::from_millis(500);
                while self.engine.poll_timeout().is_some_and(|due| due <= self.now) {
                    self.engine.handle_timeout(self.now);
                }
                self.marking.work(&mut self.engine, self.now);
            }
        }

        fn has(&mut self, port: u16) -> bool {
            self.marking.marks().has(&key(port))
        }

        fn is_broad(&mut self) -> bool {
            self.marking.marks().missing().0
        }
    }

    /// The key of the server's replies to the client's port.
    fn key(port: u16) -> Key {
        let (src, dst) = (u32::from_be_bytes([10, 9, 0, 2]), u32::from_be_bytes([198, 51, 100, 7]));
        Key { addresses: Addresses::V4 { src, dst }, src_port: 7, dst_port: port, protocol: Protocol::Udp }
    }

    #[test]
    fn a_key_is_there_before_its_packet_goes_on_and_goes_with_its_flow() {
        bench("eq-mk1", 16, |bench| {
            bench.opens(1);
            assert!(bench.has(1));
            bench.pass(MINUTE * 2);
            bench.opens(2);
            bench.pass(MINUTE * 4);
            assert!(!bench.has(1) && bench.has(2), "the flow of port 1 has expired");
            // Ended and opened again before anybody looked: the key is that of the new flow.
            bench.now = bench.now + MINUTE * 5;
            bench.engine.handle_timeout(bench.now);
            bench.opens(2);
            bench.pass(SOON);
            assert!(bench.has(2));
        });
    }

    #[test]
    fn without_room_all_from_servers_is_marked_until_every_flow_has_its_key() {
        bench("eq-mk2", 2, |bench| {
            bench.opens(1);
            bench.pass(MINUTE * 2);
            (2..=3).for_each(|port| bench.opens(port));
            assert!(bench.is_broad() && !bench.has(3));
            bench.pass(MINUTE * 2);
            assert!(bench.is_broad() && !bench.has(3), "there is no room yet");
            (2..=3).for_each(|port| bench.opens(port));
            bench.pass(MINUTE * 2);
            assert!(!bench.has(1) && bench.has(2) && bench.has(3));
            assert!(!bench.is_broad(), "every flow has its key");
        });
    }

    #[test]
    fn keys_that_are_lost_or_left_over_are_found() {
        bench("eq-mk3", 16, |bench| {
            (1..=3).for_each(|port| bench.opens(port));
            let marks = bench.marking.marks();
            assert!(marks.remove(&Reply::new(&key(2))));
            // Whichever comes last in the map's order.
            let left_over = 9..=15;
            left_over.clone().for_each(|port| assert!(marks.store(&key(port)).unwrap()));
            bench.pass(REST + SOON * 4);
            assert!([1, 2, 3].into_iter().all(|port| bench.has(port)));
            left_over.for_each(|port| assert!(!bench.has(port), "{port}"));
        });
    }

    #[test]
    fn devices_are_followed_and_the_ports_of_bridges_are_none() {
        bench("eq-mk4", 16, |bench| {
            let ip = |words: &str| {
                assert!(std::process::Command::new("ip").args(words.split(' ')).status().unwrap().success(), "{words}");
            };
            let before = bench.marking.devices();
            ip("link add name bridge0 type bridge");
            ip("link add name one type veth peer name two");
            ip("link set two master bridge0");
            bench.marking.devices_changed();
            assert!(!bench.marking.work(&mut bench.engine, bench.now), "all of them have the programs");
            assert_eq!(bench.marking.devices().len(), before.len() + 2);
            ip("link delete one");
            bench.marking.devices_changed();
            bench.marking.work(&mut bench.engine, bench.now);
            assert_eq!(bench.marking.devices().len(), before.len() + 1);
        });
    }
}
