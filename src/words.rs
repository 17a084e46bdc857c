//! Enums whose variants each have a word in configurations, reports and tables.

/// Defines an enum with `ALL`, every variant in order, and `name`, a variant's word: neither can lack a variant.
macro_rules! words {
    (
        $(#[$about:meta])*
        $visible:vis enum $name:ident { $( $(#[$of:meta])* $variant:ident = $word:literal, )+ }
    ) => {
        $(#[$about])*
        $visible enum $name { $( $(#[$of])* $variant, )+ }

        impl $name {
            /// Every one, in documentation order.
            $visible const ALL: [$name; [$($word),+].len()] = [$($name::$variant),+];

            /// Returns the word used in configurations and tables.
            $visible const fn name(self) -> &'static str {
                match self { $($name::$variant => $word),+ }
            }
        }
    };
}

pub(crate) use words;
