//! Effects that happen once for an idempotency key and can be undone: marks in a file that the
//! agent names. The file is a log of JSON lines, shared by threads and processes through a file
//! lock. It never holds the effect itself. It grows with the number of keys, not of attempts: now
//! and then it is written anew without what says nothing any more, and [`Keep`] says how long
//! ends are remembered.

mod compact;
mod file;
mod plans;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Failure;
use file::MarkFile;
pub use file::{Keep, Locked, Mark};
pub use plans::Plans;

/// The code of the failure that refuses a do after its undo.
pub const UNDONE_CODE: &str = "undone";

/// A file of marks: what was begun, done and undone under which idempotency key. Cheap to clone;
/// clones share one view of the file.
#[derive(Clone, Debug)]
pub struct EffectLog {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    file: Mutex<MarkFile>,
    keys: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

impl EffectLog {
    /// Opens the log, and makes the file and its folders when they are not there. Beside it, as
    /// `NAME.next`, it is written anew.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        Self::open_keeping(path, Keep::default())
    }

    /// The same with a say in how long ends are remembered. Whoever opens one log should say the
    /// same.
    pub fn open_keeping(path: impl AsRef<Path>, keep: Keep) -> io::Result<Self> {
        let path = path.as_ref().to_owned();
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder)?;
        }
        let log = Self {
            shared: Arc::new(Shared {
                file: Mutex::new(MarkFile::new(path.clone(), keep)),
                path,
                keys: Mutex::default(),
            }),
        };
        log.lock()?;
        Ok(log)
    }

    /// Where the log is.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Waits until nobody else, thread or process, works on the log, and gives it with all marks
    /// read. It blocks: call it from [`Context::blocking`](crate::Context::blocking).
    pub fn lock(&self) -> io::Result<Locked<'_>> {
        let file = self.shared.file.lock().unwrap_or_else(PoisonError::into_inner);
        Locked::take(file)
    }

    /// Has an effect once. The output of the first success is kept and given again to whoever
    /// comes later with the same key. After an undo of the key the effect is refused.
    ///
    /// `effect` is told whether an earlier attempt had begun and never came to an end: then it
    /// must look whether the effect is there already. A failure with
    /// [`no_effect`](Failure::no_effect) takes the beginning back.
    pub async fn once<Output, Work>(
        &self,
        key: &str,
        effect: impl FnOnce(bool) -> Work + Send,
    ) -> Result<Output, Failure>
    where
        Output: Serialize + DeserializeOwned + Send + 'static,
        Work: Future<Output = Result<Output, Failure>> + Send,
    {
        let key_lock = self.key_lock(key);
        let _alone = key_lock.lock().await;
        let begun = match self.work(key, |locked, key| locked.begin_unless_known(key)).await? {
            None => false,
            Some(Mark::Begun(_)) => true,
            Some(Mark::Done(output)) => return read(&output),
            Some(Mark::Undoing(_) | Mark::Undone) => return Err(undone(key)),
        };
        match effect(begun).await {
            Ok(output) => {
                let text = write(&output)?;
                let kept = self.work(key, move |locked, key| locked.finish(key, &text)).await?;
                if kept { Ok(output) } else { Err(undone(key)) }
            }
            Err(failure) => {
                if failure.had_no_effect() && !begun {
                    self.work(key, |locked, key| locked.forget(key)).await?;
                }
                Err(failure)
            }
        }
    }

    /// Undoes the effect of a key. `undo` gets the output that [`EffectLog::once`] kept, or
    /// `None` when the effect began and never came to an end. Nothing done, or undone already:
    /// `undo` is not called, and the answer is `None`. In any case a mark stays that refuses a
    /// late do.
    pub async fn undo<Output, Undone, Work>(
        &self,
        key: &str,
        undo: impl FnOnce(Option<Output>) -> Work + Send,
    ) -> Result<Option<Undone>, Failure>
    where
        Output: DeserializeOwned + Send,
        Undone: Send,
        Work: Future<Output = Result<Undone, Failure>> + Send,
    {
        let key_lock = self.key_lock(key);
        let _alone = key_lock.lock().await;
        let output = match self.work(key, |locked, key| locked.begin_undo(key)).await? {
            None | Some(Mark::Undone) => return Ok(None),
            Some(Mark::Done(output) | Mark::Undoing(Some(output))) => Some(read(&output)?),
            Some(Mark::Begun(_) | Mark::Undoing(None)) => None,
        };
        let undone = undo(output).await?;
        self.work(key, |locked, key| locked.undone(key)).await?;
        Ok(Some(undone))
    }

    /// Work on the locked file, on a thread that may block.
    async fn work<Output: Send + 'static>(
        &self,
        key: &str,
        work: impl FnOnce(&mut Locked<'_>, &str) -> io::Result<Output> + Send + 'static,
    ) -> Result<Output, Failure> {
        let log = self.clone();
        let key = key.to_owned();
        let done = tokio::task::spawn_blocking(move || work(&mut log.lock()?, &key)).await;
        match done {
            Ok(result) => result.map_err(|error| {
                Failure::retryable(format!("{}: {error}", self.shared.path.display()))
            }),
            Err(_) => Err(Failure::retryable("the agent is stopping")),
        }
    }

    fn key_lock(&self, key: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut keys = self.shared.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = keys.get(key).and_then(Weak::upgrade) {
            return lock;
        }
        keys.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::new(tokio::sync::Mutex::new(()));
        keys.insert(key.to_owned(), Arc::downgrade(&lock));
        lock
    }
}

fn undone(key: &str) -> Failure {
    Failure::permanent(format!("it was undone: what comes late under the key `{key}` is refused"))
        .code(UNDONE_CODE)
        .no_effect()
}

fn read<Output: DeserializeOwned>(text: &str) -> Result<Output, Failure> {
    serde_json::from_str(text).map_err(|error| {
        Failure::permanent(format!("the output kept in the effect log does not fit: {error}"))
    })
}

fn write(output: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(output).map_err(|error| {
        Failure::permanent(format!("the output cannot be kept in the effect log: {error}"))
    })
}
