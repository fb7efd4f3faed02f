//! What can go wrong with a store, said so that an operator knows what to do. Texts never hold a
//! password.

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be told whether the write happened.
    #[error("the outcome of the write is unknown: {0}")]
    Unknown(String),
    /// The database cannot be reached or is locked; nothing was written. Trying again may help.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// The disk is full, or the file system read-only; nothing was written.
    #[error("the database has no room to write: {0}; make room and try again")]
    Full(String),
    /// What is stored is damaged or contradicts itself.
    #[error("the database is damaged: {0}; restore it from a backup")]
    Corrupt(String),
    /// A newer release has migrated the database.
    #[error(
        "the database has schema {found}, this release knows {known} at most; start a release at \
         least as new as the one that migrated it"
    )]
    NewerSchema {
        /// The database's.
        found: i64,
        /// The greatest that is known here.
        known: i64,
    },
    /// The schema could not be brought up to date.
    #[error("the schema cannot be brought up to date: {0}")]
    Migration(String),
    /// The address of the database is not usable.
    #[error("the database's address is not usable: {0}")]
    Url(String),
    /// What was asked breaks a rule or a limit; nothing was written.
    #[error("{0}")]
    Invalid(String),
    /// The database refused a statement: a defect of this program.
    #[error("the database refused a statement: {0}")]
    Database(String),
}
