//! A target: the folder of a project's releases. `current` is a link to one of them and is only
//! ever switched by a rename, so that it always leads to a whole release.
//!
//! ```text
//! <target>/current -> releases/<id>
//! <target>/releases/<id>/          the release
//! <target>/releases/<id>.json      what is known of it; there once the release is whole
//! <target>/.lock                   who holds it may change the target
//! ```

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use agent_sdk::Failure;
use project_files::durable;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::files::{self, Copied, remove_file, remove_folder, replace, sync};

/// How many releases are looked at in one target.
const RELEASES_MAX: usize = 10_000;

/// What is known of a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Its folder's name.
    pub id: String,
    /// The version that the project had.
    pub version: String,
    /// The project that was deployed.
    pub project_dir: String,
    /// The release that was current before.
    pub previous: Option<String>,
    /// Its place in the order of releases.
    pub sequence: u64,
}

/// A target that nobody else changes meanwhile.
#[derive(Debug)]
pub struct Target {
    root: PathBuf,
    _lock: File,
}

impl Target {
    /// Waits until nobody else changes the target, and removes what broken-off work left.
    pub fn lock(root: &Path) -> Result<Self, Failure> {
        let releases = root.join("releases");
        fs::create_dir_all(&releases).map_err(Failure::io("make the folder", &releases))?;
        let path = root.join(".lock");
        let lock = durable::lock(&path).map_err(Failure::io("lock", &path))?;
        let target = Self { root: root.to_owned(), _lock: lock };
        target.sweep()?;
        Ok(target)
    }

    /// The link to the current release.
    pub fn current_path(&self) -> PathBuf {
        self.root.join("current")
    }

    /// The folder of a release.
    pub fn release_path(&self, id: &str) -> PathBuf {
        self.root.join("releases").join(id)
    }

    /// Which release is current.
    pub fn current(&self) -> Result<Option<String>, Failure> {
        let path = self.current_path();
        let leads_to = match fs::read_link(&path) {
            Ok(leads_to) => leads_to,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == ErrorKind::InvalidInput => return Err(foreign(&path)),
            Err(error) => return Err(Failure::io("read the link", &path)(error)),
        };
        let id = leads_to.strip_prefix("releases").ok().and_then(Path::to_str);
        match id.filter(|id| is_id(id)) {
            Some(id) => Ok(Some(id.to_owned())),
            None => Err(foreign(&path)),
        }
    }

    /// All whole releases, the oldest first.
    pub fn releases(&self) -> Result<Vec<Release>, Failure> {
        let mut releases = Vec::new();
        for name in self.names()? {
            let id = name.strip_suffix(".json").filter(|id| is_id(id));
            if let Some(release) = id.map(|id| self.release(id)).transpose()?.flatten() {
                releases.push(release);
            }
        }
        releases.sort_by_key(|release| release.sequence);
        Ok(releases)
    }

    /// What is known of a release; `None` when it is not there, or not whole.
    pub fn release(&self, id: &str) -> Result<Option<Release>, Failure> {
        let path = self.record_path(id);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::io("read", &path)(error)),
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| {
            Failure::permanent(format!("the record {} is damaged: {error}", path.display()))
        })
    }

    /// Copies a project into a release, and writes down what is known of it once the copy is
    /// whole and durable. It is not current yet.
    pub fn prepare(
        &self,
        release: &Release,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<Copied, Failure> {
        let (staging, place) =
            (self.hidden(&release.id, "staging"), self.release_path(&release.id));
        remove_folder(&staging)?;
        let copied =
            match files::copy_folder(Path::new(&release.project_dir), &staging, is_cancelled) {
                Ok(copied) => copied,
                Err(failure) => {
                    remove_folder(&staging)?;
                    return Err(failure);
                }
            };
        remove_folder(&place)?;
        fs::rename(&staging, &place).map_err(Failure::io("put in its place", &place))?;
        sync(&self.root.join("releases"))?;
        self.record(release)?;
        Ok(copied)
    }

    /// Writes down what is known of a release.
    pub fn record(&self, release: &Release) -> Result<(), Failure> {
        let text = serde_json::to_vec_pretty(release);
        let text = text.map_err(|error| Failure::permanent(format!("no JSON: {error}")))?;
        replace(&self.record_path(&release.id), &text)
    }

    /// Makes a release current, or none. Until the rename the old one is current, from then on
    /// the new one.
    pub fn switch(&self, id: Option<&str>) -> Result<(), Failure> {
        let current = self.current_path();
        let Some(id) = id else {
            remove_file(&current)?;
            return sync(&self.root);
        };
        let new = self.new_link();
        remove_file(&new)?;
        std::os::unix::fs::symlink(Path::new("releases").join(id), &new)
            .map_err(Failure::io("make the link", &new))?;
        fs::rename(&new, &current).map_err(Failure::io("switch", &current))?;
        sync(&self.root)
    }

    /// Removes a release. The releases that came after it then come after its predecessor.
    pub fn remove(&self, id: &str) -> Result<(), Failure> {
        if let Some(gone) = self.release(id)? {
            for mut release in self.releases()? {
                if release.previous.as_deref() == Some(id) {
                    release.previous.clone_from(&gone.previous);
                    self.record(&release)?;
                }
            }
        }
        self.discard(id)
    }

    /// Removes the oldest releases beyond `keep`, but never the current one or the one before.
    pub fn prune(&self, keep: usize) -> Result<Vec<String>, Failure> {
        let releases = self.releases()?;
        let current = self.current()?;
        let before = releases.iter().find(|release| Some(&release.id) == current.as_ref());
        let before = before.and_then(|release| release.previous.clone());
        let mut surplus = releases.len().saturating_sub(keep);
        let mut pruned = Vec::new();
        for release in releases {
            let id = Some(release.id);
            if surplus == 0 {
                break;
            }
            if id != current && id != before {
                pruned.extend(id);
                surplus -= 1;
            }
        }
        for id in &pruned {
            self.discard(id)?;
        }
        Ok(pruned)
    }

    /// The record goes first, so that what is left in between counts as not whole.
    fn discard(&self, id: &str) -> Result<(), Failure> {
        let (place, old) = (self.release_path(id), self.hidden(id, "old"));
        remove_file(&self.record_path(id))?;
        sync(&self.root.join("releases"))?;
        match fs::rename(&place, &old) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(Failure::io("move away", &place)(error));
            }
            _ => {}
        }
        remove_folder(&old)
    }

    /// Removes what copies, removals and writes left that were broken off.
    fn sweep(&self) -> Result<(), Failure> {
        let link = self.new_link();
        if link.is_symlink() {
            remove_file(&link)?;
        }
        for name in self.names()? {
            let record = name.strip_suffix(durable::NEW_SUFFIX);
            if let Some(id) = record.and_then(|record| record.strip_suffix(".json"))
                && is_id(id)
            {
                remove_file(&self.root.join("releases").join(&name))?;
                continue;
            }
            let inner = name.strip_prefix('.').unwrap_or_default();
            let id = inner.strip_suffix(".staging").or_else(|| inner.strip_suffix(".old"));
            if id.is_some_and(is_id) {
                remove_folder(&self.root.join("releases").join(&name))?;
            }
        }
        Ok(())
    }

    fn names(&self) -> Result<Vec<String>, Failure> {
        let folder = self.root.join("releases");
        let mut names = Vec::new();
        for entry in fs::read_dir(&folder).map_err(Failure::io("read", &folder))? {
            let name = entry.map_err(Failure::io("read", &folder))?.file_name();
            // Names that are not UTF-8 are not ours.
            names.extend(name.into_string());
            if names.len() > RELEASES_MAX {
                let folder = folder.display();
                let message = format!("{folder} has more than {RELEASES_MAX} entries");
                return Err(Failure::permanent(message));
            }
        }
        Ok(names)
    }

    fn hidden(&self, id: &str, kind: &str) -> PathBuf {
        self.root.join("releases").join(format!(".{id}.{kind}"))
    }

    /// The link on its way to become the current one.
    fn new_link(&self) -> PathBuf {
        self.root.join(".current.new")
    }

    fn record_path(&self, id: &str) -> PathBuf {
        self.root.join("releases").join(format!("{id}.json"))
    }
}

/// The id of a release: its version, and what tells the deeds of equal versions apart.
pub fn id(version: &str, key: &str) -> String {
    let digest = Sha256::digest(key.as_bytes());
    let hash: String = digest[..6].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{version}-{hash}")
}

/// Whether a text can be the id of a release: one plain name that ends as [`id`] makes it.
fn is_id(text: &str) -> bool {
    let parts = text.rsplit_once('-');
    parts.is_some_and(|(version, hash)| {
        is_version(version) && hash.len() == 12 && hash.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

/// Whether a text can be a version: one plain name that begins with a letter or digit.
pub fn is_version(text: &str) -> bool {
    text.len() <= 64
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'+'))
}

fn foreign(path: &Path) -> Failure {
    Failure::permanent(format!(
        "{} is there already and is no link to a release; choose another `target`",
        path.display()
    ))
    .no_effect()
}
