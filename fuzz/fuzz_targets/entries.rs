//! What this does is in `crates/server/src/fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidewire_server::fuzz::entries(data));
