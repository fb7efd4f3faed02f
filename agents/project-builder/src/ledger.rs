//! What this agent did under which idempotency key: one file per key, replaced in one piece, so
//! that a crash leaves the old record or the new one. It knows nothing of what is recorded.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

use project_files::durable;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::error::Error;

/// The records of an agent. While it exists no other process or thread works with them.
#[derive(Debug)]
pub struct Ledger {
    dir: PathBuf,
    _lock: File,
}

impl Ledger {
    /// Opens the records in this folder, and waits until nobody else works with them.
    pub fn open(dir: PathBuf) -> Result<Self, Error> {
        fs::create_dir_all(&dir).map_err(Error::io("make the folder", &dir))?;
        let path = dir.join("lock");
        let lock = durable::lock(&path).map_err(Error::io("lock", &path))?;
        Ok(Self { dir, _lock: lock })
    }

    /// The record under this key.
    pub fn read<Record: DeserializeOwned>(&self, key: &str) -> Result<Option<Record>, Error> {
        let path = self.path(key);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("read", &path)(error)),
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| {
            Error::Permanent(format!("the record {} is damaged: {error}", path.display()))
        })
    }

    /// Puts a record under this key, durably.
    pub fn write(&self, key: &str, record: &impl Serialize) -> Result<(), Error> {
        let path = self.path(key);
        let bytes = serde_json::to_vec_pretty(record).map_err(|error| {
            Error::Permanent(format!("the record cannot be written as JSON: {error}"))
        })?;
        durable::replace(&path, &bytes).map_err(Error::io("write", &path))
    }

    fn path(&self, key: &str) -> PathBuf {
        self.dir.join(format!("{}.json", hash(key.as_bytes())))
    }
}

/// SHA-256 in hexadecimal digits.
pub fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_found_again_under_its_key_alone() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path().join("records")).unwrap();
        ledger.write("a/../b", &vec![1, 2]).unwrap();
        ledger.write("a/../b", &vec![3]).unwrap();
        assert_eq!(ledger.read::<Vec<i32>>("a/../b").unwrap(), Some(vec![3]));
        assert_eq!(ledger.read::<Vec<i32>>("b").unwrap(), None);
    }

    #[test]
    fn a_damaged_record_is_reported_with_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path().to_owned()).unwrap();
        fs::write(ledger.path("a"), "{").unwrap();
        let error = ledger.read::<Vec<i32>>("a").unwrap_err();
        assert!(matches!(&error, Error::Permanent(text) if text.contains("damaged")), "{error}");
    }
}
