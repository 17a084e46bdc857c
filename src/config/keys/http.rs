//! The keys of `[http]`.

use super::{DefaultValue, Key, Reload, Table, Takes};
use DefaultValue::{Flag, Unset};

/// `[http]`.
pub(crate) static HTTP: Table = Table {
    name: "http",
    header: "[http]",
    renamed: &[],
    keys: &[
        Key::new(
            "listen",
            Takes::Form("an address with a port"),
            Unset("none, and nothing is served"),
            Reload::Live,
            "Where metrics, the page and the API are served over HTTP.",
        ),
        Key::new(
            "remote",
            Takes::Flag,
            Flag(false),
            Reload::Live,
            "Whether `listen` may be an address that other machines can reach.",
        ),
        Key::new(
            "names",
            Takes::Form("a string or an array of up to 16 host names"),
            Unset("none"),
            Reload::Live,
            "Names that clients may use besides addresses and \"localhost\".",
        ),
    ],
};
