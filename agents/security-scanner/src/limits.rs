//! Every bound of a scan.

/// How many findings of one file are kept.
pub const FINDINGS_PER_FILE_MAX: usize = 200;
/// How many findings are kept in all.
pub const FINDINGS_KEPT_MAX: usize = 20_000;
/// How many findings the output lists, the gravest first.
pub const FINDINGS_SHOWN_MAX: usize = 500;
/// How many entries `allow` may have.
pub const ALLOW_COUNT_MAX: usize = 1_000;
/// The largest advisory file, in bytes.
pub const ADVISORY_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// The largest lock file, in bytes; larger than other files may be.
pub const LOCK_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// How many files that list dependencies are read.
pub const MANIFEST_COUNT_MAX: usize = 2_000;
/// How much of a call's arguments is looked at, in bytes.
pub const ARGUMENT_BYTES_MAX: usize = 4 * 1024;
