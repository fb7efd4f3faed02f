//! The engine from outside: definitions are run in a world of scripted agents and virtual time.

mod properties;
mod recovery;
mod scenarios;
mod world;
