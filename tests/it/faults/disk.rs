//! The disk is full, or files must not grow any more.

use std::path::Path;
use std::process::Command;

use super::{Place, World};
use crate::support::{Server, binary};

/// A file system of a few megabytes, gone with this.
struct Small<'a>(&'a Path);

impl<'a> Small<'a> {
    /// `None` where nobody may mount.
    fn mount(at: &'a Path) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let options = ["-t", "tmpfs", "-o", "size=8m", "tmpfs"];
        let done = Command::new("mount").args(options).arg(at).output().ok()?;
        done.status.success().then_some(Self(at))
    }

    fn grow(&self) {
        let grown = Command::new("mount").args(["-o", "remount,size=64m"]).arg(self.0).status();
        assert!(grown.unwrap().success());
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.0).status());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_work_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let Some(small) = Small::mount(&data) else {
        // Without the right to mount there is the bound on the size of files below.
        assert_ne!(is_root(), Some(true), "root may mount");
        return;
    };
    let server = Server::start("serve", &data, None, &[]);
    let world = World::with(server, Place::Sqlite, folder);
    world.load.reaches(40).await;
    // Somebody else takes what is left.
    drop(std::fs::write(data.join("filler"), vec![0; 16 * 1024 * 1024]));
    world.is_quiet().await;
    assert!(!world.load.is_asked(), "what nobody can write is not promised");
    small.grow();
    world.load.ends_well().await;
}

/// The same where nobody may mount: the process may write no file beyond a size for a while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_must_not_grow_stop_work_and_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    // The signal that comes with such a write would end the process.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(binary());
    let server = Server::start_by(command, "serve", &folder.path().join("data"), None, &[]);
    let world = World::with(server, Place::Sqlite, folder);
    world.load.reaches(40).await;
    let process = world.server.process.id();
    if !bound_files(process, Some(4096)) {
        return;
    }
    world.is_quiet().await;
    assert!(!world.load.is_asked(), "what nobody can write is not promised");
    assert!(bound_files(process, None));
    world.load.ends_well().await;
}

/// False where there is no `prlimit`.
fn bound_files(process: u32, bytes: Option<u64>) -> bool {
    let soft = bytes.map_or("unlimited".to_owned(), |bytes| bytes.to_string());
    let process = process.to_string();
    let bounded =
        Command::new("prlimit").args(["--pid", &process, &format!("--fsize={soft}:")]).output();
    bounded.is_ok_and(|done| done.status.success())
}

/// Whether this is root.
fn is_root() -> Option<bool> {
    let output = Command::new("id").arg("-u").output().ok()?;
    Some(output.stdout.trim_ascii() == b"0")
}
