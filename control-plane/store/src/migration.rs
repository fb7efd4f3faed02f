//! The schema, step by step. A step has the same number and name for each database, and is never
//! changed once it was released.

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migration, MigrationType, Migrator};

macro_rules! migrations {
    ($folder:literal: $($name:literal),+) => {
        [$(($name, include_str!(concat!("../migrations/", $folder, "/", $name, ".sql")))),+]
    };
}

/// File names without their ending, and contents.
type Steps = [(&'static str, &'static str); 2];

const SQLITE: Steps = migrations!("sqlite": "0001_initial", "0002_replicas");
const POSTGRES: Steps = migrations!("postgres": "0001_initial", "0002_replicas");

/// The newest schema that is known here.
pub(crate) const KNOWN: i64 = SQLITE.len() as i64;

pub(crate) fn sqlite() -> Migrator {
    migrator(&SQLITE)
}

pub(crate) fn postgres() -> Migrator {
    migrator(&POSTGRES)
}

fn migrator(steps: &Steps) -> Migrator {
    let migration = |((name, sql), version): (&(&'static str, &'static str), i64)| {
        let description = name.split_once('_').map_or(*name, |(_, description)| description);
        let sql = sql.into_sql_str();
        Migration::new(version, description.into(), MigrationType::Simple, sql, false)
    };
    Migrator::with_migrations(steps.iter().zip(1..).map(migration).collect())
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

    #[test]
    fn migrations_are_numbered_without_gaps() {
        for ((name, _), number) in SQLITE.iter().zip(1..) {
            assert!(name.starts_with(&format!("{number:04}_")), "{name}");
        }
    }
}
