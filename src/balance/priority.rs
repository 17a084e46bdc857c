//! Which servers may be picked at all: strict groups. Backups rank after all others; with the algorithm `priority`,
//! servers of the lowest rank come first, and the next rank serves only when no server of the previous one is usable.

use super::settings::{Algorithm, ServerSettings};

/// A server's group: the lowest group with a usable server serves.
pub(super) fn group(algorithm: Algorithm, server: &ServerSettings) -> (bool, u16) {
    let rank = if algorithm == Algorithm::Priority { server.priority } else { 0 };
    (server.backup, rank)
}

/// Sets the weights of all servers to zero except those of the lowest group that has a weight.
pub(super) fn keep_first_group(weights: &mut [u32], group: impl Fn(usize) -> (bool, u16)) {
    let usable = weights.iter().enumerate().filter(|(_, weight)| **weight > 0);
    let Some(first) = usable.map(|(place, _)| group(place)).min() else { return };
    for (place, weight) in weights.iter_mut().enumerate() {
        if group(place) != first {
            *weight = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::PoolId;

    #[test]
    fn only_the_first_group_with_a_usable_server_serves() {
        let server = |priority, backup| ServerSettings { priority, backup, ..ServerSettings::new("s", PoolId(0)) };
        let servers = [server(2, false), server(1, false), server(1, true), server(2, false), server(5, true)];
        let cases: &[(Algorithm, [u32; 5], [u32; 5])] = &[
            (Algorithm::Priority, [1, 1, 1, 1, 1], [0, 1, 0, 0, 0]),
            (Algorithm::Priority, [1, 0, 1, 1, 1], [1, 0, 0, 1, 0]),
            (Algorithm::Priority, [0, 0, 1, 0, 1], [0, 0, 1, 0, 0]),
            (Algorithm::RoundRobin, [1, 1, 1, 1, 1], [1, 1, 0, 1, 0]),
            (Algorithm::RoundRobin, [0, 0, 3, 0, 4], [0, 0, 3, 0, 4]),
            (Algorithm::RoundRobin, [0; 5], [0; 5]),
        ];
        for (algorithm, weights, want) in cases {
            let mut got = *weights;
            keep_first_group(&mut got, |place| group(*algorithm, &servers[place]));
            assert_eq!(got, *want, "{algorithm:?} {weights:?}");
        }
    }
}
