//! A takeover: another process takes the place of the running gateway, with its device, its sockets and its flows.
//!
//! ```text
//!  the one that takes over (taker)                        the one that hands over (giver)
//!  HELLO: versions, device ...             ---------->    may it?
//!                                          <----------    OFFER: seed, changes; device, sockets
//!  BPF programs, rules, memory
//!  BEGIN                                   ---------->
//!                                          <----------    STATE ... PASS: everything, while packets go on
//!  READY                                   ---------->    STATE ... PASS: what changed, until it is little
//!                                                         -- no packet from here on --
//!                                          <----------    STATE ... LAST
//!  COMMIT                                  ---------->
//!                                          <----------    YOURS
//!  -- packets from here on --
//!  SERVING                                 ---------->    ends, and leaves everything as it is
//! ```
//!
//! Until YOURS the giver carries on if anything fails or takes too long, and says why (REFUSED); after it, if the taker ends
//! before SERVING. The taker serves if the giver's process ends without a word, with as much as it has read; whether it has
//! ended, it sees from a pipe. So there is always one of them that serves, and never both: the giver decides alone, and the
//! taker sees in the order of the bytes what it decided.
//!
//! Nothing of the network is closed on the way: the device is open in both processes, and its routes stay.

mod frames;
mod giver;
pub mod kept;
mod leftovers;
pub(super) mod passing;
mod start;
mod taker;

pub(super) use giver::{Giver, Handing, OfferOf};
pub(super) use leftovers::Leftovers;
pub use taker::Taker;
pub(super) use taker::{Ended, Taken};

use crate::config::GatewaySettings;
use crate::control::Ledger;
use crate::engine::STATE_VERSION;
use crate::time::{Duration, Instant};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// How long one side waits for the other before the last packet.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long no packet is handled, at most, before the giver carries on.
const STANDSTILL: Duration = Duration::from_secs(1);

/// Returns where a gateway with this control socket hands over.
pub fn socket(control_socket: &Path) -> PathBuf {
    let mut path = control_socket.as_os_str().to_owned();
    path.push(".takeover");
    path.into()
}

/// Who takes over. What both must agree on is compared before anything moves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Hello {
    /// Of the protocol.
    protocol: u32,
    /// Of the records of a state.
    state: u64,
    /// Of the program.
    program: String,
    pid: u32,
    fixed: Fixed,
    /// Whether it can use the keys of replies of another gateway.
    #[serde(default)]
    uses_keys: bool,
}

/// Settings that are those of the device, the sockets and the rules that are taken over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Fixed {
    device: String,
    offload: bool,
    route_table: u32,
    rule_priority: u32,
}

impl Fixed {
    fn of(gateway: &GatewaySettings) -> Fixed {
        Fixed {
            device: gateway.device.clone(),
            offload: gateway.offload,
            route_table: gateway.route_table,
            rule_priority: gateway.rule_priority,
        }
    }

    /// Returns the key that differs, with both values.
    fn difference(&self, other: &Fixed) -> Option<String> {
        let pairs = [
            ("device", self.device.clone(), other.device.clone()),
            ("offload", self.offload.to_string(), other.offload.to_string()),
            ("route-table", self.route_table.to_string(), other.route_table.to_string()),
            ("rule-priority", self.rule_priority.to_string(), other.rule_priority.to_string()),
        ];
        let differs = pairs.into_iter().find(|(_, own, other)| own != other);
        differs.map(|(key, own, other)| format!("gateway.{key} is {own} there and {other} here"))
    }
}

impl Hello {
    fn new(gateway: &GatewaySettings) -> Hello {
        Hello {
            protocol: frames::VERSION,
            state: STATE_VERSION,
            program: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            fixed: Fixed::of(gateway),
            uses_keys: true,
        }
    }

    /// Returns why a gateway that says this cannot take the place of one with these settings.
    fn unfit(&self, gateway: &GatewaySettings) -> Option<String> {
        let own = Hello::new(gateway);
        let versions = [
            ("the protocol of a takeover", u64::from(own.protocol), u64::from(self.protocol)),
            ("the records of a state", own.state, self.state),
        ];
        if let Some((what, own_version, other)) = versions.into_iter().find(|(_, own, other)| own != other) {
            return Some(format!(
                "version {} has version {own_version} of {what}, and version {} has version {other}: restart instead",
                own.program, self.program
            ));
        }
        own.fixed.difference(&self.fixed).map(|text| format!("{text}, which needs a restart"))
    }
}

/// What is handed over besides the copy of the state. The descriptors come along: control socket, socket of takeovers,
/// queues of the device, the keys of replies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Who hands over.
    hello: Hello,
    /// The seed of its decisions.
    pub seed: u64,
    /// What operators changed.
    changes: Changes,
    /// Servers from outside, as a state file has them.
    found: String,
    /// What has flows, in case that it is configured no longer.
    #[serde(default)]
    leftovers: Leftovers,
    /// Whether it has made the directory of the control socket.
    made: bool,
    /// The value that `proxy_ndp` of interfaces had before.
    proxying: Vec<(String, String)>,
    /// Its role, if it is one of a pair.
    #[serde(default)]
    role: Option<String>,
    /// Whether the last descriptor is the map of the keys of replies, in which every flow has its key.
    #[serde(default)]
    keys: bool,
    /// The time since boot, in nanoseconds, until which it looks for connections of the gateway before it.
    #[serde(default)]
    young_until: Option<u64>,
}

impl Offer {
    fn new(of: OfferOf, (made, keys): (bool, bool), hello: Hello) -> Offer {
        let OfferOf { seed, found, leftovers, proxying, changes, role, youth } = of;
        let left = |youth: Duration| u64::try_from(youth.as_nanos()).unwrap_or(u64::MAX);
        let young_until = youth.map(|youth| nanos_since_boot().saturating_add(left(youth)));
        Offer { hello, seed, changes, found, leftovers, made, proxying, role, keys, young_until }
    }

    /// Returns until when connections of the gateway before the one that hands over are looked for, on the clock of the loop,
    /// which shows `now`.
    fn young_until(&self, now: Instant) -> Option<Instant> {
        let left = self.young_until?.checked_sub(nanos_since_boot()).filter(|left| *left > 0)?;
        Some(now + Duration::from_nanos(left))
    }

    /// Names the gateway that hands over.
    pub fn who(&self) -> String {
        format!("process {}, version {}", self.hello.pid, self.hello.program)
    }
}

/// What operators changed at run time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Changes {
    /// As the ledger writes it.
    text: String,
    /// The time that it tells times from, in nanoseconds since boot.
    at: u64,
    /// Another number whenever they have become others.
    edits: u64,
    /// Whether a signal has asked for a reload that has not begun.
    #[serde(default)]
    is_reload_asked: bool,
}

impl Changes {
    /// Returns those of a ledger.
    pub(super) fn of(ledger: &Ledger, now: Instant) -> Changes {
        let text = String::from_utf8(ledger.copy().write(now)).unwrap_or_default();
        Changes { text, at: nanos_since_boot(), edits: ledger.edits(), is_reload_asked: false }
    }
}

/// Returns the time on the clock of the loop, which shows `now`, that was so many nanoseconds after the machine's boot.
fn on_the_clock(at: u64, now: Instant) -> Instant {
    Instant::from_nanos(now.as_nanos().saturating_sub(nanos_since_boot().saturating_sub(at)))
}

/// The time since boot, with the time asleep.
fn nanos_since_boot() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_taken_over_is_said_before_anything_moves() {
        let gateway = GatewaySettings::default();
        let hello = Hello::new(&gateway);
        assert_eq!(hello.unfit(&gateway), None);
        let other = |change: &dyn Fn(&mut Hello)| {
            let mut hello = hello.clone();
            hello.program = "9.9".into();
            change(&mut hello);
            hello.unfit(&gateway).unwrap()
        };
        let text = other(&|hello| hello.state = 7);
        assert!(text.contains("of the records of a state, and version 9.9 has version 7: restart"), "{text}");
        let text = other(&|hello| hello.protocol = 3);
        assert!(text.contains("of the protocol of a takeover, and version 9.9 has version 3:"), "{text}");
        let text = other(&|hello| hello.fixed.route_table = 1);
        assert!(text.contains("gateway.route-table is ") && text.contains("1 here"), "{text}");
        // Fields that a later version adds are skipped.
        let mut value = serde_json::to_value(&hello).unwrap();
        value["more"] = 1.into();
        assert_eq!(serde_json::from_value::<Hello>(value).unwrap(), hello);
    }

    #[test]
    fn the_socket_is_beside_the_control_socket() {
        assert_eq!(socket(Path::new("/run/eq/control.sock")), Path::new("/run/eq/control.sock.takeover"));
    }
}
