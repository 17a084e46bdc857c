//! Figures with their units. Integer arithmetic only, always rounded down, so that no figure reaches the next unit:
//! 1023.9 KiB, 59.9s.

/// Formats a size: `17 B`, `1.4 KiB`, `2.0 GiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let power = bytes.ilog2() / 10;
    let tenths = (u128::from(bytes) * 10) >> (10 * power);
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[power as usize - 1])
}

/// Formats a rate in bytes per second as bits per second, with decimal units as links have them: `740 bit/s`, `1.2 Mbit/s`.
pub fn rate(bytes_per_second: f64) -> String {
    const UNITS: [&str; 4] = ["kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"];
    let bits = bytes_per_second * 8.0;
    if bits < 1000.0 {
        return format!("{bits:.0} bit/s");
    }
    let (mut value, mut unit) = (bits / 1000.0, 0);
    // What would be rounded to the next unit is written in it.
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Formats a number per second: `0`, `3.5`, `1,204`.
pub(super) fn per_second(number: f64) -> String {
    if number == 0.0 || number >= 9.95 { count(number.round() as u64) } else { format!("{number:.1}") }
}

/// Formats how far something is, in one line: `120,000 of 1,000,000 flows (12.0 %), 350,000/s, 2.5s left`.
pub fn progress(done: u64, total: Option<u64>, what: &str, elapsed_ms: u64) -> String {
    let rate = (u128::from(done) * 1000).checked_div(u128::from(elapsed_ms)).unwrap_or(0);
    let rate = u64::try_from(rate).unwrap_or(u64::MAX);
    let Some(total) = total.filter(|total| *total >= done) else {
        return format!("{} {what}, {}/s", count(done), count(rate));
    };
    let left = (u128::from(total - done) * u128::from(elapsed_ms)).checked_div(u128::from(done));
    let left = left.map_or(String::new(), |ms| format!(", {} left", duration(u64::try_from(ms).unwrap_or(u64::MAX))));
    format!("{} of {} {what} ({}), {}/s{left}", count(done), count(total), percent(done, total), count(rate))
}

/// Formats a count with a separator for thousands: `1,234,567`.
pub fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Formats a span of time in milliseconds: `3.2s`, `4m05s`, `1h02m`, `12d07h`.
pub fn duration(ms: u64) -> String {
    let s = ms / 1000;
    match s {
        0..60 => format!("{s}.{}s", ms % 1000 / 100),
        60..3600 => format!("{}m{:02}s", s / 60, s % 60),
        3600..86_400 => format!("{}h{:02}m", s / 3600, s / 60 % 60),
        _ => format!("{}d{:02}h", s / 86_400, s / 3600 % 24),
    }
}

/// Formats a share of a whole: `12.3 %`.
pub(super) fn percent(part: u64, whole: u64) -> String {
    let tenths = (u128::from(part) * 1000).checked_div(u128::from(whole)).unwrap_or(0);
    format!("{}.{} %", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1024 * 1024 - 1, "1023.9 KiB"),
            (1024 * 1024, "1.0 MiB"),
            (u64::MAX, "15.9 EiB"),
        ];
        for (value, want) in cases {
            assert_eq!(bytes(value), want);
        }
    }

    #[test]
    fn rates_have_decimal_units() {
        for (value, want) in [
            (0.0, "0 bit/s"),
            (124.0, "992 bit/s"),
            (125.0, "1.0 kbit/s"),
            (124_990.0, "999.9 kbit/s"),
            (124_999.0, "1.0 Mbit/s"),
            (1.5e9, "12.0 Gbit/s"),
        ] {
            assert_eq!(rate(value), want);
        }
        assert_eq!([0.0, 0.04, 3.46, 9.96, 1204.4].map(per_second), ["0", "0.0", "3.5", "10", "1,204"]);
    }

    #[test]
    fn progress_shows_rate_and_remaining_time() {
        let want = "120,000 of 1,000,000 flows (12.0 %), 350,877/s, 2.5s left";
        assert_eq!(progress(120_000, Some(1_000_000), "flows", 342), want);
        assert_eq!(progress(5, None, "flows", 1000), "5 flows, 5/s");
        assert_eq!(progress(0, Some(9), "flows", 0), "0 of 9 flows (0.0 %), 0/s");
        assert_eq!(progress(10, Some(9), "flows", 1000), "10 flows, 10/s", "more than there were at first");
    }

    #[test]
    fn thousands_are_separated() {
        for (value, want) in
            [(0, "0"), (999, "999"), (1000, "1,000"), (262_144, "262,144"), (u64::MAX, "18,446,744,073,709,551,615")]
        {
            assert_eq!(count(value), want);
        }
    }

    #[test]
    fn spans_show_two_units_and_round_down() {
        for (value, want) in [
            (0, "0.0s"),
            (3_250, "3.2s"),
            (59_999, "59.9s"),
            (60_000, "1m00s"),
            (245_000, "4m05s"),
            (3_599_999, "59m59s"),
            (3_720_000, "1h02m"),
            (86_400_000, "1d00h"),
            (1_062_000_000, "12d07h"),
        ] {
            assert_eq!(duration(value), want);
        }
    }

    #[test]
    fn a_share_of_nothing_is_nothing() {
        for (part, whole, want) in [(0, 0, "0.0 %"), (1, 3, "33.3 %"), (u64::MAX, u64::MAX, "100.0 %")] {
            assert_eq!(percent(part, whole), want);
        }
    }
}
