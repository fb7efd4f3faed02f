//! A database as text, to compare what it holds before and after. It changes nothing.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::str::FromStr as _;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, Connection as _, Row as _};

/// All tables and indices with the statements that make them, and all rows, each value as SQL
/// writes it.
///
/// # Errors
/// When the file is no such database.
pub async fn dump(url: &str) -> Result<String, String> {
    read(url).await.map_err(|error| format!("{url} cannot be read: {error}"))
}

/// What PostgreSQL's own `pg_dump` says of a database, less what differs from call to call. It
/// blocks.
///
/// # Errors
/// When there is no `pg_dump`, or it fails.
pub fn pg_dump(url: &str) -> Result<String, String> {
    let folder = super::server::find_binaries().unwrap_or_default();
    let installed = folder.join("pg_dump");
    let program = if installed.is_file() { installed } else { PathBuf::from("pg_dump") };
    let output = Command::new(&program)
        .args(["--no-owner", "--no-privileges", "--dbname", &for_tools(url)])
        .output()
        .map_err(|error| format!("{} cannot be run: {error}", program.display()))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    // Newer ones wrap the dump into commands that carry a random word.
    let differs = |line: &&str| line.starts_with("\\restrict") || line.starts_with("\\unrestrict");
    Ok(text.lines().filter(|line| !differs(line)).map(|line| format!("{line}\n")).collect())
}

/// An address without what PostgreSQL's own programs do not know.
fn for_tools(url: &str) -> String {
    let Some((address, settings)) = url.split_once('?') else { return url.to_owned() };
    let known: Vec<&str> =
        settings.split('&').filter(|it| !it.starts_with("statement-cache-capacity=")).collect();
    format!("{address}?{}", known.join("&"))
}

async fn read(url: &str) -> sqlx::Result<String> {
    let options = SqliteConnectOptions::from_str(url)?.read_only(true);
    let mut connection = SqliteConnection::connect_with(&options).await?;
    let objects = "SELECT type, name, COALESCE(sql, '') FROM sqlite_schema ORDER BY type, name";
    let mut text = String::new();
    for object in sqlx::query(objects).fetch_all(&mut connection).await? {
        let (kind, name, sql): (String, String, String) =
            (object.get(0), object.get(1), object.get(2));
        // Writing into a `String` cannot fail.
        let _ = writeln!(text, "{kind} {name}: {sql}");
        if kind == "table" {
            rows(&mut connection, &name, &mut text).await?;
        }
    }
    connection.close().await?;
    Ok(text)
}

async fn rows(
    connection: &mut SqliteConnection,
    table: &str,
    text: &mut String,
) -> sqlx::Result<()> {
    let columns = "SELECT group_concat('quote(\"' || name || '\")', ' || '','' || ') \
         FROM pragma_table_info($1)";
    let columns: String =
        sqlx::query_scalar(columns).bind(table).fetch_one(&mut *connection).await?;
    let rows = format!("SELECT {columns} FROM \"{table}\" ORDER BY 1");
    for row in sqlx::query(AssertSqlSafe(rows)).fetch_all(connection).await? {
        let _ = writeln!(text, "  {}", row.get::<String, _>(0));
    }
    Ok(())
}
