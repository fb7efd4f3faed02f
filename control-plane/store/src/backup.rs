//! Backup and restore in a form that belongs to no database, so that a backup of one kind can be
//! restored into the other. A backup is one moment of the database: journals and runs fit.
//!
//! Replicas are not in it: whoever starts on a restored database takes over what is unfinished.

mod format;
mod table;

use std::io::{Read, Write};

use crate::{Error, migration, postgres, sqlite};

pub(crate) use format::{Reader, Record, Writer};
pub(crate) use table::{Kind, TABLES, Table, Value};

/// What is in a backup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The schema that it was made of.
    pub schema: i64,
    /// How many rows of each table, by its name.
    pub rows: Vec<(&'static str, u64)>,
}

impl Summary {
    /// How many rows of a table.
    #[must_use]
    pub fn rows_of(&self, table: &str) -> u64 {
        self.rows.iter().find(|(name, _)| *name == table).map_or(0, |(_, rows)| *rows)
    }
}

/// Writes a backup of the database at `url` while others may use it. Meant for a process of its
/// own: `to` is written to between rows.
///
/// # Errors
/// When the database cannot be read or has another schema than this release, or `to` cannot be
/// written to.
pub async fn backup(url: &str, to: impl Write + Send) -> Result<Summary, Error> {
    let mut writer = Writer::new(to, migration::KNOWN)?;
    match scheme(url)? {
        Scheme::Sqlite => sqlite::export(url, &mut writer).await?,
        Scheme::Postgres => postgres::export(url, &mut writer).await?,
    }
    writer.finish()
}

/// Restores a backup into the database at `url`, which must be empty or not be there yet. It is
/// all done or nothing.
///
/// # Errors
/// When the backup is cut, damaged or of another schema, or the database is not empty.
pub async fn restore(url: &str, from: impl Read + Send) -> Result<Summary, Error> {
    let mut reader = Reader::new(from)?;
    check_schema(reader.schema())?;
    match scheme(url)? {
        Scheme::Sqlite => sqlite::import(url, &mut reader).await?,
        Scheme::Postgres => postgres::import(url, &mut reader).await?,
    }
    Ok(reader.summary())
}

/// Reads a backup to its end, and tells what is in it.
///
/// # Errors
/// When it is cut, damaged or no backup.
pub fn verify(from: impl Read + Send) -> Result<Summary, Error> {
    let mut reader = Reader::new(from)?;
    while reader.next()?.is_some() {}
    Ok(reader.summary())
}

enum Scheme {
    Sqlite,
    Postgres,
}

fn scheme(url: &str) -> Result<Scheme, Error> {
    match url.split_once(':').map_or("", |(scheme, _)| scheme) {
        "sqlite" => Ok(Scheme::Sqlite),
        "postgres" | "postgresql" => Ok(Scheme::Postgres),
        _ => Err(Error::Url(
            "write sqlite:/path/file.db or postgres://user@host/database".to_owned(),
        )),
    }
}

fn check_schema(found: i64) -> Result<(), Error> {
    if found == migration::KNOWN {
        return Ok(());
    }
    let known = migration::KNOWN;
    Err(Error::Invalid(format!(
        "the backup has schema {found}, this release {known}; restore it with the release that \
         made it, which a newer one then brings up to date"
    )))
}
