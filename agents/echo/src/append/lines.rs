//! Lines of a file, each written once for its key. Whatever happens between two system calls,
//! the next one who takes the lock finds out what came about.
//!
//! Beside `FILE` stands `FILE.keys`, an effect log; its lock is held from the first look to the
//! last mark, by threads and processes alike. An append marks its intent with the length that
//! the file has, writes, and marks the line as done. Who finds an intent without an end looks
//! behind that length: there is the line, or a part of it, or nothing. Nobody appends before
//! that is settled, so there is never more than one to look for. A removal marks its intent with
//! the file's inode and puts a new file in its place: the inode says whether that came about.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use agent_sdk::effect_log::{EffectLog, Locked, Mark};
use serde::{Deserialize, Serialize};

/// A file and the marks of its lines.
pub(super) struct Lines {
    path: PathBuf,
    log: EffectLog,
    /// Called after each step; an error ends the work there, as a kill would.
    after: Box<dyn Fn(Step) -> io::Result<()> + Send + Sync>,
}

/// A step after which a process may be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The lock is held, and what was unfinished is settled.
    Settled,
    /// The intent to append is durable.
    AppendMarked,
    /// The line is written.
    Written,
    /// The line is durable.
    Synced,
    /// The intent to remove is durable.
    RemoveMarked,
    /// The file without the line is ready.
    Prepared,
    /// It stands in the old one's place.
    Replaced,
}

/// What is noted with an intent to append.
#[derive(Serialize, Deserialize)]
struct Intent {
    /// The length that the file had.
    length: u64,
    line: String,
}

/// What is noted with a line that is there.
#[derive(Serialize, Deserialize)]
struct Written {
    line: String,
    /// Tells the order of equal lines: one that was written later has a larger number.
    number: u64,
}

/// What is noted with an intent to remove.
#[derive(Serialize, Deserialize)]
struct Removal {
    inode: u64,
    line: String,
    number: u64,
}

/// Where the marks of a file are.
pub(super) fn log_path(path: &Path) -> PathBuf {
    beside(path, ".keys")
}

impl Lines {
    pub(super) fn new(path: &Path, log: EffectLog) -> Self {
        Self { path: path.to_owned(), log, after: Box::new(|_| Ok(())) }
    }

    /// Appends a line unless it is there under this key; `false` when it was removed.
    pub(super) fn append(&self, key: &str, line: &str) -> io::Result<bool> {
        let mut locked = self.settled()?;
        match locked.mark(key) {
            Some(Mark::Done(_)) => return Ok(true),
            Some(Mark::Undone | Mark::Undoing(_)) => return Ok(false),
            Some(Mark::Begun(_)) => return Err(unsettled(key)),
            None => {}
        }
        let new = !self.path.exists();
        let mut file = OpenOptions::new().append(true).create(true).open(&self.path)?;
        if new {
            sync_folder(&self.path)?;
        }
        let length = file.metadata()?.len();
        let intent = Intent { length, line: line.to_owned() };
        locked.begin(key, &serde_json::to_string(&intent)?)?;
        (self.after)(Step::AppendMarked)?;
        let text = format!("{line}\n");
        let written = file.write(text.as_bytes())?;
        if written < text.len() {
            file.set_len(length)?;
            locked.forget(key)?;
            return Err(io::Error::other("the file system took only a part of the line"));
        }
        (self.after)(Step::Written)?;
        file.sync_data()?;
        (self.after)(Step::Synced)?;
        mark_written(&mut locked, key, line)?;
        Ok(true)
    }

    /// Removes the line of this key; `false` when there is none.
    pub(super) fn remove(&self, key: &str) -> io::Result<bool> {
        let mut locked = self.settled()?;
        match locked.mark(key).cloned() {
            None => {
                locked.undone(key)?;
                Ok(false)
            }
            Some(Mark::Undone) => Ok(false),
            Some(Mark::Begun(_) | Mark::Undoing(_)) => Err(unsettled(key)),
            Some(Mark::Done(note)) => {
                let Written { line, number } = serde_json::from_str(&note)?;
                let inode = match fs::metadata(&self.path) {
                    Ok(metadata) => metadata.ino(),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        locked.undone(key)?;
                        return Ok(false);
                    }
                    Err(error) => return Err(error),
                };
                let removal = Removal { inode, line, number };
                locked.undoing_with(key, &serde_json::to_string(&removal)?)?;
                (self.after)(Step::RemoveMarked)?;
                self.finish_removal(&mut locked, key, &removal)
            }
        }
    }

    /// Takes the lock and settles what a crash left unfinished.
    fn settled(&self) -> io::Result<Locked<'_>> {
        let mut locked = self.log.lock()?;
        for key in locked.unfinished() {
            match locked.mark(&key).cloned() {
                Some(Mark::Begun(note)) => {
                    let intent: Intent = serde_json::from_str(&note)?;
                    if self.is_written(&intent)? {
                        mark_written(&mut locked, &key, &intent.line)?;
                    } else {
                        locked.forget(&key)?;
                    }
                }
                Some(Mark::Undoing(Some(note))) => {
                    let removal: Removal = serde_json::from_str(&note)?;
                    self.finish_removal(&mut locked, &key, &removal)?;
                }
                _ => {}
            }
        }
        (self.after)(Step::Settled)?;
        Ok(locked)
    }

    /// Whether the line of an intent is in the file, whole; a part of it is cut off.
    fn is_written(&self, intent: &Intent) -> io::Result<bool> {
        let mut file = match OpenOptions::new().read(true).write(true).open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        if file.metadata()?.len() <= intent.length {
            return Ok(false);
        }
        file.seek(SeekFrom::Start(intent.length))?;
        let mut behind = Vec::new();
        file.read_to_end(&mut behind)?;
        let text = format!("{}\n", intent.line).into_bytes();
        if text.starts_with(&behind) && behind.len() < text.len() {
            file.set_len(intent.length)?;
            file.sync_data()?;
            return Ok(false);
        }
        // Someone who knows nothing of the lock may have written first: then ours is further on.
        let found = behind.split_inclusive(|byte| *byte == b'\n').any(|line| line == text);
        if found {
            file.sync_data()?;
        }
        Ok(found)
    }

    /// Puts a file without the line in the file's place, unless it stands there already.
    fn finish_removal(
        &self,
        locked: &mut Locked<'_>,
        key: &str,
        removal: &Removal,
    ) -> io::Result<bool> {
        let removed = match fs::metadata(&self.path) {
            Ok(metadata) if metadata.ino() == removal.inode => self.replace(locked, removal)?,
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        locked.undone(key)?;
        Ok(removed)
    }

    fn replace(&self, locked: &Locked<'_>, removal: &Removal) -> io::Result<bool> {
        let before = equal_lines_before(locked, removal);
        let content = fs::read(&self.path)?;
        let text = removal.line.as_bytes();
        let mut start = 0;
        let mut found = None;
        let mut seen = 0;
        for line in content.split_inclusive(|byte| *byte == b'\n') {
            if line.strip_suffix(b"\n") == Some(text) {
                // Where someone took lines away by hand, the last one left is meant.
                found = Some(start..start + line.len());
                if seen == before {
                    break;
                }
                seen += 1;
            }
            start += line.len();
        }
        let Some(range) = found else { return Ok(false) };
        let new_path = beside(&self.path, ".keys.new");
        let mut new = File::create(&new_path)?;
        new.set_permissions(fs::metadata(&self.path)?.permissions())?;
        new.write_all(&content[..range.start])?;
        new.write_all(&content[range.end..])?;
        new.sync_all()?;
        (self.after)(Step::Prepared)?;
        fs::rename(&new_path, &self.path)?;
        sync_folder(&self.path)?;
        (self.after)(Step::Replaced)?;
        Ok(true)
    }
}

/// How many equal lines that are there were written before this one.
fn equal_lines_before(locked: &Locked<'_>, removal: &Removal) -> usize {
    let earlier = |note: &str| {
        serde_json::from_str::<Written>(note)
            .is_ok_and(|other| other.line == removal.line && other.number < removal.number)
    };
    locked.marks().filter(|(_, mark)| matches!(mark, Mark::Done(note) if earlier(note))).count()
}

fn mark_written(locked: &mut Locked<'_>, key: &str, line: &str) -> io::Result<()> {
    let number = locked.count();
    let note = Written { line: line.to_owned(), number };
    locked.done(key, &serde_json::to_string(&note)?)
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    path.with_file_name(name)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

fn unsettled(key: &str) -> io::Error {
    io::Error::other(format!("what was begun under the key `{key}` could not be settled"))
}

#[cfg(test)]
mod tests;
