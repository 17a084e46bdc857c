//! What the clients saw: counts per server, failures, latencies. It must not know sockets or threads.

use std::collections::BTreeMap;
use std::time::Duration;

/// How many latencies are kept: the most recent ones.
const LATENCIES: usize = 200_000;
/// How many failures are kept in words.
const TOLD: usize = 5;

/// The accounts of all clients together.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    /// Responses by the name of the server that sent them.
    pub by_server: BTreeMap<String, u64>,
    /// Responses over IPv4 and IPv6.
    pub by_family: [u64; 2],
    /// Requests without a correct response.
    pub failed: u64,
    /// The first few failures.
    pub failures: Vec<String>,
    latencies: Vec<Duration>,
}

impl Tally {
    /// Records a correct response.
    pub(super) fn answer(&mut self, server: &str, v6: bool, latency: Duration) {
        let answered = usize::try_from(self.answered()).unwrap_or(0);
        match self.by_server.get_mut(server) {
            Some(count) => *count += 1,
            None => drop(self.by_server.insert(server.into(), 1)),
        }
        self.by_family[usize::from(v6)] += 1;
        if self.latencies.len() < LATENCIES {
            self.latencies.push(latency);
        } else {
            self.latencies[answered % LATENCIES] = latency;
        }
    }

    /// Records a request without a correct response.
    pub(super) fn failure(&mut self, why: String) {
        self.failed += 1;
        if self.failures.len() < TOLD {
            self.failures.push(why);
        }
    }

    /// Returns the number of correct responses.
    pub(super) fn answered(&self) -> u64 {
        self.by_family.iter().sum()
    }

    /// Returns the latencies that the given shares of the requests did not exceed, in the order asked.
    pub(super) fn percentiles<const N: usize>(&self, shares: [f64; N]) -> [Duration; N] {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        shares.map(|share| {
            let last = sorted.len().saturating_sub(1);
            let at = (share * sorted.len() as f64).ceil() as usize;
            sorted.get(at.saturating_sub(1).min(last)).copied().unwrap_or_default()
        })
    }

    /// Returns the servers whose number of responses deviates by more than 2 % from their weight's share, and by more
    /// than one request, which no distribution of whole requests can avoid; `servers` are names and weights.
    pub(super) fn uneven(&self, servers: &[(String, u16)]) -> Vec<String> {
        let all: u64 = servers.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let mut uneven = Vec::new();
        for (name, weight) in servers {
            let want = self.answered() as f64 * f64::from(*weight) / all as f64;
            let got = self.by_server.get(name).copied().unwrap_or(0);
            if (got as f64 - want).abs() > (want * 0.02).max(if *weight == 0 { 0.0 } else { 1.0 }) {
                uneven.push(format!(
                    "{name} answered {got} requests; its weight's share is {want:.1}, and 2 % are allowed"
                ));
            }
        }
        uneven
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(counts: &[(&str, u64)]) -> Tally {
        let mut tally = Tally::default();
        for (name, count) in counts {
            (0..*count).for_each(|i| tally.answer(name, i % 2 == 1, Duration::from_millis(i + 1)));
        }
        tally
    }

    #[test]
    fn evenness_is_two_percent_of_the_weights_share() {
        let servers =
            |weights: [u16; 3]| ["a", "b", "c"].map(String::from).into_iter().zip(weights).collect::<Vec<_>>();
        type Case<'a> = (&'a [(&'a str, u64)], [u16; 3], usize);
        let cases: &[Case<'_>] = &[
            (&[("a", 1000), ("b", 1000), ("c", 1000)], [1, 1, 1], 0),
            (&[("a", 1019), ("b", 981), ("c", 1000)], [1, 1, 1], 0),
            (&[("a", 1021), ("b", 979), ("c", 1000)], [1, 1, 1], 2),
            (&[("a", 1500), ("b", 1500)], [1, 1, 1], 3),
            (&[("a", 1500), ("b", 1000), ("c", 500)], [3, 2, 1], 0),
            (&[("a", 4), ("b", 3), ("c", 3)], [1, 1, 1], 0),
            (&[("a", 50), ("b", 50), ("c", 1)], [1, 1, 0], 1),
            (&[], [1, 1, 1], 0),
        ];
        for (counts, weights, wrong) in cases {
            assert_eq!(tally(counts).uneven(&servers(*weights)).len(), *wrong, "{counts:?} {weights:?}");
        }
    }

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let ms = Duration::from_millis;
        assert_eq!(tally(&[("a", 100)]).percentiles([0.5, 0.99, 1.0]), [ms(50), ms(99), ms(100)]);
        assert_eq!(tally(&[("a", 1)]).percentiles([0.5, 1.0]), [ms(1), ms(1)]);
        assert_eq!(Tally::default().percentiles([0.5]), [Duration::ZERO]);
    }
}
