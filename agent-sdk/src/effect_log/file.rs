//! The file behind an effect log. A line is durable before a call returns that says so; a line
//! that a crash cut off is as if it had never been begun. When half of the lines say nothing any
//! more, the file is written anew without them (`compact`).

use std::collections::{BTreeSet, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::sync::MutexGuard;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The mode of the file: read and written by its owner alone.
pub(super) const OWNER_ONLY: u32 = 0o600;

/// How long a log remembers what came to an end. What is begun or being undone is never forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// How long the mark of what was undone refuses a late do: longer than a task may be on its
    /// way, or wait for an agent that was away.
    pub undone: Duration,
    /// How long what was done is known, so that it is not done again and can be undone: longer
    /// than its run can be rolled back. `None` is for ever.
    pub done: Option<Duration>,
}

impl Default for Keep {
    /// Undone: 30 days. Done: for ever.
    fn default() -> Self {
        Self { undone: Duration::from_secs(30 * 24 * 60 * 60), done: None }
    }
}

/// What is known of an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// The effect was begun; the text is a note in JSON that was left with it.
    Begun(String),
    /// The effect is there; the text is the output in JSON.
    Done(String),
    /// The effect is being undone; the text is its output in JSON, when there was one.
    Undoing(Option<String>),
    /// The effect is undone, or was never there; it may not come any more.
    Undone,
}

/// The file and what was read from it.
#[derive(Debug)]
pub(super) struct MarkFile {
    pub(super) path: PathBuf,
    pub(super) file: Option<File>,
    pub(super) read_bytes: u64,
    pub(super) marks: Marks,
    pub(super) keep: Keep,
    /// Lines in the file.
    pub(super) lines: u64,
    /// The number of lines at which the file is written anew.
    pub(super) compact_at: u64,
}

#[derive(Debug, Default)]
pub(super) struct Marks {
    pub(super) by_key: HashMap<String, Known>,
    /// The keys that are begun or being undone.
    unfinished: BTreeSet<String>,
    /// How many marks were written, ever.
    pub(super) count: u64,
}

/// A mark, and when it was written, in seconds since 1970; nothing where the line does not say.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) mark: Mark,
    pub(super) at: Option<u64>,
}

/// The log while nobody else works on it.
#[derive(Debug)]
pub struct Locked<'log> {
    log: MutexGuard<'log, MarkFile>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Line {
    pub(super) key: String,
    pub(super) mark: Word,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) data: Option<Box<RawValue>>,
    /// Seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) at: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Word {
    Begun,
    Done,
    Undoing,
    Undone,
    Forgotten,
    /// Of no key: how many marks were written that are not in the file any more.
    Compacted,
}

impl MarkFile {
    pub(super) fn new(path: PathBuf, keep: Keep) -> Self {
        Self {
            path,
            file: None,
            read_bytes: 0,
            marks: Marks::default(),
            keep,
            lines: 0,
            compact_at: super::compact::LINES_MIN,
        }
    }

    /// Forgets what was read: another file stands there, or the same one is shorter than it was.
    fn begin_anew(&mut self) {
        self.read_bytes = 0;
        self.marks = Marks::default();
        self.lines = 0;
        self.compact_at = super::compact::LINES_MIN;
    }

    /// Opens the file anew when it was never open or another one stands in its place.
    fn open_locked(&mut self) -> io::Result<&mut File> {
        loop {
            if self.file.is_none() {
                // What undoing needs may be secret.
                let mut options = OpenOptions::new();
                options.read(true).append(true).create(true).mode(OWNER_ONLY);
                let file = options.open(&self.path)?;
                self.file = Some(file);
                self.begin_anew();
            }
            let file = self.file.as_ref().expect("it was opened just above");
            file.lock()?;
            let here = file.metadata()?;
            let same = std::fs::metadata(&self.path)
                .is_ok_and(|there| (there.dev(), there.ino()) == (here.dev(), here.ino()));
            if same {
                return Ok(self.file.as_mut().expect("it was opened above"));
            }
            self.file = None;
        }
    }

    fn read_new(&mut self) -> io::Result<()> {
        let known = self.read_bytes;
        let file = self.open_locked()?;
        let length = file.metadata()?.len();
        let mut from = self.read_bytes.min(known);
        if length < from {
            from = 0;
            self.begin_anew();
        }
        if length == from {
            self.read_bytes = from;
            return Ok(());
        }
        let file = self.file.as_mut().expect("it is open and locked");
        file.seek(SeekFrom::Start(from))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        if whole < text.len() {
            // A crash cut the last line off.
            file.set_len(from + whole as u64)?;
        }
        for line in text[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let line: Line = serde_json::from_slice(line).map_err(|error| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("{} is no effect log: {error}", self.path.display()),
                )
            })?;
            self.marks.apply(line)?;
            self.lines += 1;
        }
        self.read_bytes = from + whole as u64;
        Ok(())
    }

    fn write(&mut self, line: Line, durable: bool) -> io::Result<()> {
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        let file = self.file.as_mut().expect("it is open while it is locked");
        file.write_all(&text)?;
        self.read_bytes += text.len() as u64;
        self.lines += 1;
        self.marks.apply(line)?;
        if durable {
            let file = self.file.as_mut().expect("it is open while it is locked");
            file.sync_data()?;
        }
        Ok(())
    }
}

impl Marks {
    pub(super) fn apply(&mut self, line: Line) -> io::Result<()> {
        if matches!(line.mark, Word::Compacted) {
            let count = line.data.as_ref().map_or("0", |data| data.get());
            self.count = count.parse().map_err(|_| io::ErrorKind::InvalidData)?;
            return Ok(());
        }
        self.count += 1;
        let data = line.data.map(|data| data.get().to_owned());
        let null = || "null".to_owned();
        let mark = match line.mark {
            Word::Begun => Mark::Begun(data.unwrap_or_else(null)),
            Word::Done => Mark::Done(data.unwrap_or_else(null)),
            Word::Undoing => Mark::Undoing(data),
            Word::Undone => Mark::Undone,
            Word::Forgotten | Word::Compacted => {
                self.by_key.remove(&line.key);
                self.unfinished.remove(&line.key);
                return Ok(());
            }
        };
        if matches!(mark, Mark::Begun(_) | Mark::Undoing(_)) {
            self.unfinished.insert(line.key.clone());
        } else {
            self.unfinished.remove(&line.key);
        }
        self.by_key.insert(line.key, Known { mark, at: line.at });
        Ok(())
    }
}

impl<'log> Locked<'log> {
    pub(super) fn take(mut log: MutexGuard<'log, MarkFile>) -> io::Result<Self> {
        log.read_new()?;
        log.compact_if_due()?;
        Ok(Self { log })
    }

    /// What is known of a key; `None` when nothing is.
    pub fn mark(&self, key: &str) -> Option<&Mark> {
        self.log.marks.by_key.get(key).map(|known| &known.mark)
    }

    /// All keys and what is known of them, in no order.
    pub fn marks(&self) -> impl Iterator<Item = (&str, &Mark)> {
        self.log.marks.by_key.iter().map(|(key, known)| (key.as_str(), &known.mark))
    }

    /// The keys that were begun, or whose undoing was, and came to no end. Whoever holds the
    /// lock for as long as an effect takes knows that these were cut off by a crash.
    pub fn unfinished(&self) -> Vec<String> {
        self.log.marks.unfinished.iter().cloned().collect()
    }

    /// How many marks were written to the log, ever: a number that grows with each, the same
    /// for all who look.
    pub fn count(&self) -> u64 {
        self.log.marks.count
    }

    /// Marks an effect as begun, with a note (JSON) that helps to find out later whether it
    /// came about. Durable when it returns.
    pub fn begin(&mut self, key: &str, note: &str) -> io::Result<()> {
        self.write(key, Word::Begun, Some(note), true)
    }

    /// Marks an effect as done, with its output (JSON). It need not be durable at once: a crash
    /// leaves the mark `Begun`, and the effect is there to be found.
    pub fn done(&mut self, key: &str, output: &str) -> io::Result<()> {
        self.write(key, Word::Done, Some(output), false)
    }

    /// Marks that undoing begins; the output stays known. Durable when it returns.
    pub fn undoing(&mut self, key: &str) -> io::Result<()> {
        let output = match self.mark(key) {
            Some(Mark::Done(output)) => Some(output.clone()),
            Some(Mark::Undoing(output)) => output.clone(),
            _ => None,
        };
        self.write(key, Word::Undoing, output.as_deref(), true)
    }

    /// The same with data (JSON) of one's own in place of the output. Durable when it returns.
    pub fn undoing_with(&mut self, key: &str, data: &str) -> io::Result<()> {
        self.write(key, Word::Undoing, Some(data), true)
    }

    /// Marks an effect as undone: it may not come any more. Durable when it returns.
    pub fn undone(&mut self, key: &str) -> io::Result<()> {
        self.write(key, Word::Undone, None, true)
    }

    /// Takes a beginning back: the effect certainly did not come about.
    pub fn forget(&mut self, key: &str) -> io::Result<()> {
        self.write(key, Word::Forgotten, None, false)
    }

    /// Begins an effect of which nothing is known; gives what was known before.
    pub(super) fn begin_unless_known(&mut self, key: &str) -> io::Result<Option<Mark>> {
        let known = self.mark(key).cloned();
        if known.is_none() {
            self.begin(key, "null")?;
        }
        Ok(known)
    }

    /// Marks as done what was begun; `false` when it was undone meanwhile.
    pub(super) fn finish(&mut self, key: &str, output: &str) -> io::Result<bool> {
        if matches!(self.mark(key), Some(Mark::Undoing(_) | Mark::Undone)) {
            return Ok(false);
        }
        self.write(key, Word::Done, Some(output), true)?;
        Ok(true)
    }

    /// Begins to undo; gives what was known before.
    pub(super) fn begin_undo(&mut self, key: &str) -> io::Result<Option<Mark>> {
        let known = self.mark(key).cloned();
        match &known {
            None => self.undone(key)?,
            Some(Mark::Begun(_) | Mark::Done(_)) => self.undoing(key)?,
            Some(Mark::Undoing(_) | Mark::Undone) => {}
        }
        Ok(known)
    }

    fn write(
        &mut self,
        key: &str,
        mark: Word,
        data: Option<&str>,
        durable: bool,
    ) -> io::Result<()> {
        let data = data.map(|text| RawValue::from_string(text.to_owned())).transpose()?;
        self.log.write(Line { key: key.to_owned(), mark, data, at: Some(now()) }, durable)
    }
}

/// Seconds since 1970; 0 for a clock that stands before.
#[expect(clippy::disallowed_methods, reason = "marks age by the clock on the wall")]
pub(super) fn now() -> u64 {
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        if let Some(file) = &self.log.file {
            // Closing the file unlocks it as well; nothing is lost when this fails.
            let _ = file.unlock();
        }
    }
}
