//! Starts a project's command in a process group of its own, and sees to it that nothing of
//! the group is left, however the measurement ends. It must not hand the agent's own
//! environment on: that may hold secrets.

use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::limits;

/// What a project's command may know of the agent's environment.
const PASSED_ON: [&str; 14] = [
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "CARGO_HOME",
    "RUSTUP_HOME",
    "RUSTUP_TOOLCHAIN",
    "PYENV_ROOT",
    "PYENV_VERSION",
    "NVM_DIR",
    "VIRTUAL_ENV",
];

/// A running command. Dropping it kills the whole group at once.
#[derive(Debug)]
pub struct Process {
    child: Child,
    group: Option<Pid>,
    printed: Printed,
}

/// What a process has printed of late, and the address that it says it listens on.
#[derive(Debug, Clone)]
pub struct Printed {
    text: Arc<Mutex<String>>,
    address: watch::Receiver<Option<String>>,
}

impl Process {
    /// Starts a command in a folder with these variables besides the usual ones.
    pub fn start(
        command: &[String],
        folder: &Path,
        variables: &[(&str, &str)],
    ) -> io::Result<Self> {
        let (program, arguments) =
            command.split_first().ok_or_else(|| io::Error::other("no command is given"))?;
        let program = if program.contains('/') {
            folder.join(program).into_os_string()
        } else {
            program.into()
        };
        let passed_on = PASSED_ON.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
        let mut child = Command::new(program)
            .args(arguments)
            .current_dir(folder)
            .env_clear()
            .envs(passed_on)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let group = child.id().and_then(|id| i32::try_from(id).ok());
        let (sender, address) = watch::channel(None);
        let sender = Arc::new(sender);
        let printed = Printed { text: Arc::default(), address };
        if let Some(stdout) = child.stdout.take() {
            tokio::spawn(listen(stdout, printed.clone(), Arc::clone(&sender)));
        }
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(listen(stderr, printed.clone(), sender));
        }
        Ok(Self { child, group: group.and_then(Pid::from_raw), printed })
    }

    /// What it has printed.
    pub fn printed(&self) -> &Printed {
        &self.printed
    }

    /// Waits for its end.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Asks it to end, and kills what is left after a while.
    pub async fn stop(mut self) {
        self.signal(Signal::TERM);
        let _ = timeout(limits::STOP_TIME_MAX, self.child.wait()).await;
        self.signal(Signal::KILL);
        // Reaps it, so that it does not stay as a zombie.
        let _ = timeout(limits::STOP_TIME_MAX, self.child.wait()).await;
        self.group = None;
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // An error means that nobody is left in the group.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

impl Printed {
    /// Waits until an address is printed; none when the output ends without one.
    pub async fn address(&self) -> Option<String> {
        let mut address = self.address.clone();
        let found = address.wait_for(Option::is_some).await.ok()?;
        found.clone()
    }

    /// Waits a moment until all of what an ended process printed is read.
    pub async fn finished(&self) {
        let mut address = self.address.clone();
        let read = async { while address.changed().await.is_ok() {} };
        // A process that outlives the one asked for may keep the pipe open.
        let _ = timeout(limits::LAST_WORDS_TIME_MAX, read).await;
    }

    /// The last of what was printed, to be quoted.
    pub fn tail(&self) -> String {
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        let text = text.trim();
        let skipped = text.chars().count().saturating_sub(limits::QUOTED_CHARS_MAX);
        text.chars().skip(skipped).collect()
    }

    fn add(&self, bytes: &[u8]) -> Option<String> {
        let mut text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        text.push_str(&String::from_utf8_lossy(bytes));
        let mut surplus = text.len().saturating_sub(limits::PRINTED_BYTES_MAX);
        while !text.is_char_boundary(surplus) {
            surplus += 1;
        }
        text.drain(..surplus);
        address_in(&text)
    }
}

async fn listen(
    mut stream: impl AsyncRead + Unpin,
    printed: Printed,
    address: Arc<watch::Sender<Option<String>>>,
) {
    let mut buffer = [0; 4096];
    // Read to the end even when nobody asks: a full pipe would stop the process.
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        let found = printed.add(&buffer[..count]);
        if found.is_some() && address.borrow().is_none() {
            address.send_replace(found);
        }
    }
}

/// The address in the first whole line that has one.
fn address_in(text: &str) -> Option<String> {
    let (whole, _) = text.rsplit_once('\n')?;
    let (_, rest) = whole.split_once("listening on http://")?;
    let address = rest.split_whitespace().next()?;
    Some(format!("http://{address}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn shell(script: &str, variables: &[(&str, &str)]) -> Process {
        let command = ["sh", "-c", script].map(str::to_owned);
        Process::start(&command, Path::new("/"), variables).unwrap()
    }

    #[tokio::test]
    async fn the_address_is_read_from_what_is_printed() {
        let process =
            shell("echo hello; echo listening on http://127.0.0.1:$PORT/x", &[("PORT", "17")]);
        let address = process.printed().address().await;
        assert_eq!(address.as_deref(), Some("http://127.0.0.1:17/x"));
        let silent = shell("echo nothing", &[]);
        assert_eq!(silent.printed().address().await, None);
        assert_eq!(silent.printed().tail(), "nothing");
    }

    #[tokio::test]
    async fn the_agents_variables_are_not_handed_on() {
        let mut process = shell("test -n \"$PATH\" && test -z \"$CARGO_MANIFEST_DIR\"", &[]);
        assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
        assert!(process.wait().await.unwrap().success());
    }

    /// Whether a process of the group still runs. One that has ended, but that nobody has
    /// asked how, does not.
    fn runs(group: Pid) -> bool {
        let stats = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
            let path = entry.ok()?.path().join("stat");
            std::fs::read_to_string(path).ok()
        });
        let group = group.as_raw_nonzero().to_string();
        stats.into_iter().any(|stat| {
            let (_, rest) = stat.rsplit_once(") ").unwrap();
            let mut words = rest.split(' ');
            let state = words.next();
            state != Some("Z") && words.nth(1) == Some(group.as_str())
        })
    }

    async fn gone(group: Pid) {
        let look = async {
            while runs(group) {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(10), look).await.expect("the group ends");
    }

    #[tokio::test]
    async fn nothing_of_the_group_is_left() {
        let script = "trap '' TERM; sleep 1000 & echo listening on http://x/; wait; wait";
        for drops in [false, true] {
            let process = shell(script, &[]);
            process.printed().address().await.unwrap();
            let group = process.group.unwrap();
            assert!(runs(group));
            if drops {
                drop(process);
            } else {
                process.stop().await;
            }
            gone(group).await;
        }
    }

    #[test]
    fn only_whole_lines_have_an_address() {
        assert_eq!(address_in("listening on http://127.0.0.1:80"), None);
        assert_eq!(
            address_in("a\nlistening on http://127.0.0.1:8080\nb").as_deref(),
            Some("http://127.0.0.1:8080")
        );
    }

    #[test]
    fn a_command_that_is_not_there_is_an_error() {
        let command = ["no-such-command-anywhere".to_owned()];
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _guard = runtime.enter();
        let error = Process::start(&command, Path::new("/"), &[]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
