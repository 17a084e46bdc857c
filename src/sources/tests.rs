//! Tests of the sources as a whole: a resolver of the test's own answers their questions.

mod hostile;
mod lists;
mod resolver;

use super::{AttemptId, DnsSettings, From, Over, Request, SourceSettings, Sources};
use crate::balance::ServerSettings;
use crate::time::{Duration, Instant};
use resolver::{Answers, Say, Zone};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

fn seconds(seconds: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(seconds)
}

fn dns(servers: &[&str]) -> DnsSettings {
    DnsSettings {
        servers: servers.iter().map(|text| text.parse().expect("an address")).collect(),
        min_ttl: Duration::from_secs(5),
        max_ttl: Duration::from_secs(300),
    }
}

fn source(pool: &str, from: From) -> SourceSettings {
    SourceSettings { pool: pool.into(), from, least: 1, families: [true, false] }
}

fn srv() -> From {
    From::Services("_web._tcp.example".into())
}

/// Sources whose questions a zone answers.
struct Bench {
    sources: Sources,
    zone: Zone,
    /// Attempts so far: the resolver, the transport and the question.
    asked: Vec<(SocketAddr, Over, String)>,
    log: Vec<String>,
    /// Attempts that wait for an answer that does not come.
    open: Vec<AttemptId>,
}

impl Bench {
    fn new(settings: &[SourceSettings], zone: Zone) -> Bench {
        Bench::with(settings, &dns(&["192.0.2.53:53"]), zone)
    }

    fn with(settings: &[SourceSettings], dns: &DnsSettings, zone: Zone) -> Bench {
        let sources = Sources::new(settings, dns, [1, 2], Instant::ZERO);
        Bench { sources, zone, asked: Vec::new(), log: Vec::new(), open: Vec::new() }
    }

    /// Does what is due at `now`, and answers what is asked.
    fn at(&mut self, now: Instant) {
        if self.sources.poll_timeout().is_some_and(|due| due <= now) {
            self.sources.handle_timeout(now);
        }
        while let Some(request) = self.sources.poll_request() {
            match request {
                Request::Ask { attempt, to, over, message } => {
                    let answers = self.zone.answer(to, over, &message);
                    self.asked.push((to, over, resolver::question(&message)));
                    match answers {
                        Answers::Nothing => self.open.push(attempt),
                        Answers::Fails(why) => self.sources.failed(now, attempt, why),
                        Answers::Messages(all) => all.iter().for_each(|bytes| self.sources.answer(now, attempt, bytes)),
                    }
                }
                Request::Forget { attempt } => self.open.retain(|open| *open != attempt),
                Request::Read { path } => {
                    let read = self.zone.files.get(&path).map(Vec::as_slice).ok_or("no such file".to_owned());
                    let list = read.and_then(|bytes| super::read_list(bytes).map_err(|wrong| wrong.to_string()));
                    self.sources.take_list(now, &path, list);
                }
            }
        }
        while let Some(event) = self.sources.poll_event() {
            self.log.push(event.text);
        }
    }

    /// Lets time pass until `end`, doing what is due when it is due.
    fn until(&mut self, end: Instant) {
        while let Some(due) = self.sources.poll_timeout().filter(|due| *due <= end) {
            self.at(due);
        }
    }

    fn found(&self, pool: &str) -> Vec<ServerSettings> {
        self.sources.found().remove(pool).map(|list| list.to_vec()).unwrap_or_default()
    }

    fn names(&self, pool: &str) -> Vec<String> {
        self.found(pool).into_iter().map(|server| server.name).collect()
    }

    fn error(&self) -> Option<String> {
        self.sources.states()[0].trouble.clone().map(|(_, text)| text)
    }

    fn next(&self) -> Duration {
        self.sources.states()[0].next.since(Instant::ZERO)
    }
}

#[test]
fn services_become_servers_by_target_priority_and_weight() {
    let mut zone = Zone::default();
    zone.srv(10, 0, 80, "a.example").srv(10, 5, 8080, "b.example").srv(20, 0, 80, "c.example").srv(
        30,
        0,
        80,
        "d.example",
    );
    // The address of `a` is in the additional section; the others are asked for.
    zone.a("a.example", "10.0.0.1").a("b.example", "10.0.0.2").a("c.example", "10.0.0.3").a("d.example", "10.0.0.4");
    zone.additional = vec!["a.example".into()];
    let mut bench = Bench::new(&[source("web", srv())], zone);
    bench.at(seconds(0));
    let shown: Vec<_> = bench
        .found("web")
        .iter()
        .map(|s| format!("{} {:?} {:?} weight {} rank {} {}", s.name, s.v4, s.port, s.weight, s.priority, s.backup))
        .collect();
    assert_eq!(
        shown,
        [
            "a.example:80 Some(10.0.0.1) Some(80) weight 0 rank 1 false",
            "b.example:8080 Some(10.0.0.2) Some(8080) weight 5 rank 1 false",
            "c.example:80 Some(10.0.0.3) Some(80) weight 1 rank 2 true",
            "d.example:80 Some(10.0.0.4) Some(80) weight 1 rank 3 true",
        ]
    );
    assert_eq!(bench.asked.len(), 4, "the service, and three targets: {:?}", bench.asked);
    assert!(bench.sources.take_change() && !bench.sources.take_change());
    assert_eq!(bench.error(), None);
}

#[test]
fn equal_addresses_with_other_ports_are_other_servers_and_names_tell_them_apart() {
    let mut zone = Zone::default();
    zone.srv(1, 1, 80, "a.example").srv(1, 1, 81, "a.example").srv(1, 1, 80, "twin.example").srv(
        1,
        1,
        80,
        "many.example",
    );
    zone.a("a.example", "10.0.0.1").a("twin.example", "10.0.0.1");
    zone.a("many.example", "10.0.0.2").a("many.example", "10.0.0.3");
    let mut bench = Bench::new(&[source("web", srv())], zone);
    bench.at(seconds(0));
    // The twin is the same server once more; of a target with several addresses each is one.
    assert_eq!(bench.names("web"), ["a.example:80", "a.example:81", "10.0.0.2:80", "10.0.0.3:80"]);
}

#[test]
fn a_target_of_both_families_is_one_server() {
    let mut zone = Zone::default();
    zone.srv(1, 1, 80, "a.example").a("a.example", "10.0.0.1").a("a.example", "2001:db8::1");
    let mut bench = Bench::new(&[SourceSettings { families: [true, true], ..source("web", srv()) }], zone);
    bench.at(seconds(0));
    let found = bench.found("web");
    assert_eq!((found.len(), found[0].v4.is_some(), found[0].v6.is_some()), (1, true, true));
}

#[test]
fn addresses_become_servers_with_one_port_or_that_of_the_client() {
    for (port, want) in [(Some(8080), ["10.0.0.1:8080", "[2001:db8::1]:8080"]), (None, ["10.0.0.1", "2001:db8::1"])] {
        let mut zone = Zone::default();
        // Behind an alias, in any case of letters.
        zone.cname("web.example", "real.example").a("REAL.example", "10.0.0.1").a("real.EXAMPLE", "2001:db8::1");
        let from = From::Addresses { name: "Web.Example.".into(), port };
        let mut bench = Bench::new(&[SourceSettings { families: [true, true], ..source("web", from) }], zone);
        bench.at(seconds(0));
        assert_eq!(bench.names("web"), want);
        assert!(bench.found("web").iter().all(|server| server.port == port));
    }
}

#[test]
fn times_to_live_are_kept_within_bounds() {
    for (ttl, want) in [(0, 5), (4, 5), (30, 30), (300, 300), (86_400, 300), (u32::MAX, 5)] {
        let mut zone = Zone { ttl, ..Zone::default() };
        zone.srv(1, 1, 80, "a.example").a("a.example", "10.0.0.1");
        let mut bench = Bench::new(&[source("web", srv())], zone);
        bench.at(seconds(0));
        // RFC 2181, section 8: the top bit means 0.
        assert_eq!(bench.next(), Duration::from_secs(want), "{ttl}");
        assert!(bench.sources.take_change());
        let before = bench.asked.len();
        bench.until(seconds(want - 1));
        assert_eq!(bench.asked.len(), before);
        bench.until(seconds(want));
        assert!(bench.asked.len() > before && !bench.sources.take_change(), "the same list is no change");
    }
}

#[test]
fn the_last_good_list_stays_whatever_the_resolvers_say() {
    for say in [Say::Silence, Say::Rcode(2), Say::Rcode(5), Say::Rcode(3), Say::Empty, Say::Garbage, Say::Unreachable] {
        let mut zone = Zone { ttl: 10, ..Zone::default() };
        zone.srv(1, 1, 80, "a.example").a("a.example", "10.0.0.1");
        let mut bench = Bench::new(&[source("web", srv())], zone);
        bench.at(seconds(0));
        assert!(bench.sources.take_change());
        bench.zone.say = say;
        bench.until(seconds(600));
        assert_eq!(bench.names("web"), ["a.example:80"], "{say:?}");
        assert!(!bench.sources.take_change());
        let error = bench.error().unwrap_or_else(|| panic!("{say:?}: an error"));
        assert!(error.ends_with("the last server stays"), "{error}");
        assert_eq!(bench.log.len(), 2, "found, and the trouble once: {:?}", bench.log);
        let asked = bench.asked.len();
        assert!((10..200).contains(&asked), "{say:?}: {asked} questions in ten minutes: neither a flood nor silence");
        bench.zone.say = Say::Truth;
        bench.zone.a("b.example", "10.0.0.2").srv(1, 1, 80, "b.example");
        bench.until(seconds(700));
        assert_eq!((bench.names("web").len(), bench.error()), (2, None), "{say:?}");
        assert!(bench.log[2].ends_with("it works again"), "{:?}", bench.log);
    }
}

#[test]
fn what_has_never_been_found_is_missing_and_said() {
    let mut bench = Bench::new(&[source("web", srv())], Zone::default());
    bench.zone.say = Say::Rcode(3);
    bench.at(seconds(0));
    assert!(bench.sources.found().is_empty());
    let error = bench.error().expect("an error");
    assert_eq!(error, "there is no such name (NXDOMAIN); it has no servers from there");
}

#[test]
fn another_resolver_is_asked_and_the_one_that_answers_stays_first() {
    let resolvers = ["192.0.2.1:53", "192.0.2.2:53", "192.0.2.3:53"];
    let mut zone = Zone { ttl: 10, ..Zone::default() };
    zone.srv(1, 1, 80, "a.example").a("a.example", "10.0.0.1");
    zone.dead = vec![resolvers[0].parse().expect("an address")];
    let mut bench = Bench::with(&[source("web", srv())], &dns(&resolvers), zone);
    bench.at(seconds(0));
    bench.until(seconds(3));
    let asked: Vec<String> = bench.asked.iter().map(|(to, ..)| to.ip().to_string()).collect();
    assert_eq!(asked, ["192.0.2.1", "192.0.2.2", "192.0.2.2"]);
    bench.until(seconds(13));
    assert!(bench.asked[3..].iter().all(|(to, ..)| to.ip().to_string() == "192.0.2.2"), "{:?}", bench.asked);
}

#[test]
fn what_does_not_fit_or_looks_forged_is_asked_for_over_tcp() {
    for say in [Say::Truncated, Say::OtherLetters, Say::Strangers] {
        let mut zone = Zone { say, ..Zone::default() };
        zone.srv(1, 1, 80, "a.example").a("a.example", "10.0.0.1");
        let mut bench = Bench::new(&[source("web", srv())], zone);
        bench.at(seconds(0));
        assert_eq!(bench.names("web"), ["a.example:80"], "{say:?}");
        let over: Vec<Over> = bench.asked.iter().map(|(_, over, _)| *over).collect();
        assert_eq!(over, [Over::Udp, Over::Tcp, Over::Udp, Over::Tcp], "{say:?}");
    }
}

#[test]
fn a_resolver_that_does_not_know_edns_is_asked_without() {
    let mut zone = Zone { say: Say::NoEdns, ..Zone::default() };
    zone.srv(1, 1, 80, "a.example").a("a.example", "10.0.0.1");
    let mut bench = Bench::new(&[source("web", srv())], zone);
    bench.at(seconds(0));
    assert_eq!(bench.names("web"), ["a.example:80"]);
}

#[test]
fn no_two_attempts_have_the_same_id_and_letters() {
    let mut bench = Bench::new(
        &[source("web", From::Addresses { name: "a-long-name.example".into(), port: None })],
        Zone::default(),
    );
    bench.zone.say = Say::Silence;
    let mut seen = std::collections::BTreeSet::new();
    bench.at(seconds(0));
    bench.until(seconds(300));
    for (_, _, message) in &bench.zone.received {
        // ID and name.
        assert!(seen.insert(message[..2].iter().chain(&message[12..32]).copied().collect::<Vec<u8>>()));
    }
    assert!(seen.len() > 10, "{}", seen.len());
}

#[test]
fn addresses_that_cannot_be_asked_for_stay_as_they_were() {
    let mut zone = Zone { ttl: 10, ..Zone::default() };
    zone.srv(1, 1, 80, "a.example").srv(1, 1, 80, "b.example");
    zone.a("a.example", "10.0.0.1").a("b.example", "10.0.0.2");
    let mut bench = Bench::new(&[source("web", srv())], zone);
    bench.at(seconds(0));
    bench.zone.mute = vec!["b.example".into()];
    bench.zone.srv(1, 1, 80, "c.example").a("c.example", "10.0.0.3");
    bench.until(seconds(40));
    assert_eq!(bench.names("web"), ["a.example:80", "b.example:80", "c.example:80"]);
    assert!(bench.error().expect("an error").contains("b.example A"), "{:?}", bench.error());
}

#[test]
fn a_removed_target_goes_and_a_list_that_lacks_most_is_confirmed_first() {
    let mut zone = Zone { ttl: 60, ..Zone::default() };
    for n in 1..=4 {
        let name = format!("s{n}.example");
        zone.srv(1, 1, 80, &name).a(&name, &format!("10.0.0.{n}"));
    }
    let mut bench = Bench::new(&[source("web", srv())], zone);
    bench.at(seconds(0));
    bench.zone.services.truncate(2);
    bench.until(seconds(60));
    assert_eq!(bench.names("web").len(), 2, "half of them may go at once");
    bench.zone.services.clear();
    bench.zone.srv(1, 1, 80, "s4.example");
    bench.until(seconds(120));
    assert_eq!(bench.names("web").len(), 2, "all of those in use are missing");
    assert!(bench.error().expect("an error").contains("lacks 2 of 2"), "{:?}", bench.error());
    bench.until(seconds(126));
    assert_eq!((bench.names("web"), bench.error()), (vec!["s4.example:80".into()], None));
}

#[test]
fn a_list_that_is_too_short_is_not_used_while_there_is_a_longer_one() {
    let settings = SourceSettings { least: 2, ..source("web", From::File("/list".into())) };
    let mut bench = Bench::new(&[settings], Zone::default());
    bench.zone.file("/list", "10.0.0.1:80\n");
    bench.at(seconds(0));
    assert_eq!(bench.names("web").len(), 1, "better one than none");
    for (text, want) in
        [("10.0.0.1:80\n10.0.0.2:80\n10.0.0.3:80\n", 3), ("10.0.0.1:80\n", 3), ("", 3), ("10.0.0.8:1\n10.0.0.9:1\n", 2)]
    {
        bench.zone.file("/list", text);
        bench.sources.file_changed(seconds(1), Path::new("/list"));
        bench.until(seconds(3));
        assert_eq!(bench.names("web").len(), want, "{text}");
    }
}

#[test]
fn a_file_is_read_once_it_is_quiet_and_a_wrong_one_changes_nothing() {
    let path = PathBuf::from("/list");
    let mut bench = Bench::new(&[source("web", From::File(path.clone()))], Zone::default());
    bench.zone.file("/list", "10.0.0.1:80\n10.0.0.2:80 weight=3\n");
    bench.at(seconds(0));
    assert_eq!(bench.names("web"), ["10.0.0.1:80", "10.0.0.2:80"]);
    assert!(bench.sources.take_change());
    // A writer that appends every 50 ms for 0.3 s.
    let millis = |n: u64| seconds(10) + Duration::from_millis(n);
    bench.zone.file("/list", "10.0.0.1:80\n10.0.0.2:8");
    for n in 0..6 {
        bench.until(millis(50 * n));
        bench.sources.file_changed(millis(50 * n), &path);
    }
    bench.zone.file("/list", "10.0.0.1:80\n10.0.0.2:80 wieght=3\n");
    bench.until(seconds(11));
    assert_eq!(bench.found("web")[1].weight, 3);
    assert!(!bench.sources.take_change());
    assert!(bench.error().expect("an error").contains("line 2: unknown key \"wieght\""), "{:?}", bench.error());
    bench.zone.file("/list", "10.0.0.2:80 state=draining\n");
    bench.sources.file_changed(seconds(20), &path);
    bench.until(seconds(21));
    assert_eq!((bench.names("web"), bench.error()), (vec!["10.0.0.2:80".to_owned()], None));
    assert!(
        bench.log.last().expect("a line").ends_with("1 server in all: 0 added, 1 removed, 1 changed"),
        "{:?}",
        bench.log
    );
    // Nothing is reported on a network file system, and a file that is gone is as a wrong one.
    bench.zone.files.clear();
    bench.until(seconds(60));
    assert_eq!(bench.names("web").len(), 1);
    assert!(bench.error().expect("an error").contains("no such file"));
}

#[test]
fn other_settings_keep_what_is_the_same() {
    let mut zone = Zone { ttl: 10, ..Zone::default() };
    zone.srv(1, 1, 80, "a.example").a("a.example", "10.0.0.1");
    zone.file("/list", "10.0.0.9:80\n");
    let both = [source("web", srv()), source("mail", From::File("/list".into()))];
    let mut bench = Bench::new(&both, zone);
    bench.at(seconds(0));
    bench.zone.say = Say::Silence;
    bench.until(seconds(12));
    let other = [both[0].clone(), source("mail", From::Addresses { name: "mail.example".into(), port: Some(25) })];
    bench.sources.follow(&other, &dns(&["192.0.2.53:53"]), seconds(12));
    assert_eq!(bench.names("mail"), ["10.0.0.9:80"], "until the other source has found something");
    bench.zone.say = Say::Truth;
    bench.zone.a("mail.example", "10.0.0.8");
    bench.until(seconds(60));
    assert_eq!((bench.names("web"), bench.names("mail")), (vec!["a.example:80".into()], vec!["10.0.0.8:25".into()]));
    bench.sources.follow(&[], &dns(&[]), seconds(60));
    assert!(bench.sources.found().is_empty() && bench.sources.poll_timeout().is_none());
}

#[test]
fn other_resolvers_are_asked_at_once() {
    let mut zone = Zone::default();
    zone.srv(1, 1, 80, "a.example").a("a.example", "10.0.0.1");
    zone.dead = vec!["192.0.2.53:53".parse().expect("an address")];
    let settings = [source("web", srv())];
    let mut bench = Bench::new(&settings, zone);
    bench.at(seconds(0));
    bench.sources.follow(&settings, &dns(&["192.0.2.54:53"]), seconds(1));
    bench.at(seconds(1));
    assert_eq!(bench.names("web"), ["a.example:80"]);
    assert_eq!(bench.open.len(), 0, "the question to the former resolver is over");
}

#[test]
fn no_resolver_at_all_is_said_and_asked_for_again_later() {
    let mut bench = Bench::with(&[source("web", srv())], &dns(&[]), Zone::default());
    bench.at(seconds(0));
    bench.until(seconds(300));
    assert!(bench.error().expect("an error").contains("add `servers` to [dns]"), "{:?}", bench.error());
    assert!(bench.log.len() == 1 && bench.asked.is_empty());
}

#[test]
fn what_cannot_be_used_is_said_once_and_tried_again() {
    let mut zone = Zone { ttl: 10, ..Zone::default() };
    zone.srv(1, 1, 80, "a.example").a("a.example", "10.0.0.1");
    let mut bench = Bench::new(&[source("web", srv())], zone);
    bench.at(seconds(0));
    assert!(bench.sources.take_change());
    bench.sources.refused(seconds(0), "a Maglev table of 1 entries is too small");
    bench.until(seconds(10));
    assert!(bench.error().expect("an error").contains("Maglev"));
    assert!(bench.sources.take_change(), "the same list, for another try");
    bench.sources.refused(seconds(10), "a Maglev table of 1 entries is too small");
    bench.until(seconds(20));
    assert!(bench.sources.take_change());
    let left_out = [("web".to_owned(), vec!["x: why".to_owned()])].into();
    bench.sources.accepted(&left_out);
    bench.until(seconds(40));
    assert!(bench.error().is_none() && !bench.sources.take_change());
    assert_eq!(bench.sources.states()[0].left_out, ["x: why"]);
    assert_eq!(bench.log.len(), 4, "found, refused, used again, left out: {:?}", bench.log);
}
