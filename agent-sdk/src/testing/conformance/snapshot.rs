//! A folder as text, for comparison byte for byte.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

/// Files up to this many bytes are shown as they are when they are text; of others the hash is.
const SHOWN_BYTES_MAX: usize = 4 * 1024;

/// Every file, folder and link below a folder in the order of their paths, with mode and
/// contents. Two folders with the same snapshot are the same byte for byte; times are left out.
///
/// # Panics
/// When something cannot be read.
pub fn snapshot(folder: &Path) -> String {
    let mut open = vec![folder.to_owned()];
    let mut lines = Vec::new();
    while let Some(path) = open.pop() {
        let (line, inside) = entry(&path, folder);
        lines.push(line);
        open.extend(inside);
    }
    lines.sort();
    lines.concat()
}

fn entry(path: &Path, root: &Path) -> (String, Vec<PathBuf>) {
    let shown = path.strip_prefix(root).unwrap_or(path).display().to_string();
    let metadata = std::fs::symlink_metadata(path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mode = metadata.permissions().mode() & 0o7777;
    let mut line = format!("{shown}\t{mode:o}\t");
    let mut inside = Vec::new();
    if metadata.is_symlink() {
        let leads_to = std::fs::read_link(path).unwrap_or_default();
        let _ = writeln!(line, "-> {}", leads_to.display());
    } else if metadata.is_dir() {
        line.push_str("folder\n");
        let entries =
            std::fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        inside.extend(entries.filter_map(|entry| entry.ok().map(|entry| entry.path())));
    } else {
        let bytes =
            std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let _ = writeln!(line, "{}", contents(&bytes));
    }
    (line, inside)
}

fn contents(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if bytes.len() <= SHOWN_BYTES_MAX => format!("{text:?}"),
        _ => {
            let digest: String =
                Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{} bytes, SHA-256 {digest}", bytes.len())
        }
    }
}
