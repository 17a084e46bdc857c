//! Smooth weighted round robin: in every run of as many picks as the weights add up to, each
//! server gets its weight, and heavy servers do not get theirs in a row (the algorithm of nginx).

/// How far each server of a pool is behind what it should have had.
#[derive(Debug)]
pub(super) struct RoundRobin {
    credit: Vec<i64>,
}

impl RoundRobin {
    pub fn new(servers: usize) -> Self {
        RoundRobin { credit: vec![0; servers] }
    }

    /// Picks the place of a server; a weight of zero is no candidate.
    pub fn pick(&mut self, weight: impl Fn(usize) -> u32) -> Option<usize> {
        let (mut total, mut best) = (0, None);
        for (place, credit) in self.credit.iter_mut().enumerate() {
            let weight = i64::from(weight(place));
            if weight == 0 {
                continue;
            }
            *credit += weight;
            total += weight;
            if best.is_none_or(|(_, most)| *credit > most) {
                best = Some((place, *credit));
            }
        }
        let (place, _) = best?;
        self.credit[place] -= total;
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_follow_the_weights_without_runs() {
        let cases: &[(&[u32], &str)] = &[
            (&[1, 1, 1], "012012"),
            (&[5, 1, 1], "0010200"), // the example of nginx's commit message
            (&[3, 2, 1], "010210"),
            (&[0, 2, 0], "11"),
            (&[0], "-"),
            (&[], "-"),
        ];
        for (weights, want) in cases {
            let mut robin = RoundRobin::new(weights.len());
            let picks: String =
                (0..want.len()).map(|_| robin.pick(|i| weights[i]).map_or('-', |i| (b'0' + i as u8) as char)).collect();
            assert_eq!(picks, *want, "{weights:?}");
        }
    }

    #[test]
    fn every_full_round_gives_exactly_the_weights() {
        let weights = [7, 1, 65_535, 300];
        let mut robin = RoundRobin::new(4);
        let mut got = [0; 4];
        for _ in 0..weights.iter().sum::<u32>() {
            got[robin.pick(|i| weights[i]).unwrap()] += 1;
        }
        assert_eq!(got, weights);
    }
}
