//! A definition as the model sees it: what can be said, without the way of saying it.

use crate::expression::Expr;

/// The number of a step, unique in its definition, in the order of the file.
pub(crate) type Key = usize;

#[derive(Debug)]
pub(crate) struct Workflow {
    pub(crate) steps: Vec<Step>,
    pub(crate) on_failure: Vec<Step>,
    pub(crate) rollback: &'static str,
    pub(crate) branch: bool,
    pub(crate) fail_fast: bool,
    /// `error_handling.retry`.
    pub(crate) retry: Option<Retry>,
    pub(crate) deadline: Option<i64>,
    pub(crate) outputs: Vec<(String, Expr)>,
    /// The ids of all steps, by key.
    pub(crate) ids: Vec<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) key: Key,
    /// Whether the file gives its id.
    pub(crate) named: bool,
    pub(crate) kind: Kind,
    pub(crate) condition: Option<Expr>,
    pub(crate) repeat: Option<Repeat>,
    pub(crate) held: bool,
    pub(crate) checkpoint: bool,
    pub(crate) deadline: Option<i64>,
    pub(crate) depends_on: Option<Vec<Key>>,
    pub(crate) members: Vec<Step>,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Echo {
        params: Vec<(String, Expr)>,
        compensate: bool,
    },
    Append,
    Fail(Fail),
    Wait(i64),
    /// `arrives`: the signal is sent, when nothing else happens.
    WaitFor {
        timeout: i64,
        arrives: bool,
    },
    /// `answer`: of a person, when nothing else happens.
    Approve {
        timeout: i64,
        answer: Option<bool>,
    },
    Block(Vec<Step>),
    Choice {
        then: Vec<Step>,
        otherwise: Option<Vec<Step>>,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct Fail {
    /// The first attempt that succeeds; `None`: none does.
    pub(crate) succeed_after: Option<u32>,
    pub(crate) permanent: bool,
    pub(crate) code: &'static str,
    pub(crate) retry: Option<Retry>,
}

#[derive(Clone, Debug)]
pub(crate) struct Retry {
    pub(crate) max_attempts: u32,
    pub(crate) backoff: &'static str,
    /// Milliseconds.
    pub(crate) delay: i64,
    pub(crate) max_delay: Option<i64>,
    pub(crate) retry_on: Vec<&'static str>,
    pub(crate) no_retry_on: Vec<&'static str>,
}

#[derive(Clone, Debug)]
pub(crate) enum Repeat {
    Each { items: Vec<i64>, name: &'static str, max_parallel: Option<usize> },
    While { condition: Expr, max_iterations: usize },
}
