//! The file of an effect log, written anew without what says nothing any more: lines that later
//! ones of their key have overtaken, and ends that need not be remembered longer. A crash leaves
//! the old file or the new one, whole either way.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::value::RawValue;

use super::file::{Keep, Known, Line, Mark, MarkFile, Marks, OWNER_ONLY, Word, now};

/// Files of fewer lines stay as they are.
pub(super) const LINES_MIN: u64 = 1_024;

impl MarkFile {
    /// Writes the file anew when it has twice the lines that were left the last time. The file is
    /// locked and wholly read; afterwards the new one is.
    pub(super) fn compact_if_due(&mut self) -> io::Result<()> {
        if self.lines <= self.compact_at {
            return Ok(());
        }
        let next = next_to(&self.path);
        let now = now();
        // The same order for the same marks: by when they were written, then by key.
        let mut kept: Vec<(&String, &Known)> = self.marks.by_key.iter().collect();
        kept.retain(|(_, known)| self.keep.is_kept(known, now));
        kept.sort_by_key(|(key, known)| (known.at, *key));
        let count = self.marks.count;
        let (file, marks, bytes) = match write(&next, &kept, count, now) {
            Ok(written) => written,
            Err(_) => {
                // It goes on with the file that is there, and tries again later. What is left of
                // the new one is written over then.
                self.compact_at = self.lines + LINES_MIN;
                return Ok(());
            }
        };
        let lines = marks.by_key.len() as u64 + 1;
        std::fs::rename(&next, &self.path)?;
        // Whoever waits for the lock of the old file finds that another one stands in its place.
        self.file = Some(file);
        self.read_bytes = bytes;
        self.marks = marks;
        self.lines = lines;
        self.compact_at = (2 * lines).max(LINES_MIN);
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl Keep {
    fn is_kept(&self, known: &Known, now: u64) -> bool {
        let age = now.saturating_sub(known.at.unwrap_or(now));
        match &known.mark {
            Mark::Begun(_) | Mark::Undoing(_) => true,
            Mark::Done(_) => self.done.is_none_or(|done| age <= done.as_secs()),
            Mark::Undone => age <= self.undone.as_secs(),
        }
    }
}

/// The new file, durable and locked, what stands in it, and how long it is.
fn write(
    path: &Path,
    kept: &[(&String, &Known)],
    count: u64,
    now: u64,
) -> io::Result<(File, Marks, u64)> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).mode(OWNER_ONLY);
    let file = options.open(path)?;
    file.lock()?;
    file.set_len(0)?;
    let mut marks = Marks::default();
    let mut out = BufWriter::new(&file);
    let gone = count.saturating_sub(kept.len() as u64);
    let first = Line {
        key: String::new(),
        mark: Word::Compacted,
        data: Some(RawValue::from_string(gone.to_string())?),
        at: Some(now),
    };
    let mut bytes = 0;
    for line in
        std::iter::once(Ok(first)).chain(kept.iter().map(|(key, known)| of(key, known, now)))
    {
        let line = line?;
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        out.write_all(&text)?;
        bytes += text.len() as u64;
        marks.apply(line)?;
    }
    out.flush()?;
    drop(out);
    file.sync_data()?;
    Ok((file, marks, bytes))
}

fn of(key: &str, known: &Known, now: u64) -> io::Result<Line> {
    let (mark, data) = match &known.mark {
        Mark::Begun(note) => (Word::Begun, Some(note)),
        Mark::Done(output) => (Word::Done, Some(output)),
        Mark::Undoing(output) => (Word::Undoing, output.as_ref()),
        Mark::Undone => (Word::Undone, None),
    };
    let data = data.map(|text| RawValue::from_string(text.clone())).transpose()?;
    Ok(Line { key: key.to_owned(), mark, data, at: Some(known.at.unwrap_or(now)) })
}

fn next_to(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".next");
    PathBuf::from(name)
}
