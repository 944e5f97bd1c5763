//! Targets for fuzzing: every surface on which bytes from outside are parsed by code of our own.
//!
//! `fuzz/` hands them what libFuzzer makes up, for hours (`make fuzz`). The test below runs the same functions on the
//! corpus, on inputs that once failed, and on some random ones. A target takes any bytes and panics where something
//! that must hold does not.

mod names;
mod origin;
mod request;
mod token;
mod wire;

#[cfg(test)]
mod tests;

pub use self::names::{ids, patterns, queries};
pub use self::origin::origins;
pub use self::request::requests;
pub use self::token::tokens;
pub use self::wire::{decoder, documents};
pub use tidewire::broker::fuzz::{entries, records, segment};

/// Takes any bytes, and panics where something that must hold does not.
pub type Target = fn(&[u8]);

/// All targets with their names, which are those of the folders of their corpora.
pub const TARGETS: &[(&str, Target)] = &[
    ("decoder", decoder),
    ("documents", documents),
    ("entries", entries),
    ("ids", ids),
    ("origins", origins),
    ("patterns", patterns),
    ("queries", queries),
    ("records", records),
    ("requests", requests),
    ("segment", segment),
    ("tokens", tokens),
];
