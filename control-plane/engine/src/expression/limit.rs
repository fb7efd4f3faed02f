//! The bounds of expressions, each with its reason.

/// Bytes of one expression's text: far more than a person writes, little enough to parse at once.
pub const SOURCE_BYTES_MAX: usize = 16 * 1024;

/// Brackets within brackets: the parser recurses on each.
pub const NESTING_MAX: usize = 32;

/// Depth of the syntax tree: the evaluator recurses on each level.
pub const DEPTH_MAX: u32 = 96;

/// Macros (`all`, `exists`, `map`, …) within macros: each level multiplies the work.
pub const COMPREHENSION_NESTING_MAX: usize = 4;

/// Steps of one evaluation (for a template: of all its expressions). Each node visited is a step;
/// what grows or reads data costs a step per [`BYTES_PER_STEP`] or per element, so that memory is
/// bounded with time.
pub const STEPS_MAX: u64 = 1_000_000;

/// Bytes made, compared or searched for the price of one step.
pub const BYTES_PER_STEP: usize = 64;

/// Bytes of one string or bytes value made by an expression.
pub const STRING_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Elements of one list made by an expression.
pub const LIST_ITEMS_MAX: usize = 100_000;

/// Bytes of a result as compact JSON.
pub const RESULT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Depth of data compared, converted or searched for expressions.
pub const DATA_DEPTH_MAX: usize = 256;

/// Bytes of a pattern given to `matches`.
pub const PATTERN_BYTES_MAX: usize = 1024;

/// Bytes a compiled pattern may take.
pub const PATTERN_COMPILED_BYTES_MAX: usize = 1024 * 1024;

/// Brackets within brackets in a pattern.
pub const PATTERN_NESTING_MAX: u32 = 32;

/// Steps for compiling a pattern that is not a constant.
pub const PATTERN_STEPS: u64 = 10_000;

/// Depth of the JSON that a template may be.
pub const TEMPLATE_DEPTH_MAX: usize = 128;
