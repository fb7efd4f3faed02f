//! Brings the schema up to date, or finds that a newer release did and that this one works on it.

use sqlx::migrate::{MigrateError, Migrator};

use super::{Connection, Db};
use crate::Error;

/// Runs the steps that the database lacks. Steps not known here are fine as long as the newest of
/// those here is among the schemas that the database says are still served.
pub(in super::super) async fn bring_up_to_date(
    connection: &mut Connection,
    migrator: &Migrator,
) -> Result<(), Error> {
    let known = migrator.iter().map(|step| step.version).max().unwrap_or(0);
    let found = match migrator.run(&mut *connection).await {
        Err(MigrateError::VersionMissing(found)) if found > known => found,
        done => return done.map_err(|error| Error::migration(error, known)),
    };
    let oldest = oldest_served(connection).await;
    if oldest.is_some_and(|oldest| oldest <= known) {
        tracing::warn!(
            found,
            known,
            "a newer release has brought the schema forward; this one goes on beside it"
        );
        return Ok(());
    }
    Err(Error::NewerSchema { found, known })
}

/// `None`: the database does not say, or cannot.
async fn oldest_served(connection: &mut Connection) -> Option<i64> {
    let text = "SELECT oldest FROM schema_compatibility WHERE one = 1";
    let oldest = sqlx::query_scalar::<Db, i64>(text).fetch_optional(connection).await;
    oldest.ok().flatten()
}
