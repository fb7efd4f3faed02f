//! A definition between its text and its graph: read, field by field, but not yet joined up.
//!
//! Steps and lists stand in two flat tables, so that the later passes need no recursion.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::expression::{Expression, Template};
use crate::graph::{
    Action, FailureScope, OnConflict, Param, Position, Repeat, Rollback, Schedule, SubWorkflow,
};

/// A text and its place.
#[derive(Clone, Debug)]
pub(super) struct Word {
    pub(super) text: Arc<str>,
    pub(super) position: Position,
}

/// A name that an expression uses.
#[derive(Debug)]
pub(super) struct Use {
    pub(super) name: String,
    pub(super) fields: Vec<String>,
    pub(super) position: Position,
    pub(super) site: Site,
    /// The expression's text, or that of the string it stands in.
    pub(super) text: Arc<str>,
}

/// From where in a step an expression looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Site {
    /// From before the step, outside of its loop.
    Before,
    /// From a `while`: the body's steps are those of the last iteration.
    While,
    /// From within the step, and within the loop that stands on it.
    Within,
    /// From its undo, when it is done.
    Undo,
    /// From the whole's outputs, when all is done.
    Outputs,
    /// From the whole's own fields, before any step.
    Start,
}

/// What is read of a file.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) name: Arc<str>,
    pub(super) version: String,
    pub(super) description: String,
    pub(super) params: Vec<Param>,
    pub(super) param_places: HashMap<Arc<str>, Position>,
    /// The declarations could not be read: what is declared is not known.
    pub(super) params_broken: bool,
    pub(super) outputs: Vec<(Arc<str>, Expression)>,
    pub(super) steps: Vec<Step>,
    pub(super) lists: Vec<List>,
    pub(super) on_failure: Option<usize>,
    pub(super) rollback: Rollback,
    /// Where `rollback` stands.
    pub(super) rollback_place: Option<Position>,
    pub(super) scope: FailureScope,
    pub(super) rollback_approval: bool,
    pub(super) fail_fast: bool,
    pub(super) deadline: Option<Duration>,
    pub(super) priority: Option<u8>,
    pub(super) concurrency: Option<Concurrency>,
    pub(super) rate_limit: Option<RateLimit>,
    pub(super) schedule: Option<Schedule>,
    /// The names used by what belongs to no step.
    pub(super) uses: Vec<Use>,
}

/// A list of steps.
#[derive(Debug, Default)]
pub(super) struct List {
    /// The step whose body it is.
    pub(super) parent: Option<usize>,
    pub(super) groups: Vec<Group>,
}

/// A step and what runs beside it.
#[derive(Debug)]
pub(super) struct Group {
    /// The head first.
    pub(super) steps: Vec<usize>,
    /// What it names in `depends_on`; `None`: the group before.
    pub(super) named: Option<Vec<Word>>,
    /// What it waits for could not be read: it may be anything.
    pub(super) broken: bool,
    /// The groups of the list that it waits for, in order, each once.
    pub(super) depends_on: Vec<usize>,
}

/// A step.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) position: Position,
    /// The id that it gives itself.
    pub(super) given_id: Option<Word>,
    /// What an id is made of when it gives none.
    pub(super) default_id: String,
    /// The id that it has in the end.
    pub(super) id: Arc<str>,
    pub(super) list: usize,
    pub(super) group: usize,
    pub(super) condition: Option<Expression>,
    pub(super) repeat: Option<Repeat>,
    pub(super) kind: Kind,
    pub(super) deadline: Option<Duration>,
    pub(super) continue_on_error: bool,
    pub(super) checkpoint: Option<Word>,
    pub(super) concurrency: Option<Concurrency>,
    pub(super) rate_limit: Option<RateLimit>,
    pub(super) uses: Vec<Use>,
}

impl Step {
    /// A loop that stands on a single step.
    pub(super) fn is_inline_loop(&self) -> bool {
        self.repeat.is_some() && !matches!(self.kind, Kind::Block(_))
    }
}

/// What a step does.
#[derive(Debug)]
pub(super) enum Kind {
    Action(Box<Action>),
    Workflow(Box<SubWorkflow>),
    Block(usize),
    Choice {
        then: Option<usize>,
        otherwise: Option<usize>,
    },
    Wait {
        until: Template,
    },
    WaitFor {
        signal: Template,
        timeout: Option<Duration>,
    },
    Approve {
        message: Option<Template>,
        timeout: Option<Duration>,
    },
    Notify {
        channels: Vec<Arc<str>>,
        message: Option<Template>,
    },
    /// It could not be read; there is a complaint.
    Broken,
}

/// How many may hold a key; without a key the one who names it.
#[derive(Debug)]
pub(super) struct Concurrency {
    pub(super) key: Template,
    pub(super) limit: u32,
    pub(super) on_conflict: OnConflict,
}

/// How often something may start.
#[derive(Debug)]
pub(super) struct RateLimit {
    /// `None`: a key of its own.
    pub(super) key: Option<Template>,
    pub(super) limit: u32,
    pub(super) per: Duration,
}
