//! The disk is full.

use std::path::Path;
use std::process::Command;

use super::load::Load;
use crate::support::{Server, agent};

/// A file system of a few megabytes, gone with this.
struct Small<'a>(&'a Path);

impl<'a> Small<'a> {
    /// `None` where nobody may mount.
    fn mount(at: &'a Path) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let options = ["-t", "tmpfs", "-o", "size=4m", "tmpfs"];
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

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_work_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let Some(small) = Small::mount(&data) else {
        // The store's own tests fill a database without a mount.
        assert_ne!(is_root(), Some(true), "root may mount");
        return;
    };
    let server = Server::start("serve", &data, None, &[]);
    let _agent = agent("echo", &server.url);
    let urls = [server.url.clone()];
    let mut load = Load::new(folder.path());
    load.start(&urls, 20).await;
    load.reaches(40).await;
    // Somebody else takes what is left.
    let room = data.join("filler");
    drop(std::fs::write(&room, vec![0; 8 * 1024 * 1024]));
    let full = async {
        let mut more = Load::new(&folder.path().join("more"));
        std::fs::create_dir_all(folder.path().join("more")).unwrap();
        more.start(&urls, 60).await;
        more
    };
    let grow = async {
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        small.grow();
    };
    let (more, ()) = tokio::join!(full, grow);
    load.judge(&urls).await;
    more.judge(&urls).await;
    drop(server);
}

/// Whether this is root.
fn is_root() -> Option<bool> {
    let output = Command::new("id").arg("-u").output().ok()?;
    Some(output.stdout.trim_ascii() == b"0")
}
