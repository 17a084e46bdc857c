//! Families of metrics, one call each.

use crate::control::Histogram;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use std::fmt;

/// The values of labels, and a figure.
pub(super) type Row<'r, const N: usize, V> = ([&'r str; N], V);

/// Writes families.
pub(super) struct Out<'e>(DescriptorEncoder<'e>);

impl<'e> Out<'e> {
    pub(super) fn new(encoder: DescriptorEncoder<'e>) -> Out<'e> {
        Out(encoder)
    }

    /// Writes the name, type and help of a family, then what `rows` writes. A unit is the last word of its name.
    fn family(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        rows: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        let units = [("_seconds", Unit::Seconds), ("_bytes", Unit::Bytes)];
        let unit = units.into_iter().find_map(|(end, unit)| Some((name.strip_suffix(end)?, unit)));
        let (name, unit) = unit.map_or((name, None), |(name, unit)| (name, Some(unit)));
        rows(&mut self.0.encode_descriptor(name, help, unit.as_ref(), kind)?)
    }

    /// Writes a counter, whose name is given without `_total`.
    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.family(name, help, MetricType::Counter, |encoder| {
            encoder.encode_counter::<NoLabelSet, _, u64>(&value, None)
        })
    }

    /// Writes a counter of seconds.
    pub(super) fn seconds(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.family(name, help, MetricType::Counter, |encoder| {
            encoder.encode_counter::<NoLabelSet, _, u64>(&value, None)
        })
    }

    /// Writes counters with labels.
    pub(super) fn counters<'r, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&'static str; N],
        rows: impl IntoIterator<Item = Row<'r, N, u64>>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Counter, |encoder| {
            rows.into_iter().try_for_each(|(values, value)| {
                let labels = pairs(labels, values);
                encoder.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)
            })
        })
    }

    /// Writes a gauge.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.family(name, help, MetricType::Gauge, |encoder| encoder.encode_gauge(&value))
    }

    /// Writes gauges with labels.
    pub(super) fn gauges<'r, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&'static str; N],
        rows: impl IntoIterator<Item = Row<'r, N, f64>>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Gauge, |encoder| {
            rows.into_iter()
                .try_for_each(|(values, value)| encoder.encode_family(&pairs(labels, values))?.encode_gauge(&value))
        })
    }

    /// Writes what is always 1 and has its facts in labels; the name is given without `_info`.
    pub(super) fn info<'r, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&'static str; N],
        rows: impl IntoIterator<Item = [&'r str; N]>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Info, |encoder| {
            rows.into_iter().try_for_each(|values| encoder.encode_info(&pairs(labels, values)))
        })
    }

    /// Writes histograms with labels; values and bounds are multiplied by `unit`.
    pub(super) fn histograms<'r, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        unit: f64,
        labels: [&'static str; N],
        rows: impl IntoIterator<Item = Row<'r, N, &'r Histogram>>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Histogram, |encoder| {
            rows.into_iter().try_for_each(|(values, histogram)| {
                let labels = pairs(labels, values);
                let scaled = |value: u64| value as f64 * unit;
                let mut buckets: Vec<(f64, u64)> =
                    histogram.buckets().map(|(bound, count)| (scaled(bound), count)).collect();
                let within: u64 = buckets.iter().map(|(_, count)| count).sum();
                buckets.push((f64::INFINITY, histogram.count() - within));
                encoder.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
                    scaled(histogram.sum()),
                    histogram.count(),
                    &buckets,
                    None,
                )
            })
        })
    }
}

fn pairs<'r, const N: usize>(labels: [&'static str; N], values: [&'r str; N]) -> [(&'static str, &'r str); N] {
    std::array::from_fn(|place| (labels[place], values[place]))
}
