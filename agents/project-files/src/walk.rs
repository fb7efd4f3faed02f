//! Goes through a folder's files one by one. It must not follow links, open anything but
//! regular files, or hold more than one file's content.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::limits;

/// One file of a project.
#[derive(Debug)]
pub struct File {
    /// The path within the project, with `/` between its parts.
    pub path: String,
    /// What is in it.
    pub text: Text,
}

/// What a file holds.
#[derive(Debug)]
pub enum Text {
    /// Text in UTF-8.
    Utf8(String),
    /// Text in another encoding; what is not UTF-8 is replaced by U+FFFD.
    Other(String),
    /// No text.
    Binary,
    /// More than [`limits::FILE_BYTES_MAX`] bytes, and therefore not read.
    TooLarge,
    /// It could not be read.
    Unreadable(String),
}

impl Text {
    /// The text, where there is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Utf8(text) | Self::Other(text) => Some(text),
            Self::Binary | Self::TooLarge | Self::Unreadable(_) => None,
        }
    }
}

/// What was seen, and what was passed over.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Coverage {
    /// Files handed out.
    pub files: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Files and folders that could not be read, or are too large or too deep.
    pub passed_over: u64,
    /// Symbolic links, which are never followed.
    pub links: u64,
    /// Whether a bound ended the walk early.
    pub truncated: bool,
}

/// An iterator over a project's files, in the order of their paths.
#[derive(Debug)]
pub struct Walk<'a> {
    root: PathBuf,
    skip_folders: &'a [&'a str],
    // The next one last.
    pending: Vec<Pending>,
    entries: usize,
    coverage: Coverage,
}

#[derive(Debug)]
enum Pending {
    Folder(PathBuf, usize),
    File(PathBuf),
}

impl<'a> Walk<'a> {
    pub(crate) fn new(root: PathBuf, skip_folders: &'a [&'a str]) -> Self {
        Self {
            pending: vec![Pending::Folder(root.clone(), 0)],
            root,
            skip_folders,
            entries: 0,
            coverage: Coverage::default(),
        }
    }

    /// What was seen so far.
    pub fn coverage(&self) -> &Coverage {
        &self.coverage
    }

    fn open_folder(&mut self, folder: &Path, depth: usize) {
        let Ok(entries) = fs::read_dir(folder) else {
            self.coverage.passed_over += 1;
            return;
        };
        if depth > limits::DEPTH_MAX {
            self.coverage.passed_over += 1;
            return;
        }
        let mut found = Vec::new();
        for entry in entries {
            if self.entries >= limits::ENTRY_COUNT_MAX {
                self.coverage.truncated = true;
                break;
            }
            self.entries += 1;
            // The entry's own type: a link to a folder is a link here, not a folder.
            let Ok((entry, kind)) = entry.and_then(|entry| {
                let kind = entry.file_type()?;
                Ok((entry, kind))
            }) else {
                self.coverage.passed_over += 1;
                continue;
            };
            if kind.is_symlink() {
                self.coverage.links += 1;
            } else if kind.is_file() {
                found.push(Pending::File(entry.path()));
            } else if kind.is_dir() && !self.is_skipped(&entry.file_name().to_string_lossy()) {
                found.push(Pending::Folder(entry.path(), depth + 1));
            }
        }
        found.sort_by(|left, right| right.path().cmp(left.path()));
        self.pending.append(&mut found);
    }

    fn is_skipped(&self, name: &str) -> bool {
        self.skip_folders.contains(&name)
    }

    fn read(&mut self, path: &Path) -> File {
        let relative = path.strip_prefix(&self.root).unwrap_or(path);
        let name = relative.to_string_lossy().into_owned();
        self.coverage.files += 1;
        let text = match read_bounded(path) {
            Ok(Some(bytes)) => {
                self.coverage.bytes += bytes.len() as u64;
                decode(bytes)
            }
            Ok(None) => Text::TooLarge,
            Err(error) => Text::Unreadable(error.to_string()),
        };
        if matches!(text, Text::TooLarge | Text::Unreadable(_)) {
            self.coverage.passed_over += 1;
        }
        File { path: name, text }
    }
}

impl Pending {
    fn path(&self) -> &Path {
        match self {
            Self::Folder(path, _) | Self::File(path) => path,
        }
    }
}

impl Iterator for Walk<'_> {
    type Item = File;

    fn next(&mut self) -> Option<File> {
        loop {
            match self.pending.pop()? {
                Pending::Folder(path, depth) => self.open_folder(&path, depth),
                Pending::File(path) => {
                    let full = self.coverage.files >= limits::FILE_COUNT_MAX
                        || self.coverage.bytes >= limits::TOTAL_BYTES_MAX;
                    if full {
                        self.coverage.truncated = true;
                        self.pending.clear();
                        return None;
                    }
                    return Some(self.read(&path));
                }
            }
        }
    }
}

/// None when the file is too large. Its size is not trusted, since files grow.
fn read_bounded(path: &Path) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let mut file = fs::File::open(path)?.take(limits::FILE_BYTES_MAX + 1);
    file.read_to_end(&mut bytes)?;
    let fits = bytes.len() as u64 <= limits::FILE_BYTES_MAX;
    Ok(fits.then_some(bytes))
}

fn decode(bytes: Vec<u8>) -> Text {
    let head = &bytes[..bytes.len().min(limits::SNIFF_BYTES)];
    if head.contains(&0) {
        return Text::Binary;
    }
    match String::from_utf8(bytes) {
        Ok(text) => Text::Utf8(text),
        Err(error) => Text::Other(String::from_utf8_lossy(error.as_bytes()).into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Project;

    fn project(folder: &tempfile::TempDir) -> Project {
        Project::open(folder.path().to_str().unwrap()).unwrap()
    }

    #[test]
    fn files_come_in_order_and_skipped_folders_do_not() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["b/two.txt", "a.txt", "node_modules/x/y.js", "b/one.txt"] {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        let files: Vec<String> =
            project(&folder).walk(&["node_modules"]).map(|file| file.path).collect();
        assert_eq!(files, ["a.txt", "b/one.txt", "b/two.txt"]);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_counted_and_never_followed() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret.txt"), "outside").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let link = |to: &Path, name: &str| {
            std::os::unix::fs::symlink(to, folder.path().join(name)).unwrap();
        };
        link(folder.path(), "loop");
        link(outside.path(), "away");
        link(&outside.path().join("secret.txt"), "file");
        fs::write(folder.path().join("own.txt"), "own").unwrap();
        let project = project(&folder);
        let mut walk = project.walk(&[]);
        let files: Vec<String> = walk.by_ref().map(|file| file.path).collect();
        assert_eq!(files, ["own.txt"]);
        assert_eq!(walk.coverage().links, 3);
    }

    #[test]
    fn what_is_no_text_is_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("binary"), [0, 1, 2]).unwrap();
        fs::write(folder.path().join("latin"), b"caf\xe9").unwrap();
        let size = usize::try_from(limits::FILE_BYTES_MAX).unwrap();
        fs::write(folder.path().join("most"), vec![b'x'; size]).unwrap();
        fs::write(folder.path().join("more"), vec![b'x'; size + 1]).unwrap();
        let files: Vec<File> = project(&folder).walk(&[]).collect();
        let text = |name: &str| &files.iter().find(|file| file.path == name).unwrap().text;
        assert!(matches!(text("binary"), Text::Binary));
        assert!(matches!(text("latin"), Text::Other(text) if text == "caf\u{fffd}"));
        assert!(matches!(text("most"), Text::Utf8(_)));
        assert!(matches!(text("more"), Text::TooLarge));
    }

    #[test]
    fn a_folder_that_is_none_is_refused_by_name() {
        let relative = Project::open("some/where").unwrap_err().to_string();
        assert!(relative.starts_with("project_dir: "), "{relative}");
        let missing = Project::open("/no/such/folder").unwrap_err().to_string();
        assert!(missing.contains("cannot be opened"), "{missing}");
        let file = tempfile::NamedTempFile::new().unwrap();
        let file = Project::open(file.path().to_str().unwrap()).unwrap_err();
        assert!(matches!(file, crate::Error::NotFolder(_)));
    }
}
