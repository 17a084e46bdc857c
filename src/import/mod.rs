//! Configurations of other balancers: text in, a configuration of Equipoise and a list of what it lacks out.
//!
//! ```text
//!  ipvsadm.rs     commands, as `ipvsadm-save` writes them ---.
//!                                                             }--> ipvs.rs: what IPVS would do --> write.rs: TOML
//!  keepalived/    virtual servers, real servers, checks ------'         `----------> notes: what that cannot be here
//! ```
//!
//! What is written means what the source program means, its defaults included; whatever cannot is a [`Note`], with its
//! place and what to do about it. Facts about the programs are those that they report themselves: the tests compare with
//! what keepalived 2.2.7, ipvsadm 1.31 and the kernel said about the same files (fixtures/import). It must not know files.

mod ipvs;
mod ipvsadm;
mod keepalived;
mod write;

use std::fmt;
use std::net::IpAddr;

/// A program whose configurations can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// ipvsadm: what `ipvsadm-save -n` prints, or a script of its commands.
    Ipvsadm,
    /// keepalived: keepalived.conf.
    Keepalived,
}

/// How to import.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The source addresses of probes, one per family.
    pub probe_addresses: Vec<IpAddr>,
    /// Whether servers that are reached by direct routing or a tunnel are imported as if they were reached by NAT.
    pub assume_nat: bool,
}

/// A place in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Place {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

/// Something that is not in the configuration, or that means something else there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Where it stands.
    pub place: Place,
    /// What it is.
    pub what: String,
    /// What to do about it.
    pub todo: String,
}

/// One line, without the name of the file.
impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.place.line, self.place.column, self.what, self.todo)
    }
}

/// The result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The configuration.
    pub text: String,
    /// What it lacks, in the order of the file.
    pub notes: Vec<Note>,
    /// Number of services in the configuration.
    pub services: usize,
    /// Number of servers in it.
    pub servers: usize,
}

/// Collects notes.
#[derive(Debug, Default)]
struct Notes(Vec<Note>);

impl Notes {
    fn add(&mut self, place: Place, what: impl Into<String>, todo: impl Into<String>) {
        let printable = |text: String| text.replace(char::is_control, "?");
        let note = Note { place, what: printable(what.into()), todo: printable(todo.into()) };
        // Groups lead to the same line more than once.
        if !self.0.contains(&note) {
            self.0.push(note);
        }
    }
}

/// Reads a configuration of another program; `origin` is its name, for the head of the text.
pub fn import(from: From, text: &str, origin: &str, options: &Options) -> Imported {
    let mut notes = Notes::default();
    let found = match from {
        From::Ipvsadm => ipvsadm::read(text, &mut notes),
        From::Keepalived => keepalived::read(text, &mut notes),
    };
    let plan = ipvs::plan(found, options, &mut notes);
    let (text, services, servers) = write::write(&plan, origin, options);
    notes.0.sort_by_key(|note| note.place);
    Imported { text, notes: notes.0, services, servers }
}
