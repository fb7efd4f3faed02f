//! The engine from outside: definitions are run in a world of scripted agents and virtual time.

mod endings;
mod properties;
mod recovery;
mod rollback;
mod scenarios;
mod world;
