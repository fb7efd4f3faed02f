//! Any bytes as a definition and what is asked of its run.

#![no_main]

#[path = "../../control-plane/engine/tests/fuzz/targets/mod.rs"]
#[expect(unused_imports, reason = "each fuzzer runs one of the targets")]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    targets::decide(bytes);
});
