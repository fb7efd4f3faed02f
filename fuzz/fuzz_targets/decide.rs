//! Any bytes as a definition and what is asked of its run.

#![no_main]

#[path = "../../control-plane/engine/tests/fuzz/targets/decide.rs"]
mod decide;
#[path = "../../control-plane/engine/tests/fuzz/targets/drive.rs"]
mod drive;
#[path = "../../control-plane/engine/tests/fuzz/targets/grammar.rs"]
mod grammar;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    decide::decide(bytes);
});
