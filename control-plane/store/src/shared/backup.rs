//! Whole tables out of a database and into one.

use futures::TryStreamExt as _;
use sqlx::{AssertSqlSafe, Connection as _, QueryBuilder, Row as _};
use uuid::Uuid;

use super::{Connection, Db, HOLD_JOURNAL, Row, SNAPSHOT, settle_restored};
use crate::backup::{Kind, Reader, Record, TABLES, Table, Value, Writer};
use crate::{Error, migration};

/// How many values one statement takes.
const VALUES_AT_ONCE: usize = 8_000;
/// How many bytes of rows one statement takes before a further row is left over.
const BYTES_AT_ONCE: usize = 8 * 1024 * 1024;

/// Writes all tables as they are at one moment.
pub(in super::super) async fn export(
    connection: &mut Connection,
    writer: &mut Writer<'_>,
) -> Result<(), Error> {
    for begin in [SNAPSHOT, HOLD_JOURNAL] {
        sqlx::query::<Db>(begin).execute(&mut *connection).await.map_err(Error::read)?;
    }
    let found: i64 = sqlx::query_scalar::<Db, _>("SELECT max(version) FROM _sqlx_migrations")
        .fetch_one(&mut *connection)
        .await
        .map_err(Error::read)?;
    if found != migration::KNOWN {
        let known = migration::KNOWN;
        return Err(Error::Invalid(format!(
            "the database has schema {found}, this release {known}; take the backup with the \
             release that runs on it"
        )));
    }
    for (place, table) in TABLES.iter().enumerate() {
        let columns: Vec<&str> = table.columns.iter().map(|(name, _)| *name).collect();
        // Events of runs that were removed go later than the runs.
        let condition = match table.name {
            "journal" => " WHERE run_id IN (SELECT run_id FROM runs)",
            _ => "",
        };
        let text = format!("SELECT {} FROM {}{condition}", columns.join(", "), table.name);
        let mut rows = sqlx::query::<Db>(AssertSqlSafe(text)).fetch(&mut *connection);
        while let Some(row) = rows.try_next().await.map_err(Error::read)? {
            writer.row(place, &values(table, &row).map_err(Error::read)?)?;
        }
    }
    sqlx::query::<Db>("COMMIT").execute(connection).await.map_err(Error::read)?;
    Ok(())
}

fn values(table: &Table, row: &Row) -> sqlx::Result<Vec<Value>> {
    let number = |number: Option<i64>| number.map_or(Value::Null, Value::Number);
    let bytes = |bytes: Option<Vec<u8>>| bytes.map_or(Value::Null, Value::Bytes);
    let value = |(place, (_, kind)): (usize, &(&str, Kind))| {
        Ok(match kind {
            Kind::Id => {
                bytes(row.try_get::<Option<Uuid>, _>(place)?.map(|id| id.as_bytes().to_vec()))
            }
            Kind::Short => number(row.try_get::<Option<i16>, _>(place)?.map(i64::from)),
            Kind::Long => number(row.try_get(place)?),
            Kind::Text => row.try_get::<Option<String>, _>(place)?.map_or(Value::Null, Value::Text),
            Kind::Bytes => bytes(row.try_get(place)?),
        })
    };
    table.columns.iter().enumerate().map(value).collect()
}

/// Puts everything in, in one transaction that is ended once the backup was found whole.
pub(in super::super) async fn import(
    connection: &mut Connection,
    reader: &mut Reader<'_>,
) -> Result<(), Error> {
    let mut transaction = connection.begin().await.map_err(Error::before_write)?;
    for table in ["runs", "definitions", "workflows"] {
        let text = format!("SELECT count(*) FROM {table}");
        let count: i64 = sqlx::query_scalar::<Db, _>(AssertSqlSafe(text))
            .fetch_one(&mut *transaction)
            .await
            .map_err(Error::read)?;
        if count != 0 {
            return Err(Error::Invalid(format!(
                "the database is not empty: it has {count} rows in {table}; restore into a new one"
            )));
        }
    }
    let none = sqlx::query::<Db>("DELETE FROM epochs").execute(&mut *transaction).await;
    none.map_err(Error::before_write)?;
    let mut batch = Batch::default();
    while let Some(Record { table, row }) = reader.next()? {
        if !batch.takes(table) {
            batch.write(&mut transaction).await?;
        }
        batch.add(table, row);
    }
    batch.write(&mut transaction).await?;
    settle_restored(&mut transaction).await.map_err(Error::before_write)?;
    transaction.commit().await.map_err(Error::write)
}

/// Rows of one table that go in together.
#[derive(Default)]
struct Batch {
    table: usize,
    rows: Vec<Vec<Value>>,
    bytes: usize,
}

impl Batch {
    fn takes(&self, table: usize) -> bool {
        let values = (self.rows.len() + 1) * TABLES[table].columns.len();
        self.rows.is_empty()
            || (table == self.table && values <= VALUES_AT_ONCE && self.bytes < BYTES_AT_ONCE)
    }

    fn add(&mut self, table: usize, row: Vec<Value>) {
        self.table = table;
        let size = |value: &Value| match value {
            Value::Null | Value::Number(_) => 8,
            Value::Text(text) => text.len(),
            Value::Bytes(bytes) => bytes.len(),
        };
        self.bytes += row.iter().map(size).sum::<usize>();
        self.rows.push(row);
    }

    async fn write(&mut self, connection: &mut Connection) -> Result<(), Error> {
        let Self { table, rows, .. } = std::mem::take(self);
        if rows.is_empty() {
            return Ok(());
        }
        let Table { name, columns } = &TABLES[table];
        let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
        let mut query =
            QueryBuilder::<Db>::new(format!("INSERT INTO {name} ({}) ", names.join(", ")));
        let mut wrong = false;
        query.push_values(rows, |mut to, row| {
            for ((_, kind), value) in columns.iter().zip(row) {
                match (kind, value) {
                    (Kind::Id, Value::Bytes(bytes)) => {
                        let id = Uuid::from_slice(&bytes).ok();
                        wrong |= id.is_none();
                        to.push_bind(id);
                    }
                    (Kind::Id, Value::Null) => drop_ref(to.push_bind(None::<Uuid>)),
                    (Kind::Short, Value::Number(number)) => {
                        let short = i16::try_from(number).ok();
                        wrong |= short.is_none();
                        to.push_bind(short);
                    }
                    (Kind::Short, Value::Null) => drop_ref(to.push_bind(None::<i16>)),
                    (Kind::Long, Value::Number(number)) => drop_ref(to.push_bind(Some(number))),
                    (Kind::Long, Value::Null) => drop_ref(to.push_bind(None::<i64>)),
                    (Kind::Text, Value::Text(text)) => drop_ref(to.push_bind(Some(text))),
                    (Kind::Text, Value::Null) => drop_ref(to.push_bind(None::<String>)),
                    (Kind::Bytes, Value::Bytes(bytes)) => drop_ref(to.push_bind(Some(bytes))),
                    (Kind::Bytes, Value::Null) => drop_ref(to.push_bind(None::<Vec<u8>>)),
                    _ => wrong = true,
                }
            }
        });
        if wrong {
            return Err(Error::Invalid(format!(
                "the backup is damaged: a row of {name} does not fit its columns"
            )));
        }
        let query = query.build().persistent(false);
        query.execute(connection).await.map_err(Error::before_write)?;
        Ok(())
    }
}

/// The builder gives itself back, which nobody needs here.
fn drop_ref<T: ?Sized>(_built: &mut T) {}
