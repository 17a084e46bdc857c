//! The IPv4 and IPv6 options that make a packet's endpoints differ from the addresses in its header.
//!
//! It must not know how such packets are treated.

/// Returns whether IPv4 options hold a loose or strict source route with addresses left (RFC 791, 3.1): it is in
/// every fragment, the destination is not the final one, and the transport checksum covers the final one.
#[cold]
pub(super) fn has_source_route(mut options: &[u8]) -> bool {
    const END: u8 = 0;
    const NOTHING: u8 = 1;
    const LOOSE: u8 = 131;
    const STRICT: u8 = 137;
    loop {
        options = match *options {
            [] | [END, ..] => return false,
            [NOTHING, ref rest @ ..] => rest,
            [LOOSE | STRICT, len, pointer, ..] if pointer <= len => return true,
            // An option whose length makes no sense matters only if it is the last one.
            [_, len, ..] if len >= 2 => match options.get(usize::from(len)..) {
                Some(rest) => rest,
                None => return false,
            },
            _ => return false,
        }
    }
}

/// Returns whether destination options hold a mobile node's home address (RFC 6275, 6.3).
pub(super) fn has_home_address(mut options: &[u8]) -> bool {
    const HOME_ADDRESS: u8 = 0xc9;
    while let [kind, rest @ ..] = options {
        if *kind == HOME_ADDRESS {
            return true;
        }
        let size = if *kind == 0 { 1 } else { rest.first().map_or(options.len(), |length| 2 + usize::from(*length)) };
        options = options.get(size..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_route_has_addresses_left_until_its_pointer_is_past_it() {
        let cases: &[(&[u8], bool)] = &[
            (&[], false),
            (&[131, 7, 4, 10, 0, 0, 1, 0], true),
            (&[1, 1, 137, 11, 8, 1, 2, 3, 4, 5, 6, 7, 8], true),
            (&[131, 7, 8, 10, 0, 0, 1, 0], false),
            (&[7, 7, 4, 1, 2, 3, 4, 0], false),
            (&[0, 131, 7, 4, 10, 0, 0, 1], false),
            (&[148, 4, 0, 0, 137, 7, 4, 9, 9, 9, 9, 0], true),
            (&[148, 0, 131, 7], false),
            (&[148, 200, 131, 7], false),
            (&[131, 7], false),
            (&[131], false),
        ];
        for (options, want) in cases {
            assert_eq!(has_source_route(options), *want, "{options:?}");
        }
    }

    #[test]
    fn a_home_address_is_found_after_padding() {
        let home = [&[0xc9, 16][..], &[0xfd; 16]].concat();
        for (options, want) in [
            (home.clone(), true),
            ([&[1, 2, 0, 0][..], &home].concat(), true),
            ([&[0, 0][..], &home].concat(), true),
            ([&[1, 18][..], &home].concat(), false),
            (vec![1, 4, 0, 0, 0, 0], false),
            (vec![5], false),
            (vec![], false),
        ] {
            assert_eq!(has_home_address(&options), want, "{options:?}");
        }
    }
}
