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
