//! Applying an SQL migration and reverting it, each in one transaction together with the row
//! that tells under which task's key it is in. While none is in, the database has no trace of
//! the agent.

mod database;

use agent_sdk::{Failure, JsonSchema};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use crate::config::Restored;
use crate::files::{Content, hash};
use crate::sandbox::{Sandbox, rejected};
use crate::tools::Tools;

pub use database::{Connection, Database, Place};

/// The table of the migrations that are in.
const CREATE_TABLE: &str = "CREATE TABLE IF NOT EXISTS remediator_migrations \
     (key TEXT PRIMARY KEY, name TEXT NOT NULL, sha256 TEXT NOT NULL)";
const DROP_TABLE: &str = "DROP TABLE remediator_migrations";
const COUNT_ALL: &str = "SELECT count(*) FROM remediator_migrations";
const COUNT_KEY: &str = "SELECT count(*) FROM remediator_migrations WHERE key = $1";
const COUNT_NAME: &str = "SELECT count(*) FROM remediator_migrations WHERE name = $1";
const ADD_ROW: &str = "INSERT INTO remediator_migrations (key, name, sha256) VALUES ($1, $2, $3)";
const REMOVE_ROW: &str = "DELETE FROM remediator_migrations WHERE key = $1";

/// What `apply_migration` takes.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplyMigration {
    /// The database.
    pub database: Database,
    /// The migration's name; one of a name can be in at a time.
    pub name: String,
    /// The SQL that applies it. It runs in a transaction and must not end that itself.
    pub up: Option<String>,
    /// The same, as a file in the sandbox.
    pub up_file: Option<String>,
    /// The SQL that reverts it.
    pub down: Option<String>,
    /// The same, as a file in the sandbox.
    pub down_file: Option<String>,
}

/// What `apply_migration` gives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Applied {
    /// The migration's name.
    pub name: String,
    /// SHA-256 of the SQL that applied it.
    pub sha256: String,
}

#[derive(Serialize, Deserialize)]
struct Plan {
    place: Place,
    name: String,
    up: String,
    down: String,
}

/// Applies the migration, or finds that it was applied under this key. It blocks, on a thread
/// of the runtime that may.
pub fn apply(tools: &Tools, key: &str, wish: &ApplyMigration) -> Result<Applied, Failure> {
    let make = || {
        if wish.name.is_empty() {
            return Err(rejected("`name` is empty; name the migration"));
        }
        let place = wish.database.place(&tools.sandbox)?;
        let up = sql(&tools.sandbox, "up", wish.up.as_deref(), wish.up_file.as_deref())?;
        let down = sql(&tools.sandbox, "down", wish.down.as_deref(), wish.down_file.as_deref())?;
        Ok(Plan { place, name: wish.name.clone(), up, down })
    };
    let runtime = Handle::current();
    let plan =
        tools.plans.carry_out(key, make, |plan| runtime.block_on(put_in(tools, key, plan)))?;
    Ok(Applied { name: plan.name, sha256: hash(plan.up.as_bytes()) })
}

/// Reverts what was applied under this key.
pub fn undo(tools: &Tools, key: &str, was_done: bool) -> Result<Restored, Failure> {
    let runtime = Handle::current();
    let restored = tools
        .plans
        .take_back(key, was_done, |plan: &Plan| runtime.block_on(take_out(tools, key, plan)))?;
    Ok(Restored { restored: restored.unwrap_or_default() })
}

async fn put_in(tools: &Tools, key: &str, plan: &Plan) -> Result<(), Failure> {
    let mut connection = Connection::open(&plan.place, tools).await.map_err(Failure::no_effect)?;
    connection.begin().await?;
    connection.run("prepare the database", CREATE_TABLE).await?;
    if connection.count(COUNT_KEY, &[key]).await? > 0 {
        return connection.commit().await;
    }
    if connection.count(COUNT_NAME, &[&plan.name]).await? > 0 {
        let message = format!("the migration `{}` is in already; nothing was changed", plan.name);
        return Err(Failure::permanent(message).code("already_applied").no_effect());
    }
    // All of it is in one transaction: what fails before the commit has changed nothing.
    connection.run("apply the migration", &plan.up).await.map_err(Failure::no_effect)?;
    let sha256 = hash(plan.up.as_bytes());
    connection.execute(ADD_ROW, &[key, &plan.name, &sha256]).await?;
    connection.commit().await
}

async fn take_out(tools: &Tools, key: &str, plan: &Plan) -> Result<bool, Failure> {
    let mut connection = Connection::open(&plan.place, tools).await?;
    connection.begin().await?;
    let is_in = connection.has_table("remediator_migrations").await?
        && connection.count(COUNT_KEY, &[key]).await? > 0;
    if is_in {
        connection.run("revert the migration", &plan.down).await?;
        connection.execute(REMOVE_ROW, &[key]).await?;
        if connection.count(COUNT_ALL, &[]).await? == 0 {
            connection.run("leave the database as it was", DROP_TABLE).await?;
        }
    }
    connection.commit().await?;
    Ok(is_in)
}

fn sql(
    sandbox: &Sandbox,
    field: &str,
    given: Option<&str>,
    file: Option<&str>,
) -> Result<String, Failure> {
    let text = match (given, file) {
        (Some(text), None) => text.to_owned(),
        (None, Some(file)) => {
            let name = format!("{field}_file");
            let path = sandbox.path(&name, file)?;
            let content = Content::read(&path)?
                .ok_or_else(|| rejected(format!("`{name}` is {file:?}, which is not there")))?;
            content.text(&path)?.to_owned()
        }
        _ => return Err(rejected(format!("give either `{field}` or `{field}_file`"))),
    };
    if text.trim().is_empty() {
        return Err(rejected(format!("`{field}` has no SQL in it")));
    }
    if let Some(word) = ends_transaction(&text) {
        let message = format!(
            "`{field}` has the statement {word}; leave it out: the migration runs in one \
             transaction together with the record that it ran"
        );
        return Err(rejected(message));
    }
    Ok(text)
}

/// The first statement that would begin or end a transaction by itself.
fn ends_transaction(sql: &str) -> Option<String> {
    let lines = sql.lines().map(|line| line.split("--").next().unwrap_or_default());
    let text: Vec<&str> = lines.collect();
    let text = text.join("\n");
    text.split(';').find_map(|statement| {
        let words = statement.split_whitespace().take(2).map(str::to_ascii_uppercase);
        let words: Vec<String> = words.collect();
        match words.first().map(String::as_str) {
            Some("COMMIT" | "BEGIN" | "ABORT") => words.into_iter().next(),
            Some("ROLLBACK") if words.get(1).is_none_or(|word| word != "TO") => {
                words.into_iter().next()
            }
            Some("START") if words.get(1).is_some_and(|word| word == "TRANSACTION") => {
                Some(words.join(" "))
            }
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_that_end_the_transaction_are_found() {
        for wrong in ["COMMIT", "create table a (b int); commit;", "x;\n -- y\n rollback"] {
            assert!(ends_transaction(wrong).is_some(), "{wrong}");
        }
        for fine in [
            "create table commits (id int); -- commit",
            "create trigger t after insert on a begin delete from b; end;",
            "savepoint a; rollback to a",
        ] {
            assert_eq!(ends_transaction(fine), None, "{fine}");
        }
    }
}
