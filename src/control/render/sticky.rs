//! Sticky clients as a table.

use super::columns::{Columns, Fit, Width};
use super::{count, duration};
use crate::engine::StickyRow;

/// Prints sticky clients: a header, then one line per client.
pub fn sticky_table(rows: &[StickyRow], width: Width) -> String {
    let mut columns = Columns::new(["CLIENT", "SERVER", "SERVICES", ">FLOWS", ">GIVEN", ">EXPIRES", "PROVEN"])
        .fits_by(&[Fit::Cut("SERVICES", 8), Fit::Without("GIVEN"), Fit::Cut("SERVER", 12), Fit::Without("PROVEN")]);
    for row in rows {
        columns.row([
            row.client.clone(),
            row.server_name(),
            row.services.join(" "),
            count(row.flows),
            format!("{} ago", duration(row.given_ms)),
            row.expires_in_ms.map_or("-".into(), |left| format!("in {}", duration(left))),
            if row.proven { "yes" } else { "not yet" }.into(),
        ]);
    }
    columns.into_text(width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_shows_its_server_and_how_long_it_stays() {
        let busy = StickyRow {
            services: vec!["web".into(), "web-tls".into()],
            client: "198.51.100.9".into(),
            pool: "farm".into(),
            server: "a".into(),
            proven: true,
            flows: 2,
            given_ms: 65_000,
            expires_in_ms: None,
        };
        let idle = StickyRow {
            client: "2001:db8::/56".into(),
            proven: false,
            flows: 0,
            expires_in_ms: Some(9_000),
            ..busy.clone()
        };
        let want = "\
CLIENT         SERVER  SERVICES     FLOWS      GIVEN  EXPIRES  PROVEN
198.51.100.9   farm/a  web web-tls      2  1m05s ago        -  yes
2001:db8::/56  farm/a  web web-tls      0  1m05s ago  in 9.0s  not yet
";
        assert_eq!(sticky_table(&[busy, idle], Width::Most(80)), want);
    }
}
