//! The schema, step by step. A step has the same number and name for each database, and is never
//! changed once it was released.
//!
//! Steps expand first and contract later: the release before runs beside the new schema, and even
//! starts on it. A step that takes something away which a release needs raises `oldest` in
//! `schema_compatibility`, at the earliest one release after nothing uses it any more.

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migration, MigrationType, Migrator};

macro_rules! migrations {
    ($folder:literal: $($name:literal),+) => {
        [$(($name, include_str!(concat!("../migrations/", $folder, "/", $name, ".sql")))),+]
    };
}

/// File names without their ending, and contents.
type Steps = [(&'static str, &'static str); 5];

const SQLITE: Steps = migrations!(
    "sqlite": "0001_initial", "0002_replicas", "0003_partitions", "0004_documents",
    "0005_journal_by_arrival"
);
const POSTGRES: Steps = migrations!(
    "postgres": "0001_initial", "0002_replicas", "0003_partitions", "0004_documents",
    "0005_journal_by_arrival"
);

/// The newest schema that is known here.
pub(crate) const KNOWN: i64 = SQLITE.len() as i64;

/// The steps of SQLite up to `newest`, which is [`KNOWN`] but for tests of what older releases do.
pub(crate) fn sqlite(newest: i64) -> Migrator {
    migrator(&SQLITE, newest)
}

/// The same of PostgreSQL.
pub(crate) fn postgres(newest: i64) -> Migrator {
    migrator(&POSTGRES, newest)
}

fn migrator(steps: &Steps, newest: i64) -> Migrator {
    let migration = |((name, sql), version): (&(&'static str, &'static str), i64)| {
        let description = name.split_once('_').map_or(*name, |(_, description)| description);
        let sql = sql.into_sql_str();
        Migration::new(version, description.into(), MigrationType::Simple, sql, false)
    };
    let known = steps.iter().zip(1..).filter(|(_, version)| *version <= newest);
    Migrator::with_migrations(known.map(migration).collect())
}

#[cfg(test)]
mod tests {
    use super::{POSTGRES, SQLITE, Steps};

    fn files(folder: &str) -> Vec<String> {
        let folder = format!("{}/migrations/{folder}", env!("CARGO_MANIFEST_DIR"));
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn listed(steps: &Steps) -> Vec<String> {
        steps.iter().map(|(name, _)| format!("{name}.sql")).collect()
    }

    #[test]
    fn each_database_has_the_same_migrations_and_all_of_them_are_listed() {
        assert_eq!(files("sqlite"), files("postgres"));
        assert_eq!(files("sqlite"), listed(&SQLITE));
        assert_eq!(files("postgres"), listed(&POSTGRES));
    }

    /// So that a release that runs beside it is told, and not left to find out.
    #[test]
    fn a_step_that_takes_something_away_says_which_releases_it_leaves_behind() {
        let contracts = ["DROP TABLE", "DROP COLUMN", "DROP INDEX", "RENAME", "SET NOT NULL"];
        for (name, sql) in SQLITE.iter().chain(&POSTGRES).filter(|(name, _)| *name > "0004") {
            let found = contracts.iter().find(|word| sql.to_uppercase().contains(**word));
            let says = sql.contains("UPDATE schema_compatibility SET oldest");
            assert!(says || found.is_none(), "{name} has {found:?} and raises no `oldest`");
        }
    }

    #[test]
    fn migrations_are_numbered_without_gaps() {
        for ((name, _), number) in SQLITE.iter().zip(1..) {
            assert!(name.starts_with(&format!("{number:04}_")), "{name}");
        }
    }
}
