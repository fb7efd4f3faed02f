//! Any bytes as a definition.

#![no_main]

#[path = "../../control-plane/engine/tests/fuzz/targets/definition.rs"]
mod definition;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    definition::definition(bytes);
});
