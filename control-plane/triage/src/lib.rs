//! Triage: which agent takes which issue, why, how surely, and in which order.
//!
//! Pure: no I/O, no clock, no randomness; equal input gives equal output, bit for bit. Whoever
//! calls hands in the time, what agents declare, what history says and the learned model.
//!
//! In the order of the flow: [`issue`] checks what comes in, [`fingerprint`] finds duplicates,
//! [`rules`] and [`classifier`] say what kind of issue it is, [`scoring`] who gets it,
//! [`priority`], [`stages`] and [`estimate`] when and for how long, [`decide`] all together;
//! [`people`] what people decide afterwards.

pub mod issue;

pub mod fingerprint;

pub mod declaration;

pub mod rules;

pub mod words;

pub mod space;

pub mod likeness;

pub mod classifier;

mod fit;
mod ridge;

pub mod history;

pub mod scoring;

pub mod priority;

pub mod stages;

pub mod estimate;

pub mod decide;

pub mod people;

pub mod limits;

pub use classifier::{Example, Model};
pub use decide::{Assignment, Basis, Constraints, Escalated, Input, Scene, Triage, decide};
pub use declaration::{Action, AgentDeclaration, Handles};
pub use history::History;
pub use issue::{Issue, Problem, Severity};
