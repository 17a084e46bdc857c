//! The table `[http]`: each value read and checked by itself.

use crate::config::fields::Fields;
use crate::config::keys;
use crate::config::problem::Draft;
use crate::config::settings::HttpSettings;
use crate::config::values;
use crate::config::words::quoted;
use std::net::SocketAddr;
use toml::de::DeTable;

/// Most names.
const MOST: usize = 16;
/// Longest name in bytes (RFC 1035, section 2.3.4).
const LONGEST: usize = 253;

/// Reads `[http]`.
pub(crate) fn http(top: &mut Fields<'_, '_>) -> HttpSettings {
    let empty = DeTable::new();
    let (table, span) = top.table(&keys::HTTP).unwrap_or((&empty, 0..0));
    let mut fields = Fields::new(table, span, &keys::HTTP, top.drafts);
    let remote = fields.flag_or_default("remote");
    HttpSettings { listen: listen(&mut fields, remote), remote, names: names(&mut fields) }
}

fn listen(fields: &mut Fields<'_, '_>, remote: bool) -> Option<SocketAddr> {
    let form = "listen = \"127.0.0.1:9480\"";
    let text = values::text(fields, "listen", form)?;
    let (title, help) = match text.get_ref().parse::<SocketAddr>() {
        Err(_) => {
            let title = format!("{} is not an address with a port", quoted(text.get_ref()));
            (title, format!("write `{form}` or \"[::1]:9480\""))
        }
        Ok(at) if at.port() == 0 => ("`listen` has no port".into(), "use a port from 1024 to 65535".into()),
        Ok(at) if at.port() < 1024 => (
            format!("port {} is reserved", at.port()),
            "the gateway gives up the right to use ports below 1024: use another".into(),
        ),
        Ok(at) if at.ip().is_multicast() => {
            (format!("{} cannot be listened on", at.ip()), format!("use an address of this machine: `{form}`"))
        }
        Ok(at) if !remote && !at.ip().to_canonical().is_loopback() => {
            let title = format!("other machines can reach {}", at.ip());
            let help = "whoever reaches it sees services, servers and clients: use 127.0.0.1 or [::1], or allow it with \
                        `remote = true` where a firewall decides who does";
            (title, help.into())
        }
        Ok(at) => return Some(at),
    };
    fields.drafts.push(Draft::error(text.span(), title).help(help));
    None
}

fn names(fields: &mut Fields<'_, '_>) -> Vec<String> {
    let form = "names = [\"lb.example.net\"]";
    let mut all: Vec<String> = Vec::new();
    let Some(value) = fields.value("names") else { return all };
    for text in fields.strings("names", value, form).unwrap_or_default() {
        let name = text.get_ref().to_ascii_lowercase();
        let is_part = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let problem = if name.len() > LONGEST || !name.split('.').all(is_part) {
            Some((format!("{} is not a host name", quoted(text.get_ref())), format!("write `{form}`, without a port")))
        } else if all.contains(&name) {
            Some((format!("{name} is listed twice"), "remove one of them".into()))
        } else if all.len() == MOST {
            Some((format!("more than {MOST} names"), "use addresses, which need not be listed".into()))
        } else {
            all.push(name);
            None
        };
        if let Some((title, help)) = problem {
            fields.drafts.push(Draft::error(text.span(), title).help(help));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use crate::config::parse;

    const REST: &str = "service = []\n[[pool]]\nname='p'\nserver=[{name='s',address='10.0.0.1'}]\n[http]\n";

    #[test]
    fn only_addresses_of_this_machine_alone_are_listened_on_unless_told_so() {
        let told = "remote = true\n";
        for (lines, valid, says) in [
            ("listen = '127.0.0.1:9480'\n", true, ""),
            ("listen = '127.9.9.9:1024'\n", true, ""),
            ("listen = '127.0.0.1:80'\n", false, "use another"),
            ("listen = '[::1]:9480'\n", true, ""),
            ("listen = '[::ffff:127.0.0.1]:9480'\n", true, ""),
            ("listen = '0.0.0.0:9480'\n", false, "other machines can reach 0.0.0.0"),
            ("listen = '[::]:9480'\n", false, "`remote = true`"),
            ("listen = '192.0.2.1:9480'\n", false, "127.0.0.1 or [::1]"),
            ("listen = '127.0.0.1'\n", false, "not an address with a port"),
            ("listen = 'localhost:9480'\n", false, "not an address with a port"),
            ("listen = '127.0.0.1:0'\n", false, "no port"),
            ("listen = 9480\n", false, "`listen` must be a string"),
        ] {
            let got = parse(&format!("{REST}{lines}"), "x.toml");
            assert_eq!(got.is_ok(), valid, "{lines}");
            assert!(got.err().is_none_or(|error| error.to_string().contains(says)), "{lines}");
        }
        for (address, valid) in [("0.0.0.0:9480", true), ("[2001:db8::1]:8080", true), ("224.0.0.1:8080", false)] {
            let got = parse(&format!("{REST}{told}listen = '{address}'\n"), "x.toml");
            assert_eq!(got.is_ok(), valid, "{address}");
        }
    }

    #[test]
    fn names_are_those_of_hosts() {
        let read = |value: &str| parse(&format!("{REST}names = {value}\n"), "x.toml").map(|all| all.http.names);
        assert_eq!(read("'LB.example.net'").expect("a name"), ["lb.example.net"]);
        assert_eq!(read("['a', 'b-2.c']").expect("two"), ["a", "b-2.c"]);
        for bad in ["'a b'", "'a:80'", "'.a'", "'a.'", "''", "['a', 'A']", "[1]"] {
            assert!(read(bad).is_err(), "{bad}");
        }
        let many = (0..17).map(|n| format!("'h{n}'")).collect::<Vec<_>>().join(",");
        assert!(read(&format!("[{many}]")).expect_err("17").to_string().contains("more than 16 names"));
    }
}
