//! A sandbox with a service in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use agent_sdk::testing::Harness;
use remediator_agent::tools::Tools;
use serde_json::json;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};
use tempfile::TempDir;

/// What a test waits for happens within this time.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) const UP: &str = "CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT NOT NULL);
    INSERT INTO orders VALUES (1, 'a; b');";
pub(crate) const DOWN: &str = "DROP TABLE orders";

/// A sandbox, and the agent's records beside it.
pub(crate) struct World {
    folder: TempDir,
    pub(crate) harness: Harness,
}

impl World {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("sandbox")).unwrap();
        fs::create_dir(folder.path().join("records")).unwrap();
        let tools = Tools::at(folder.path().join("sandbox"), folder.path().join("records"));
        Self { folder, harness: Harness::new(remediator_agent::agent_with(&tools)) }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("sandbox")
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root().join(path)).unwrap()
    }

    /// Every record of the agent as one text.
    pub(crate) fn records(&self) -> String {
        let entries = fs::read_dir(self.folder.path().join("records")).unwrap();
        entries.filter_map(|entry| fs::read_to_string(entry.unwrap().path()).ok()).collect()
    }
}

/// Puts the manifest of a worker into a sandbox; what it starts ends by itself after a while,
/// so that no test leaves one behind.
pub(crate) fn manifest(sandbox: &Path) {
    fs::create_dir_all(sandbox.join("run")).unwrap();
    let manifest = json!({"command": ["sleep", "60"], "pid_file": "run/worker.pid"});
    fs::write(sandbox.join("worker.json"), manifest.to_string()).unwrap();
}

/// Whether the process of the pid file runs.
pub(crate) fn runs(sandbox: &Path) -> bool {
    let Ok(pid) = fs::read_to_string(sandbox.join("run/worker.pid")) else { return false };
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

/// The processes that run in this sandbox, whether or not a pid file names them.
pub(crate) fn count(sandbox: &Path) -> usize {
    let sandbox = sandbox.canonicalize().unwrap();
    let is_worker = |pid: &str| {
        let there = fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == sandbox);
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        there && command == b"sleep\x0060\0"
    };
    let entries = fs::read_dir("/proc").unwrap();
    entries.filter(|entry| is_worker(entry.as_ref().unwrap().file_name().to_str().unwrap())).count()
}

pub(crate) fn wait_until(what: impl Fn() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !what() {
        assert!(Instant::now() < until, "it does not happen");
        std::thread::yield_now();
    }
}

/// Starts a worker as somebody else would, without the agent.
pub(crate) fn start_elsewhere(sandbox: &Path) -> u32 {
    let mut child = Command::new("sleep").arg("60").current_dir(sandbox).spawn().unwrap();
    let pid = child.id();
    std::thread::spawn(move || child.wait());
    fs::write(sandbox.join("run/worker.pid"), pid.to_string()).unwrap();
    // For a moment a new process has no command line yet.
    wait_until(|| count(sandbox) == 1);
    pid
}

/// Everything in a database, as SQL and rows.
pub(crate) fn dump(path: &Path) -> String {
    let path = path.to_owned();
    on_a_runtime_of_its_own(async move {
        let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
        let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
        let tables = sqlx::query("SELECT name, sql FROM sqlite_schema ORDER BY name");
        let mut text = String::new();
        for table in tables.fetch_all(&mut connection).await.unwrap() {
            let (name, sql): (String, Option<String>) = (table.get(0), table.get(1));
            text.push_str(&format!("{name}: {sql:?}\n"));
            if sql.is_some_and(|sql| sql.starts_with("CREATE TABLE")) {
                let rows = sqlx::query(AssertSqlSafe(format!("SELECT count(*) FROM {name}")));
                let count: i64 = rows.fetch_one(&mut connection).await.unwrap().get(0);
                text.push_str(&format!("{count} rows\n"));
            }
        }
        text
    })
}

/// Runs SQL on a database of SQLite.
pub(crate) fn sqlite(path: &Path, sql: &'static str) {
    let path = path.to_owned();
    on_a_runtime_of_its_own(async move {
        let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
        let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    });
}

/// Runs SQL on a PostgreSQL.
pub(crate) fn postgres(url: &str, sql: &'static str) {
    let url = url.to_owned();
    on_a_runtime_of_its_own(async move {
        let mut connection = PgConnection::connect(&url).await.unwrap();
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    });
}

/// The names of all tables of a PostgreSQL's current schema.
pub(crate) fn tables(url: &str) -> Vec<String> {
    let url = url.to_owned();
    on_a_runtime_of_its_own(async move {
        let mut connection = PgConnection::connect(&url).await.unwrap();
        let sql = "SELECT tablename::text FROM pg_tables \
             WHERE schemaname = ANY (current_schemas(false)) ORDER BY 1";
        sqlx::query_scalar(sql).fetch_all(&mut connection).await.unwrap()
    })
}

/// Looks are taken in the middle of asynchronous tests, which have a runtime already.
pub(crate) fn on_a_runtime_of_its_own<Output: Send + 'static>(
    work: impl Future<Output = Output> + Send + 'static,
) -> Output {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    std::thread::spawn(move || runtime().block_on(work)).join().unwrap()
}
