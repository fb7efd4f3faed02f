//! Any text as an expression.

#![no_main]

#[path = "../../control-plane/engine/tests/fuzz/targets/expression.rs"]
mod expression;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    expression::expression(bytes);
});
