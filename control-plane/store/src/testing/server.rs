//! A PostgreSQL server for one test process: in a temporary folder, reached by a socket in it, so
//! that any number of processes have one each.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Where distributions put the binaries of each major version.
const VERSIONS_FOLDER: &str = "/usr/lib/postgresql";

/// Starts the server, says so, and waits for the end of its input, which comes when the test
/// process is gone, however it went; then it cleans up. `$1` binaries, `$2` folder, `$3` further
/// settings.
const WATCHDOG: &str = r#"
cd "$2" || exit 1
"$1/initdb" -D "$2/data" -U postgres -A trust -E UTF8 --locale=C -N >"$2/log" 2>&1 &&
"$1/pg_ctl" -D "$2/data" -l "$2/log" -w -t 60 -o "-c listen_addresses= -c fsync=on \
    -c unix_socket_directories='$2' -c max_connections=300 $3" start >>"$2/log" 2>&1 &&
echo ready && cat >/dev/null
test -f "$2/data/postmaster.pid" || cat "$2/log"
"$1/pg_ctl" -D "$2/data" -m immediate stop >/dev/null 2>&1
rm -rf "$2"
"#;

/// Copies a running server, starts the copy as its standby and waits until the first one waits for
/// it with each commit; from then on as [`WATCHDOG`]. `$1` binaries, `$2` the first one's folder,
/// `$3` the standby's, `$4` its further settings.
const STANDBY: &str = r#"
cd "$3" || exit 1
port=$(sed -n 4p "$2/data/postmaster.pid")
ask() { "$1/psql" -h "$2" -p "$port" -U postgres -Atqc "$3" 2>>"$4/log"; }
is_synchronous() {
    for attempt in $(seq 300); do
        state=$(ask "$1" "$2" "SELECT sync_state FROM pg_stat_replication" "$3")
        test "$state" = sync && return
        sleep 0.1
    done
    echo "it does not become synchronous" >>"$3/log"
    return 1
}
"$1/pg_basebackup" -h "$2" -p "$port" -U postgres -D "$3/data" -X stream -c fast -R \
    >"$3/log" 2>&1 &&
"$1/pg_ctl" -D "$3/data" -l "$3/log" -w -t 60 -o "-c listen_addresses= -c fsync=on \
    -c unix_socket_directories='$3' -c max_connections=300 $4" start >>"$3/log" 2>&1 &&
ask "$1" "$2" "ALTER SYSTEM SET synchronous_standby_names = '*'" "$3" &&
ask "$1" "$2" "SELECT pg_reload_conf()" "$3" >>"$3/log" &&
is_synchronous "$1" "$2" "$3" && echo ready && cat >/dev/null || cat "$3/log"
"$1/pg_ctl" -D "$3/data" -m immediate stop >/dev/null 2>&1
rm -rf "$3"
"#;

/// A running server. It ends when this process does: the pipe to its watchdog closes.
#[derive(Debug)]
pub struct Server {
    folder: PathBuf,
    binaries: PathBuf,
    settings: String,
    root: bool,
    /// Held for its input.
    _watchdog: Child,
}

impl Server {
    pub(super) fn start() -> Result<Self, String> {
        Self::start_with(&[])
    }

    /// Starts one with further settings, as `("shared_buffers", "256MB")`.
    ///
    /// # Errors
    /// When PostgreSQL is not installed and cannot be, or does not start; the text says why.
    pub fn start_with(settings: &[(&str, &str)]) -> Result<Self, String> {
        let settings: String =
            settings.iter().map(|(name, value)| format!(" -c {name}={value}")).collect();
        let root = is_root()?;
        let binaries = match find_binaries() {
            Some(binaries) => binaries,
            None => install(root)?,
        };
        // A folder of links may have the server's binaries alone, without the other tools.
        let real = binaries.join("pg_ctl").canonicalize().ok();
        let binaries = real.and_then(|file| Some(file.parent()?.to_owned())).unwrap_or(binaries);
        let folder = tempfile::Builder::new().prefix("orchestrator-postgres-").tempdir();
        let folder = folder.map_err(|error| format!("no temporary folder: {error}"))?;
        // The watchdog removes it: this process may be killed.
        let folder = folder.keep();
        if root {
            give_to_postgres(&folder)?;
        }
        let mut watchdog = shell(root)
            .args(["-c", WATCHDOG, "watchdog"])
            .args([&binaries, &folder])
            .arg(&settings)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Out of the group that an interrupt at the terminal goes to.
            .process_group(0)
            .spawn()
            .map_err(|error| format!("no shell for the server: {error}"))?;
        let said = watchdog.stdout.take().map(|output| first_line(BufReader::new(output)));
        match said {
            Some(Ok(line)) if line == "ready" => {
                Ok(Self { folder, binaries, settings, root, _watchdog: watchdog })
            }
            Some(Ok(log)) => Err(format!("the server did not start: {log}")),
            _ => Err("the server's watchdog said nothing".to_owned()),
        }
    }

    /// The address of its database `postgres`, by a socket.
    #[must_use]
    pub fn url(&self) -> String {
        let folder = self.folder.display().to_string().replace('/', "%2F");
        format!("postgres://postgres@{folder}/postgres")
    }

    /// Ends it as a crash would: its main process is killed, and the others with it.
    ///
    /// # Errors
    /// When it is not running.
    pub fn kill(&self) -> Result<(), String> {
        let process = self.process_id()?;
        // Its children notice by themselves; those that do not are ended by a stop at once.
        run(Command::new("kill").args(["-KILL", &process.to_string()]))?;
        let mut stop = self.pg_ctl();
        stop.args(["-m", "immediate", "stop"]);
        // There may be nothing left to stop.
        drop(run(&mut stop));
        Ok(())
    }

    /// Starts it again after [`Server::kill`]; returns once it has recovered.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_again(&self) -> Result<(), String> {
        let options = format!(
            "-c listen_addresses= -c fsync=on -c unix_socket_directories='{}' \
             -c max_connections=300 {}",
            self.folder.display(),
            self.settings
        );
        let log = self.folder.join("log");
        let mut start = self.pg_ctl();
        start.arg("-l").arg(&log).args(["-w", "-t", "60", "-o", &options, "start"]);
        // The processes of a killed server may hold its memory for a moment.
        let mut last = Err(String::new());
        for _ in 0..STARTS_MAX {
            last = run(&mut start);
            if last.is_ok() {
                break;
            }
        }
        last
    }

    /// A second server that has all that this one commits before that is acknowledged, with
    /// further settings of its own.
    ///
    /// # Errors
    /// When it cannot be made; the text says why.
    pub fn synchronous_standby(&self, settings: &[(&str, &str)]) -> Result<Self, String> {
        let settings: String =
            settings.iter().map(|(name, value)| format!(" -c {name}={value}")).collect();
        let folder = tempfile::Builder::new().prefix("orchestrator-postgres-").tempdir();
        let folder = folder.map_err(|error| format!("no temporary folder: {error}"))?.keep();
        if self.root {
            give_to_postgres(&folder)?;
        }
        let mut watchdog = shell(self.root)
            .args(["-c", STANDBY, "standby"])
            .args([&self.binaries, &self.folder, &folder])
            .arg(&settings)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|error| format!("no shell for the standby: {error}"))?;
        let said = watchdog.stdout.take().map(|output| first_line(BufReader::new(output)));
        match said {
            Some(Ok(line)) if line == "ready" => {
                let binaries = self.binaries.clone();
                Ok(Self { folder, binaries, settings, root: self.root, _watchdog: watchdog })
            }
            Some(Ok(log)) => Err(format!("the standby did not start: {log}")),
            _ => Err("the standby's watchdog said nothing".to_owned()),
        }
    }

    /// Makes a standby the primary; returns once it is. The old one must be gone.
    ///
    /// # Errors
    /// When it is no standby.
    pub fn promote(&self) -> Result<(), String> {
        run(self.pg_ctl().args(["-w", "-t", "60", "promote"]))
    }

    fn pg_ctl(&self) -> Command {
        let program = self.binaries.join("pg_ctl");
        let mut command = if self.root {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.arg("-D").arg(self.folder.join("data")).current_dir(&self.folder);
        command
    }

    /// The process that all its others are children of.
    ///
    /// # Errors
    /// When it is not running.
    pub fn process_id(&self) -> Result<u32, String> {
        let file = self.folder.join("data/postmaster.pid");
        let text = std::fs::read_to_string(&file)
            .map_err(|error| format!("the server is not running: {error}"))?;
        let first = text.lines().next().and_then(|line| line.trim().parse().ok());
        first.ok_or_else(|| format!("{} names no process", file.display()))
    }
}

/// How often a start is tried behind a crash.
const STARTS_MAX: u32 = 20;

/// Runs a command that says nothing when all is well.
fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    // What a server inherits it holds for as long as it runs, so nobody reads it to its end.
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let status = command.status().map_err(|error| format!("`{name}` cannot be run: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("`{name}` failed: {status}")) }
}

fn shell(root: bool) -> Command {
    if !root {
        return Command::new("sh");
    }
    let mut command = Command::new("runuser");
    command.args(["-u", "postgres", "--", "sh"]);
    command
}

/// The first line, or all of it when that is not what a server says that has started.
fn first_line(mut output: impl BufRead) -> std::io::Result<String> {
    let mut text = String::new();
    output.read_line(&mut text)?;
    if text.trim_end() != "ready" {
        output.read_to_string(&mut text)?;
    }
    Ok(text.trim_end().to_owned())
}

/// From the path, or of the newest version that is installed.
pub(super) fn find_binaries() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).find(|folder| holds_server(folder));
    on_path.or_else(|| {
        let versions = std::fs::read_dir(VERSIONS_FOLDER).ok()?;
        versions
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let version: u32 = entry.file_name().to_str()?.parse().ok()?;
                Some((version, entry.path().join("bin")))
            })
            .filter(|(_, folder)| holds_server(folder))
            .max()
            .map(|(_, folder)| folder)
    })
}

fn holds_server(folder: &Path) -> bool {
    ["initdb", "pg_ctl", "postgres"].iter().all(|name| folder.join(name).is_file())
}

fn install(root: bool) -> Result<PathBuf, String> {
    let missing = format!(
        "neither the path nor {VERSIONS_FOLDER} has initdb, pg_ctl and postgres; install \
         PostgreSQL's server or name one in {}",
        super::DATABASE_URL_VARIABLE
    );
    if !root {
        return Err(missing);
    }
    let mut command = Command::new("apt-get");
    command.args(["install", "-y", "-q", "--no-install-recommends", "postgresql"]);
    command.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
    let output = command.output().map_err(|error| format!("{missing} (apt-get: {error})"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{missing} (apt-get: {})", said.trim()));
    }
    find_binaries().ok_or(missing)
}

fn is_root() -> Result<bool, String> {
    let output = Command::new("id").arg("-u").output();
    let output = output.map_err(|error| format!("`id` cannot be run: {error}"))?;
    Ok(output.stdout.trim_ascii() == b"0")
}

/// A server refuses to run as root: it runs as the user `postgres`, who must own its folder.
fn give_to_postgres(folder: &Path) -> Result<(), String> {
    let done = Command::new("chown").arg("postgres").arg(folder).output();
    let done = done.map_err(|error| format!("`chown` cannot be run: {error}"))?;
    if !done.status.success() {
        return Err("as root there must be a user `postgres` to run the server as".to_owned());
    }
    Ok(())
}
