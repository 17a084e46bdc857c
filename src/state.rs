//! The health of a server, in the one form that probes, balancing and tables share.
//!
//! It must not know what found it out, nor what follows from it.

use serde::{Deserialize, Serialize};

/// Whether a server, one of its addresses or one of its ports is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// It replies as it should, or nothing monitors it.
    #[default]
    Up,
    /// No verdict yet: it gets no new flows.
    Unknown,
    /// It does not reply as it should.
    Down,
}

impl Health {
    /// The word used in tables and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Health::Up => "up",
            Health::Unknown => "unknown",
            Health::Down => "down",
        }
    }

    /// Returns [`Health::Up`] for true and [`Health::Down`] for false.
    pub const fn from_up(up: bool) -> Self {
        if up { Health::Up } else { Health::Down }
    }

    /// The worst of several: down, else unknown, else up. Up if there are none.
    pub fn worst(all: impl IntoIterator<Item = Health>) -> Self {
        all.into_iter().max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn down_is_worse_than_unknown_and_unknown_is_worse_than_up() {
        use Health::{Down, Unknown, Up};
        for (all, worst) in [
            (&[][..], Up),
            (&[Up, Up], Up),
            (&[Up, Unknown], Unknown),
            (&[Down, Unknown, Up], Down),
            (&[Unknown, Down], Down),
        ] {
            assert_eq!(Health::worst(all.iter().copied()), worst, "{all:?}");
        }
    }

    #[test]
    fn the_name_is_also_the_word_in_json() {
        for health in [Health::Up, Health::Unknown, Health::Down] {
            assert_eq!(serde_json::to_value(health).unwrap(), health.name());
        }
    }
}
