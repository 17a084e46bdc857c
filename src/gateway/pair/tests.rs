//! Two gateways whose sockets are real, on loopback, and somebody who uses the address of one of them.

use super::*;
use crate::config;
use mio::net::TcpStream;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

const CONFIG: &str = r#"
[[service]]
name = "web"
listen = "192.0.2.80:80/tcp"
pool = "web"
[[pool]]
name = "web"
server = [{ name = "a", address = "10.0.0.1" }]
"#;

struct Gate {
    pair: Pair,
    engine: Engine,
    ledger: Ledger,
    poll: mio::Poll,
}

impl Gate {
    fn new(dir: &Path, own: usize, port: u16) -> Gate {
        let key = dir.join("key");
        if !key.exists() {
            let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&key).unwrap();
            file.write_all(&[b'k'; 32]).unwrap();
        }
        let (names, other) = (["alpha", "beta"], 1 - own);
        let text = format!(
            "{CONFIG}\n[sync]\nnode = \"{}\"\npeer = \"{}\"\naddress = \"127.0.0.{}:{port}\"\npeer-address = \
             \"127.0.0.{}:{port}\"\nkey-file = {key:?}\n",
            names[own],
            names[other],
            own + 1,
            other + 1
        );
        let settings = config::parse(&text, "pair.toml").unwrap_or_else(|error| panic!("{error}"));
        let mut engine = Engine::new(&settings);
        let mut pair = Pair::open(&settings, None, &mut engine, ms(0)).unwrap().expect("it is one of a pair");
        let poll = mio::Poll::new().unwrap();
        pair.register(poll.registry(), Token(0)).unwrap();
        Gate { pair, engine, ledger: Ledger::new(None, settings), poll }
    }

    /// Does what there is to do.
    fn work(&mut self, now: Instant) {
        // Whether there are events or not, sockets say what is there.
        (0..2).for_each(|token| self.pair.ready(Token(token)));
        self.pair.work(self.poll.registry(), (&mut self.engine, &mut self.ledger, None), now);
    }

    fn is_connected(&self) -> bool {
        self.pair.facts.connected.is_some()
    }
}

fn ms(ms: u64) -> Instant {
    Instant::from_nanos((1_000_000 + ms) * 1_000_000)
}

/// A port of loopback that nobody has.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn whoever_uses_the_peers_address_without_its_key_does_not_keep_the_peer_out() {
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let (mut one, mut two) = (Gate::new(dir.path(), 0, port), Gate::new(dir.path(), 1, port));
    // Three connections every 10 ms, of which the last hundred stay open.
    let mut others: std::collections::VecDeque<TcpStream> = std::collections::VecDeque::new();
    for step in 0..600 {
        let now = ms(step * 10);
        for _ in 0..3 {
            others.push_back(socket::connect(&two.pair.settings).unwrap());
        }
        others.drain(..others.len().saturating_sub(100));
        // The peer comes last every time.
        if step > 100 {
            two.work(now);
        }
        one.work(now);
        assert!(one.pair.guests.count() <= 16);
        if one.is_connected() && two.is_connected() {
            // It stays, and the others are gone.
            assert_eq!(one.pair.guests.count(), 0);
            for step in step..step + 500 {
                others.push_back(socket::connect(&two.pair.settings).unwrap());
                one.work(ms(step * 10));
                two.work(ms(step * 10));
            }
            assert!(one.is_connected() && one.pair.facts.connections == 1, "{:?} {:?}", one.pair.facts, two.pair.facts);
            return;
        }
    }
    panic!("the peer has been kept out for five seconds, and has tried 25 times");
}

#[test]
fn one_who_says_nothing_is_given_up_after_a_second() {
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let (mut one, two) = (Gate::new(dir.path(), 0, port), Gate::new(dir.path(), 1, port));
    let _silent = socket::connect(&two.pair.settings).unwrap();
    one.work(ms(0));
    assert_eq!(one.pair.guests.count(), 1);
    one.work(ms(990));
    assert_eq!((one.pair.guests.count(), one.pair.guests.due()), (1, Some(ms(1000))));
    one.work(ms(1000));
    assert_eq!((one.pair.guests.count(), one.pair.guests.due()), (0, None));
    assert!(one.pair.facts.trouble.as_ref().is_some_and(|(_, why)| why.contains("silent")));
}
