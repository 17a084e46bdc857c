//! The two formats, and which one a client wants.

use prometheus_client::encoding::prometheus_text;

/// How metrics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// The text format of Prometheus, version 0.0.4.
    Text,
    /// The text format of OpenMetrics, version 1.0.0.
    OpenMetrics,
}

impl Format {
    /// Returns the one that an `Accept` header prefers (RFC 9110, 12.5.1); the older one for whoever does not know the newer.
    pub fn accepted(accept: Option<&str>) -> Format {
        let (mut newer, mut older) = (0, 0);
        for range in accept.unwrap_or_default().split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default().to_ascii_lowercase();
            let (mut quality, mut version) = (1000, None);
            for (key, value) in parts.filter_map(|part| part.split_once('=')) {
                match key.trim().to_ascii_lowercase().as_str() {
                    "q" => quality = thousandths(value.trim()),
                    "version" => version = Some(value.trim().trim_matches('"')),
                    _ => {}
                }
            }
            match (media.as_str(), version) {
                ("application/openmetrics-text", None | Some("1.0.0")) => newer = quality.max(newer),
                ("text/plain", None | Some("0.0.4")) => older = quality.max(older),
                _ => {}
            }
        }
        if newer > 0 && newer >= older { Format::OpenMetrics } else { Format::Text }
    }

    /// Returns the `Content-Type`.
    pub const fn content_type(self) -> &'static str {
        match self {
            Format::Text => prometheus_text::CONTENT_TYPE,
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Reads a quality: 0 to 1 with up to three decimals. What cannot be read is 0.
fn thousandths(text: &str) -> u32 {
    let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
    let digits = format!("{rest:0<3}");
    let is_number = !whole.is_empty() && digits.len() == 3 && digits.bytes().all(|byte| byte.is_ascii_digit());
    match (whole, is_number) {
        ("1", true) => 1000,
        ("0", true) => digits.parse().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_that_which_the_client_prefers() {
        use Format::{OpenMetrics, Text};
        for (accept, want) in [
            (None, Text),
            (Some("*/*"), Text),
            (Some("text/plain"), Text),
            // Prometheus 2.42 and 3.0.
            (
                Some(
                    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                     text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                ),
                OpenMetrics,
            ),
            (
                Some(
                    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.5",
                ),
                OpenMetrics,
            ),
            (Some("application/openmetrics-text; version=\"1.0.0\""), OpenMetrics),
            (Some("application/openmetrics-text;version=0.0.1"), Text),
            (Some("application/openmetrics-text;q=0"), Text),
            (Some("application/openmetrics-text;q=0.4, text/plain;q=0.5"), Text),
            (Some("application/openmetrics-text;q=x"), Text),
            (Some(",;=,"), Text),
        ] {
            assert_eq!(Format::accepted(accept), want, "{accept:?}");
        }
    }
}
