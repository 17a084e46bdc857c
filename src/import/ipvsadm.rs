//! Reads commands of ipvsadm: what `ipvsadm-save -n` prints, or a script with `ipvsadm -A ...` lines.
//!
//! Defaults are those of ipvsadm 1.31 (tests/import compares with it): scheduler wlc, direct routing, weight 1,
//! persistence 360 s. `-e` without a weight sets it to 1 and removes thresholds.

use super::ipvs::{Found, Listen, Method, Protocol, Real, Virtual};
use super::{Notes, Place};
use std::net::IpAddr;

/// Seconds of `-p` without a value.
const PERSISTENCE: u32 = 360;
/// What a note recommends where a name stands for a number.
const SAVE: &str = "write the file with `ipvsadm-save -n`, which prints addresses and ports as numbers";

/// A word with its place.
#[derive(Debug, Clone)]
struct Word {
    text: String,
    place: Place,
}

/// Splits a line as a shell does, without its expansions; `#` begins a comment.
fn words(line: &str, number: usize) -> Vec<Word> {
    let (mut found, mut word, mut quote): (Vec<Word>, Option<Word>, Option<char>) = (Vec::new(), None, None);
    for (column, c) in line.chars().enumerate() {
        let place = Place { line: number, column: column + 1 };
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert(Word { text: String::new(), place });
            }
            (None, '#') if word.is_none() => break,
            (None, c) if c.is_whitespace() => found.extend(word.take()),
            (_, c) => word.get_or_insert(Word { text: String::new(), place }).text.push(c),
        }
    }
    found.extend(word);
    found
}

/// The long forms of options, and how many values they take: 0, 1, or 2 for one that may be left out.
const OPTIONS: [(&str, &str, u8); 32] = [
    ("-A", "--add-service", 0),
    ("-E", "--edit-service", 0),
    ("-D", "--delete-service", 0),
    ("-a", "--add-server", 0),
    ("-e", "--edit-server", 0),
    ("-d", "--delete-server", 0),
    ("-C", "--clear", 0),
    ("-R", "--restore", 0),
    ("-S", "--save", 0),
    ("-L", "--list", 0),
    ("-Z", "--zero", 0),
    ("-t", "--tcp-service", 1),
    ("-u", "--udp-service", 1),
    ("--sctp-service", "--sctp-service", 1),
    ("-f", "--fwmark-service", 1),
    ("-s", "--scheduler", 1),
    ("-p", "--persistent", 2),
    ("-M", "--netmask", 1),
    ("-r", "--real-server", 1),
    ("-g", "--gatewaying", 0),
    ("-i", "--ipip", 0),
    ("-m", "--masquerading", 0),
    ("-w", "--weight", 1),
    ("-x", "--u-threshold", 1),
    ("-y", "--l-threshold", 1),
    ("-o", "--ops", 0),
    ("-b", "--sched-flags", 1),
    ("--pe", "--pe", 1),
    ("-6", "--ipv6", 0),
    ("-n", "--numeric", 0),
    ("--tun-type", "--tun-type", 1),
    ("--set", "--set", 3),
];

/// The options of a command by their short forms, with their values.
type Given = Vec<(&'static str, Option<Word>, Place)>;

fn options(words: &[Word], notes: &mut Notes) -> Option<(Given, Vec<Word>)> {
    let (mut given, mut rest, mut at) = (Given::new(), Vec::new(), 0);
    let mut values = Vec::new();
    while let Some(word) = words.get(at) {
        at += 1;
        let (name, mut joined) = match word.text.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
            _ => (word.text.as_str(), None),
        };
        let mut known =
            OPTIONS.iter().find(|(short, long, _)| name == *short || name == *long || name == "-O" && *short == "-o");
        // As getopt has it, a value may follow its letter: -w3.
        if known.is_none() && name.starts_with('-') && !name.starts_with("--") && name.len() > 2 {
            known = OPTIONS.iter().find(|(short, _, takes)| *takes > 0 && short.len() == 2 && name.starts_with(short));
            joined = known.map(|(short, ..)| name[short.len()..].to_owned());
        }
        let Some((short, _, takes)) = known else {
            if name.starts_with('-') {
                notes.add(
                    word.place,
                    format!("option {} is unknown: the command is left out", word.text),
                    "write by hand what it does",
                );
                return None;
            }
            rest.push(word.clone());
            continue;
        };
        let next = words.get(at).filter(|next| !next.text.starts_with('-'));
        let value = match (takes, joined) {
            (0, _) => None,
            (_, Some(value)) => Some(Word { text: value, place: word.place }),
            (3, None) => {
                values.extend(words[at..].iter().take(3).cloned());
                at = (at + 3).min(words.len());
                None
            }
            (_, None) => {
                at += usize::from(next.is_some());
                next.cloned()
            }
        };
        if *takes == 1 && value.is_none() {
            notes.add(
                word.place,
                format!("{name} lacks its value: the command is left out"),
                "write by hand what it does",
            );
            return None;
        }
        given.push((short, value, word.place));
    }
    rest.extend(values);
    Some((given, rest))
}

fn get<'g>(given: &'g Given, name: &str) -> Option<&'g Word> {
    given.iter().find(|(own, ..)| *own == name).and_then(|(_, value, _)| value.as_ref())
}

fn has(given: &Given, name: &str) -> bool {
    given.iter().any(|(own, ..)| *own == name)
}

/// What a virtual service is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Listen(Protocol, Listen),
    Mark(u32, bool),
}

fn end(word: &Word, notes: &mut Notes) -> Option<(IpAddr, Option<u16>)> {
    let text = word.text.as_str();
    let (address, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => (address, port.strip_prefix(':')),
        None => match text.rsplit_once(':') {
            Some((address, port)) if !address.contains(':') => (address, Some(port)),
            _ => (text, None),
        },
    };
    let number = |port: &str| port.parse::<u16>().ok();
    match (address.parse::<IpAddr>(), port.map(number)) {
        (Ok(address), None) => Some((address, None)),
        (Ok(address), Some(Some(port))) => Some((address, Some(port).filter(|port| *port > 0))),
        _ => {
            notes.add(word.place, format!("{text:?} is no ADDRESS:PORT in numbers: the command is left out"), SAVE);
            None
        }
    }
}

fn key(given: &Given, notes: &mut Notes) -> Option<Key> {
    for (name, protocol) in [("-t", Protocol::Tcp), ("-u", Protocol::Udp), ("--sctp-service", Protocol::Sctp)] {
        if let Some(word) = get(given, name) {
            return end(word, notes).map(|(address, port)| Key::Listen(protocol, Listen { address, port }));
        }
    }
    let mark = get(given, "-f")?.text.parse().ok()?;
    Some(Key::Mark(mark, has(given, "-6")))
}

/// Significant bits of a netmask, or of a prefix length.
pub(super) fn mask_bits(text: &str) -> Option<u8> {
    match text.parse::<std::net::Ipv4Addr>() {
        Ok(mask) => {
            let bits = mask.to_bits();
            (bits.leading_ones() + bits.trailing_zeros() == 32 || bits == 0).then(|| bits.leading_ones() as u8)
        }
        Err(_) => text.parse().ok().filter(|bits| *bits <= 128),
    }
}

/// What a bad number is called in a note.
fn number(given: &Given, name: &str, usual: u32, notes: &mut Notes) -> u32 {
    let Some(word) = get(given, name) else { return usual };
    word.text.parse().unwrap_or_else(|_| {
        notes.add(word.place, format!("{:?} is not a number", word.text), format!("{usual} is written; correct it"));
        usual
    })
}

#[derive(Default)]
struct Reader {
    virtuals: Vec<(Key, Virtual)>,
    /// Services that were left out, so that their servers are not noted one by one.
    left_out: Vec<Key>,
}

/// Reads commands.
pub(super) fn read(text: &str, notes: &mut Notes) -> Found {
    let (mut reader, mut found) = (Reader::default(), Found::default());
    for (number, line) in (1..).zip(text.lines()) {
        let words = words(line, number);
        let is_program = |word: &Word| word.text.rsplit('/').next() == Some("ipvsadm");
        let command = match words.first() {
            None => continue,
            Some(word) if is_program(word) => &words[1..],
            Some(word) if word.text == "sudo" && words.get(1).is_some_and(is_program) => &words[2..],
            Some(word) if word.text.starts_with('-') => &words[..],
            Some(word) => {
                notes.add(
                    word.place,
                    format!("{:?} is not a command of ipvsadm", word.text),
                    "write by hand what it does",
                );
                continue;
            }
        };
        if let Some((given, rest)) = options(command, notes) {
            let place = words[0].place;
            reader.command(place, &given, &rest, &mut found, notes);
        }
    }
    found.virtuals = reader.virtuals.into_iter().map(|(_, one)| one).collect();
    found
}

impl Reader {
    fn command(&mut self, place: Place, given: &Given, rest: &[Word], found: &mut Found, notes: &mut Notes) {
        let command = given.first().map_or("", |(name, ..)| name);
        match command {
            "-A" => self.add_service(place, given, notes),
            "-E" => self.edit_service(place, given, notes),
            "-D" => {
                if let Some(key) = key(given, notes) {
                    self.virtuals.retain(|(own, _)| *own != key);
                }
            }
            "-a" => self.add_server(place, given, notes),
            "-e" => self.edit_server(place, given, notes),
            "-d" => self.delete_server(given, notes),
            "-C" => self.virtuals.clear(),
            // What they print or count changes nothing.
            "-L" | "-S" | "-Z" | "-n" => {}
            "--set" => {
                let seconds =
                    |at: usize| rest.get(at).and_then(|word| word.text.parse::<u32>().ok()).filter(|s| *s > 0);
                // 0 leaves a timeout as it is.
                let of = &mut found.timeouts;
                *of = super::ipvs::Timeouts {
                    tcp: seconds(0).or(of.tcp),
                    fin: seconds(1).or(of.fin),
                    udp: seconds(2).or(of.udp),
                };
            }
            _ => notes.add(
                place,
                "a command that sets up no service",
                "state of a second gateway is shared by docs/sync.md; write by hand what else it does",
            ),
        }
    }

    fn virtual_of(&mut self, key: Key) -> Option<&mut Virtual> {
        self.virtuals.iter_mut().find(|(own, _)| *own == key).map(|(_, one)| one)
    }

    fn settings(one: &mut Virtual, place: Place, given: &Given, notes: &mut Notes) {
        one.scheduler = get(given, "-s").map_or("wlc".into(), |word| word.text.clone());
        one.scheduler_place = get(given, "-s").map_or(place, |word| word.place);
        one.flags = get(given, "-b").map_or(Vec::new(), |word| word.text.split(',').map(str::to_owned).collect());
        one.one_packet = has(given, "-o");
        let bits = get(given, "-M").and_then(|word| {
            let bits = mask_bits(&word.text);
            if bits.is_none() {
                notes.add(
                    word.place,
                    format!("{:?} is not a netmask", word.text),
                    "left out: clients count by address",
                );
            }
            bits
        });
        let all = if one.listens.first().is_some_and(|listen| listen.address.is_ipv6()) { 128 } else { 32 };
        let persistence = has(given, "-p").then(|| number(given, "-p", PERSISTENCE, notes));
        // A mask or an engine alone makes a service persistent, too.
        let implied = (has(given, "-M") || has(given, "--pe")).then_some(PERSISTENCE);
        one.persistence = persistence.or(implied).map(|seconds| (seconds, bits.filter(|bits| *bits < all)));
        if let Some(word) = get(given, "--pe") {
            let todo = "left out: clients are remembered by their address";
            notes.add(word.place, format!("persistence engine {} has no counterpart", word.text), todo);
        }
    }

    fn add_service(&mut self, place: Place, given: &Given, notes: &mut Notes) {
        let Some(key) = key(given, notes) else { return };
        let Key::Listen(protocol, listen) = key else {
            let todo =
                "list the addresses and ports that the mark stands for under `listen`, and write the service by hand";
            notes.add(place, "a service by firewall mark has no counterpart: left out with its servers", todo);
            self.left_out.push(key);
            return;
        };
        if self.virtual_of(key).is_some() {
            notes.add(place, "the service exists already: the command is left out", "ipvsadm refuses it, too");
            return;
        }
        let mut one = Virtual {
            place,
            name: None,
            listens: vec![listen],
            protocol,
            scheduler: String::new(),
            scheduler_place: place,
            flags: Vec::new(),
            persistence: None,
            one_packet: false,
            servers: Vec::new(),
            sorry: None,
        };
        Reader::settings(&mut one, place, given, notes);
        if listen.port.is_none() && one.persistence.is_none() {
            let todo = "ipvsadm refuses it, too: give it a port, or -p";
            notes.add(place, "a service without a port that is not persistent: left out", todo);
            self.left_out.push(key);
            return;
        }
        self.virtuals.push((key, one));
    }

    fn edit_service(&mut self, place: Place, given: &Given, notes: &mut Notes) {
        let Some(key) = key(given, notes) else { return };
        match self.virtual_of(key) {
            Some(one) => Reader::settings(one, place, given, notes),
            None => notes.add(place, "there is no such service", "ipvsadm refuses it, too"),
        }
    }

    fn server(&self, place: Place, given: &Given, key: Key, notes: &mut Notes) -> Option<Real> {
        let (address, port) = end(get(given, "-r")?, notes)?;
        let method = match () {
            () if has(given, "-m") => Method::Nat,
            () if has(given, "-i") => Method::Tunnel,
            () => Method::Route,
        };
        // Without NAT the port stays that of the service, whatever is given; without a port it is that of the service.
        let Key::Listen(_, listen) = key else { return None };
        let port = if method == Method::Nat { port.or(listen.port) } else { listen.port };
        Some(Real {
            place,
            address,
            port,
            weight: number(given, "-w", 1, notes),
            method,
            thresholds: (number(given, "-x", 0, notes), number(given, "-y", 0, notes)),
            keeps_on_failure: false,
            checks: Vec::new(),
        })
    }

    fn add_server(&mut self, place: Place, given: &Given, notes: &mut Notes) {
        let Some(key) = key(given, notes).filter(|key| !self.left_out.contains(key)) else { return };
        let Some(server) = self.server(place, given, key, notes) else { return };
        match self.virtual_of(key) {
            Some(one) => one.servers.push(server),
            None => notes.add(place, "there is no such service before this line", "ipvsadm refuses it, too"),
        }
    }

    fn edit_server(&mut self, place: Place, given: &Given, notes: &mut Notes) {
        let Some(key) = key(given, notes).filter(|key| !self.left_out.contains(key)) else { return };
        let Some(server) = self.server(place, given, key, notes) else { return };
        let is_same = |own: &&mut Real| (own.address, own.port) == (server.address, server.port);
        match self.virtual_of(key).and_then(|one| one.servers.iter_mut().find(is_same)) {
            Some(own) => *own = server,
            None => notes.add(place, "there is no such server", "ipvsadm refuses it, too"),
        }
    }

    fn delete_server(&mut self, given: &Given, notes: &mut Notes) {
        let Some(key) = key(given, notes) else { return };
        let Some((address, port)) = get(given, "-r").and_then(|word| end(word, notes)) else { return };
        if let Some(one) = self.virtual_of(key) {
            let port = port.or(one.listens.first().and_then(|listen| listen.port));
            one.servers.retain(|own| (own.address, own.port) != (address, port));
        }
    }
}
