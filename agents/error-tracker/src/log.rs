//! The error log: a file of JSON lines, one per record or removal, shared by all processes
//! that use the same folder. A line is written in one piece and made durable before the task
//! is answered; a torn last line, left by a power cut, is passed over and mended. It must not
//! judge what an error means.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::limits;

/// One logged error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The idempotency key of the task that logged it.
    pub key: String,
    /// When it was logged.
    pub at: DateTime<Utc>,
    /// Equal for equal errors.
    pub fingerprint: String,
    /// What happened.
    pub message: String,
    /// The step that failed; empty when unknown.
    #[serde(default)]
    pub step: String,
    /// The run that failed; empty when unknown.
    #[serde(default)]
    pub run: String,
}

/// What came of writing a record.
#[derive(Debug, PartialEq, Eq)]
pub enum Written {
    /// It is new.
    New(Record),
    /// It was there under this key.
    Before(Record),
    /// It was removed under this key, so it must not come again.
    Removed,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Record(Record),
    Removal { removed: String, at: DateTime<Utc> },
}

/// The log in a folder.
#[derive(Debug)]
pub struct Log {
    folder: PathBuf,
    index: Mutex<Index>,
}

/// What the file held when it was last read; the file is the truth.
#[derive(Debug, Default)]
struct Index {
    entries: HashMap<String, Entry>,
    // Which file was read, and up to where.
    file: u64,
    offset: u64,
    lines: usize,
}

#[derive(Debug, Clone)]
enum Entry {
    Record(Record),
    Removed(DateTime<Utc>),
}

impl Entry {
    fn at(&self) -> DateTime<Utc> {
        match self {
            Self::Record(record) => record.at,
            Self::Removed(at) => *at,
        }
    }
}

impl Log {
    /// The log in this folder, which is made when it is needed.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, index: Mutex::default() }
    }

    /// Writes a record unless its key is known.
    pub fn write(&self, record: Record) -> io::Result<Written> {
        self.locked(|open, index| {
            match index.entries.get(&record.key) {
                Some(Entry::Record(before)) => return Ok(Written::Before(before.clone())),
                Some(Entry::Removed(_)) => return Ok(Written::Removed),
                None => {}
            }
            open.append(index, &Line::Record(record.clone()))?;
            Ok(Written::New(record))
        })
    }

    /// Removes the record of a key, and keeps in mind that it is removed. Gives the record;
    /// none when there was none.
    pub fn remove(&self, key: &str, at: DateTime<Utc>) -> io::Result<Option<Record>> {
        self.locked(|open, index| {
            let record = match index.entries.get(key) {
                Some(Entry::Removed(_)) => return Ok(None),
                Some(Entry::Record(record)) => Some(record.clone()),
                None => None,
            };
            let removed = key.to_owned();
            open.append(index, &Line::Removal { removed, at })?;
            Ok(record)
        })
    }

    /// The records since a time, in no order.
    pub fn since(&self, time: DateTime<Utc>) -> io::Result<Vec<Record>> {
        if !self.folder.join(FILE_NAME).exists() {
            return Ok(Vec::new());
        }
        self.locked(|_, index| {
            let records = index.entries.values().filter_map(|entry| match entry {
                Entry::Record(record) if record.at >= time => Some(record.clone()),
                _ => None,
            });
            Ok(records.collect())
        })
    }

    /// Does something while no other process or thread works with the log.
    fn locked<T>(
        &self,
        work: impl FnOnce(&mut Open<'_>, &mut Index) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        fs::create_dir_all(&self.folder)?;
        // A file of its own: the log itself is replaced now and then.
        let lock = private(OpenOptions::new().create(true).truncate(false).write(true))
            .open(self.folder.join("errors.lock"))?;
        lock.lock()?;
        let mut open = Open::new(&self.folder)?;
        open.catch_up(&mut index)?;
        let result = work(&mut open, &mut index);
        if index.lines > limits::RECORD_COUNT_MAX + limits::LINE_SLACK_MAX {
            open.compact(&mut index)?;
        }
        result
    }
}

const FILE_NAME: &str = "errors.jsonl";

/// The file, while the lock is held.
struct Open<'a> {
    folder: &'a Path,
    file: File,
}

impl<'a> Open<'a> {
    fn new(folder: &'a Path) -> io::Result<Self> {
        let file = private(OpenOptions::new().create(true).read(true).append(true))
            .open(folder.join(FILE_NAME))?;
        Ok(Self { folder, file })
    }

    /// Reads what was written since the last time, by whomever.
    fn catch_up(&mut self, index: &mut Index) -> io::Result<()> {
        let metadata = self.file.metadata()?;
        let file = identity(&metadata);
        if file != index.file || metadata.len() < index.offset {
            *index = Index { file, ..Index::default() };
        }
        if metadata.len() == index.offset {
            return Ok(());
        }
        self.file.seek(SeekFrom::Start(index.offset))?;
        let mut reader = BufReader::new(&self.file);
        let mut line = Vec::new();
        loop {
            line.clear();
            let most = limits::LINE_BYTES_MAX as u64;
            let count = (&mut reader).take(most).read_until(b'\n', &mut line)?;
            if count == 0 {
                break;
            }
            index.offset += count as u64;
            // What is no line of ours is passed over: one damaged record must not cost all.
            if let Ok(parsed) = serde_json::from_slice::<Line>(&line) {
                index.add(parsed);
            }
            index.lines += 1;
        }
        Ok(())
    }

    fn append(&mut self, index: &mut Index, line: &Line) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(line)?;
        bytes.push(b'\n');
        if self.ends_torn()? {
            bytes.insert(0, b'\n');
        }
        let before = index.offset;
        self.file.write_all(&bytes)?;
        self.file.sync_data()?;
        if before == 0 {
            File::open(self.folder)?.sync_all()?;
        }
        self.catch_up(index)
    }

    fn ends_torn(&mut self) -> io::Result<bool> {
        if self.file.metadata()?.len() == 0 {
            return Ok(false);
        }
        let mut last = [0];
        self.file.seek(SeekFrom::End(-1))?;
        self.file.read_exact(&mut last)?;
        Ok(last != *b"\n")
    }

    /// Writes the file anew with the youngest entries alone. Marks of removal age like records:
    /// a late task comes within hours, not after tens of thousands of errors.
    fn compact(&mut self, index: &mut Index) -> io::Result<()> {
        let mut entries: Vec<(String, Entry)> = index.entries.drain().collect();
        entries.sort_by_key(|(_, entry)| entry.at());
        let surplus = entries.len().saturating_sub(limits::RECORD_COUNT_MAX);
        let new = self.folder.join("errors.jsonl.new");
        let mut file = io::BufWriter::new(
            private(OpenOptions::new().create(true).truncate(true).write(true)).open(&new)?,
        );
        for (key, entry) in entries.drain(surplus..) {
            let line = match entry {
                Entry::Record(record) => Line::Record(record),
                Entry::Removed(at) => Line::Removal { removed: key, at },
            };
            serde_json::to_writer(&mut file, &line)?;
            file.write_all(b"\n")?;
        }
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        fs::rename(&new, self.folder.join(FILE_NAME))?;
        File::open(self.folder)?.sync_all()?;
        // Read again as a whole: the file is another one now.
        *index = Index::default();
        *self = Self::new(self.folder)?;
        self.catch_up(index)
    }
}

impl Index {
    fn add(&mut self, line: Line) {
        match line {
            Line::Record(record) => {
                let key = record.key.clone();
                // A removal stands, whatever comes after.
                self.entries.entry(key).or_insert(Entry::Record(record));
            }
            Line::Removal { removed, at } => {
                self.entries.insert(removed, Entry::Removed(at));
            }
        }
    }
}

/// Messages may hold what others must not read.
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

/// Tells a file from the one that replaced it.
#[cfg(unix)]
fn identity(metadata: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn identity(metadata: &fs::Metadata) -> u64 {
    let created = metadata.created().ok();
    created
        .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok())
        .map_or(1, |age| u64::try_from(age.as_nanos()).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_000_000 + seconds, 0).unwrap()
    }

    fn record(key: &str, seconds: i64) -> Record {
        Record {
            key: key.to_owned(),
            at: time(seconds),
            fingerprint: "f".to_owned(),
            message: format!("message of {key}"),
            step: String::new(),
            run: String::new(),
        }
    }

    fn keys(log: &Log, since: i64) -> Vec<String> {
        let records = log.since(time(since)).unwrap();
        let mut keys: Vec<String> = records.into_iter().map(|record| record.key).collect();
        keys.sort();
        keys
    }

    #[test]
    fn a_key_is_written_once_and_a_removed_one_never_again() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::new(folder.path().join("new"));
        assert_eq!(keys(&log, 0), [""; 0]);
        assert_eq!(log.write(record("a", 1)).unwrap(), Written::New(record("a", 1)));
        assert_eq!(log.write(record("a", 2)).unwrap(), Written::Before(record("a", 1)));
        assert_eq!(log.write(record("b", 3)).unwrap(), Written::New(record("b", 3)));
        assert_eq!(keys(&log, 0), ["a", "b"]);
        assert_eq!(keys(&log, 2), ["b"]);
        assert_eq!(log.remove("a", time(4)).unwrap(), Some(record("a", 1)));
        assert_eq!(log.remove("a", time(5)).unwrap(), None);
        assert_eq!(log.write(record("a", 6)).unwrap(), Written::Removed);
        assert_eq!(log.remove("c", time(7)).unwrap(), None);
        assert_eq!(log.write(record("c", 8)).unwrap(), Written::Removed);
        assert_eq!(keys(&log, 0), ["b"]);
    }

    #[test]
    fn two_processes_see_each_others_records() {
        let folder = tempfile::tempdir().unwrap();
        let one = Log::new(folder.path().to_owned());
        let other = Log::new(folder.path().to_owned());
        one.write(record("a", 1)).unwrap();
        assert_eq!(other.write(record("a", 2)).unwrap(), Written::Before(record("a", 1)));
        other.write(record("b", 3)).unwrap();
        other.remove("a", time(4)).unwrap();
        assert_eq!(keys(&one, 0), ["b"]);
    }

    #[test]
    fn writers_side_by_side_lose_nothing_and_write_nothing_twice() {
        let folder = tempfile::tempdir().unwrap();
        let logs = [0, 1].map(|_| Log::new(folder.path().to_owned()));
        std::thread::scope(|scope| {
            for log in logs.iter().chain(&logs) {
                scope.spawn(|| {
                    for number in 0..20 {
                        log.write(record(&format!("k{number:02}"), 1)).unwrap();
                    }
                });
            }
        });
        assert_eq!(keys(&logs[0], 0).len(), 20);
        let text = fs::read_to_string(folder.path().join(FILE_NAME)).unwrap();
        assert_eq!(text.lines().count(), 20);
    }

    #[test]
    fn a_torn_line_is_passed_over_and_mended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE_NAME);
        Log::new(folder.path().to_owned()).write(record("a", 1)).unwrap();
        let mut text = fs::read_to_string(&path).unwrap();
        text.push_str("{\"key\":\"torn\",\"at\":\"20");
        fs::write(&path, text).unwrap();
        let log = Log::new(folder.path().to_owned());
        assert_eq!(keys(&log, 0), ["a"]);
        log.write(record("b", 2)).unwrap();
        assert_eq!(keys(&log, 0), ["a", "b"]);
        assert_eq!(keys(&Log::new(folder.path().to_owned()), 0), ["a", "b"]);
    }

    #[test]
    fn a_file_written_anew_keeps_the_youngest_and_the_marks() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::new(folder.path().to_owned());
        for (key, seconds) in [("a", 1), ("b", 2), ("c", 3)] {
            log.write(record(key, seconds)).unwrap();
        }
        log.remove("b", time(4)).unwrap();
        log.locked(|open, index| open.compact(index)).unwrap();
        let text = fs::read_to_string(folder.path().join(FILE_NAME)).unwrap();
        assert_eq!(text.lines().count(), 3);
        assert_eq!(keys(&log, 0), ["a", "c"]);
        assert_eq!(log.write(record("b", 5)).unwrap(), Written::Removed);
        assert_eq!(log.write(record("d", 6)).unwrap(), Written::New(record("d", 6)));
        assert_eq!(keys(&Log::new(folder.path().to_owned()), 0), ["a", "c", "d"]);
    }

    #[cfg(unix)]
    #[test]
    fn others_cannot_read_the_log() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        Log::new(folder.path().to_owned()).write(record("a", 1)).unwrap();
        let metadata = fs::metadata(folder.path().join(FILE_NAME)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    }
}
