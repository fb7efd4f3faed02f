//! `backup`: the database into a file and back, by a process of its own beside the server's.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use control_plane::config::{self, Sources};
use control_plane::data_dir::{self, DataDir};
use store::backup::Summary;

use crate::arguments::{BackupArgs, BackupVerb};
use crate::serve::environment;

/// Makes, checks or restores a backup.
pub(crate) async fn act(verb: BackupVerb) -> anyhow::Result<()> {
    match verb {
        BackupVerb::Create(args) => create(args).await,
        BackupVerb::Verify { file } => verify(&file),
        BackupVerb::Restore(args) => restore(args).await,
    }
}

/// Where the database is, and the folder of an embedded one.
fn settings(args: &BackupArgs) -> anyhow::Result<config::Config> {
    let mut flags = Vec::new();
    let mut flag = |key: &str, value: Option<String>| {
        flags.extend(value.map(|value| (key.to_owned(), value)));
    };
    flag("data_dir", args.data_dir.as_ref().map(|path| path.display().to_string()));
    flag("database_url", args.database_url.clone());
    let sources = Sources { flags, environment: environment(), file: args.config.clone() };
    Ok(config::load(&sources)?.config)
}

async fn create(args: BackupArgs) -> anyhow::Result<()> {
    let config = settings(&args)?;
    let url = match &config.database_url {
        Some(url) => url.expose().to_owned(),
        None => data_dir::database_url(&config.data_dir),
    };
    let kept_in = config.kept_in();
    let failed = || format!("no backup of {kept_in} was made");
    let summary = if is_standard(&args.file) {
        store::backup::backup(&url, io::stdout()).await.with_context(failed)?
    } else {
        let partial = Partial::new(&args.file)?;
        let summary = store::backup::backup(&url, &partial.file).await.with_context(failed)?;
        partial.keep()?;
        summary
    };
    say(&format!("backed up {kept_in} to {}: {}", name(&args.file), describe(&summary)));
    Ok(())
}

fn verify(file: &Path) -> anyhow::Result<()> {
    let summary = store::backup::verify(open(file)?)
        .with_context(|| format!("{} is not whole", name(file)))?;
    let schema = summary.schema;
    say(&format!("{} is whole: schema {schema}, {}", name(file), describe(&summary)));
    Ok(())
}

async fn restore(args: BackupArgs) -> anyhow::Result<()> {
    let config = settings(&args)?;
    let from = open(&args.file)?;
    // Nobody may start on the folder meanwhile.
    let (_held, url) = match &config.database_url {
        Some(url) => (None, url.expose().to_owned()),
        None => {
            let held = DataDir::hold(&config.data_dir)?;
            let url = held.database_url();
            (Some(held), url)
        }
    };
    let kept_in = config.kept_in();
    let summary = store::backup::restore(&url, from)
        .await
        .with_context(|| format!("nothing was restored into {kept_in}"))?;
    say(&format!("restored {} into {kept_in}: {}", name(&args.file), describe(&summary)));
    Ok(())
}

fn is_standard(file: &Path) -> bool {
    file.as_os_str() == "-"
}

fn name(file: &Path) -> String {
    if is_standard(file) { "standard output".to_owned() } else { file.display().to_string() }
}

fn open(file: &Path) -> anyhow::Result<Box<dyn Read + Send>> {
    if is_standard(file) {
        return Ok(Box::new(io::stdin()));
    }
    let opened = File::open(file).with_context(|| format!("{} cannot be read", file.display()))?;
    Ok(Box::new(opened))
}

fn describe(summary: &Summary) -> String {
    let rows = |table| summary.rows_of(table);
    format!(
        "{} runs with {} rows of journal, {} workflow versions, {} schedules, {} dead letters",
        rows("runs"),
        rows("journal"),
        rows("workflows"),
        rows("schedules"),
        rows("dead_letters")
    )
}

/// On standard error: standard output may be the backup.
#[expect(clippy::print_stderr, reason = "what the command has to say")]
fn say(text: &str) {
    eprintln!("{text}");
}

/// A file that bears its name once it is whole. Nobody else may read it: runs hold what their
/// owners gave them.
struct Partial<'a> {
    path: &'a Path,
    partial: std::path::PathBuf,
    file: File,
}

impl<'a> Partial<'a> {
    fn new(path: &'a Path) -> anyhow::Result<Self> {
        if path.exists() {
            anyhow::bail!("{} is there already; give another name", path.display());
        }
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = std::path::PathBuf::from(partial);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&partial)
            .with_context(|| format!("{} cannot be written", partial.display()))?;
        Ok(Self { path, partial, file })
    }

    fn keep(self) -> anyhow::Result<()> {
        let failed = || format!("{} cannot be written", self.path.display());
        (&self.file).flush().and_then(|()| self.file.sync_all()).with_context(failed)?;
        std::fs::rename(&self.partial, self.path).with_context(failed)
    }
}

impl Drop for Partial<'_> {
    /// What is not whole is not left behind.
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.partial));
    }
}
