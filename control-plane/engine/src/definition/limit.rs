//! The bounds of definitions beside those in `crate::limits`, each with its reason.

/// Lists and objects within one another in the YAML text: room for the deepest nesting of blocks
/// (four levels each, when every block is a member of a group), and for the data of its steps.
pub const YAML_NESTING_MAX: usize = 200;

/// Values that anchors and aliases may copy: they can double with every line.
pub const ALIAS_NODES_MAX: usize = 100_000;

/// Bytes of text that anchors and aliases may copy.
pub const ALIAS_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Dependencies of steps, groups spelled out: two groups of thousands behind one another have
/// millions.
pub const DEPENDENCIES_MAX: usize = 1_000_000;

/// Expressions in the data of one step: their names are compared with one another.
pub const EXPRESSIONS_MAX: usize = 5_000;

/// Complaints that are reported; more help nobody.
pub const COMPLAINTS_MAX: usize = 1000;

/// Lists and objects within one another in the JSON Schema of a parameter.
pub const SCHEMA_NESTING_MAX: usize = 32;

/// Days of the longest duration: a hundred years.
pub const DURATION_DAYS_MAX: u64 = 36_500;

/// Characters of an id or of a name.
pub const NAME_CHARS_MAX: usize = 256;

/// Names that a mistyped one is compared with.
pub const CANDIDATES_MAX: usize = 1000;
