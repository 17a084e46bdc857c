//! Counts of values by size: what metrics call a histogram. Plain numbers, so that adding a value costs nanoseconds.
//!
//! It must not know what is counted.

/// Most bounds of a histogram.
const MOST: usize = 17;

/// How many values were at most as large as each of some bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {
    bounds: &'static [u64],
    /// One per bound, and one for what is larger than all of them.
    counts: [u64; MOST + 1],
    sum: u64,
}

impl Histogram {
    /// Makes an empty one; the bounds ascend, and there are at most 17.
    pub const fn new(bounds: &'static [u64]) -> Histogram {
        assert!(bounds.len() <= MOST, "too many bounds");
        Histogram { bounds, counts: [0; MOST + 1], sum: 0 }
    }

    /// Adds a value.
    #[inline]
    pub fn add(&mut self, value: u64) {
        self.counts[self.bounds.partition_point(|bound| *bound < value)] += 1;
        self.sum = self.sum.saturating_add(value);
    }

    /// Returns each bound with the number of values above the bound before it and not above it.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        self.bounds.iter().copied().zip(self.counts)
    }

    /// Returns the number of values.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns their sum.
    pub fn sum(&self) -> u64 {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_own_bucket() {
        let mut histogram = Histogram::new(&[1, 10, 100]);
        for value in [0, 1, 2, 10, 11, 100, 101, u64::MAX] {
            histogram.add(value);
        }
        assert_eq!(histogram.buckets().collect::<Vec<_>>(), [(1, 2), (10, 2), (100, 2)]);
        assert_eq!((histogram.count(), histogram.sum()), (8, u64::MAX));
        assert_eq!((Histogram::new(&[]).count(), Histogram::new(&[5]).sum()), (0, 0));
    }
}
