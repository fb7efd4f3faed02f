//! The compiled, immutable form of a workflow definition. Made once by `definition`, run by the
//! engine; it holds no state of any run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::expression::{Expression, Template};
use crate::id::ContentHash;
use crate::task::Delivery;

/// A place in a definition's text, both from 1, the column in code points.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
}

/// The number of a node in `Graph::nodes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

/// The number of a list in `Graph::lists`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListId(pub u32);

/// A compiled definition.
#[derive(Debug)]
pub struct Graph {
    /// The workflow's name.
    pub name: Arc<str>,
    /// Its version; empty when the definition gives none.
    pub version: String,
    /// What the definition says of itself.
    pub description: String,
    /// The hash of the definition's text.
    pub hash: ContentHash,
    /// The declared parameters, in the order of the file.
    pub params: Vec<Param>,
    /// The outputs: names and what they are computed from, in the order of the file.
    pub outputs: Vec<(Arc<str>, Expression)>,
    /// All nodes.
    pub nodes: Vec<Node>,
    /// All lists; the steps of the whole are list 0.
    pub lists: Vec<List>,
    /// The steps of `error_handling.on_failure`.
    pub on_failure: Option<ListId>,
    /// `error_handling.rollback`.
    pub rollback: Rollback,
    /// `error_handling.scope`.
    pub scope: FailureScope,
    /// `error_handling.rollback_approval`: whether a rollback that somebody plans needs an
    /// approval, whatever else is asked.
    pub rollback_approval: bool,
    /// Whether a failure cancels what runs.
    pub fail_fast: bool,
    /// Bounds the whole run, from its start.
    pub deadline: Option<Duration>,
    /// 0 to 9; 5 unless the definition says otherwise.
    pub priority: u8,
    /// Over all runs of this key.
    pub concurrency: Option<Concurrency>,
    /// How often runs may start.
    pub rate_limit: Option<RateLimit>,
    /// When it runs by itself.
    pub schedule: Option<Schedule>,
}

/// A declared parameter.
#[derive(Clone, Debug)]
pub struct Param {
    /// Its name.
    pub name: Arc<str>,
    /// Its JSON Schema, without `default` and `required`.
    pub schema: Value,
    /// What it is when it is not given.
    pub default: Option<Value>,
    /// Whether it must be given.
    pub required: bool,
}

/// A list of steps that stand side by side or one after another.
#[derive(Debug)]
pub struct List {
    /// Its nodes in the order of the file; a group's members stand behind its head.
    pub nodes: Vec<NodeId>,
    /// The node whose body it is; `None` for the steps of the whole and for `on_failure`.
    pub parent: Option<NodeId>,
}

/// A step, a member of a group, a block or a loop.
#[derive(Debug)]
pub struct Node {
    /// Its id, unique in the file.
    pub id: Arc<str>,
    /// Where it stands in the file.
    pub position: Position,
    /// The list it is in.
    pub list: ListId,
    /// Its place in that list.
    pub index: u32,
    /// The places, in the same list, of what it waits for; groups are spelled out.
    pub depends_on: Vec<u32>,
    /// The places, in the same list, of what waits for it.
    pub dependents: Vec<u32>,
    /// Evaluated when its dependencies have settled; false skips it (or chooses `otherwise`).
    pub condition: Option<Expression>,
    /// What it does.
    pub kind: NodeKind,
    /// Bounds the whole step, from when it became ready.
    pub deadline: Option<Duration>,
    /// A failure settles it as done with `success == false`.
    pub continue_on_error: bool,
    /// The name of the consistent point behind it.
    pub checkpoint: Option<Arc<str>>,
    /// Over all runs of this key.
    pub concurrency: Option<Concurrency>,
    /// How often steps of this key may start.
    pub rate_limit: Option<RateLimit>,
}

/// What a node does.
#[derive(Debug)]
pub enum NodeKind {
    /// An agent's action.
    Action(Box<Action>),
    /// Another workflow.
    Workflow(SubWorkflow),
    /// Inner steps, once.
    Block {
        /// The inner steps.
        body: ListId,
    },
    /// One of two branches, by the node's condition; without the one that is chosen it is skipped.
    Choice {
        /// When the condition is true.
        then: Option<ListId>,
        /// When it is false.
        otherwise: Option<ListId>,
    },
    /// Inner steps, many times.
    Loop {
        /// How often.
        repeat: Repeat,
        /// The inner steps. Under `inline` it has one node, the looped step itself without what
        /// belongs to the loop (condition, deadline, continue_on_error, checkpoint).
        body: ListId,
        /// The loop stands on a single step: iterations are named `loop[2]`, not `loop[2].id`.
        inline: bool,
    },
    /// Waits for a time: a duration (`1m30s`) or an RFC 3339 time.
    Wait {
        /// Text, once evaluated.
        until: Template,
    },
    /// Waits for a signal; its payload is the output.
    WaitFor {
        /// The signal's name, once evaluated.
        signal: Template,
        /// Fails the step when it has passed.
        timeout: Option<Duration>,
    },
    /// Waits for a person's decision.
    Approve {
        /// What is asked, once evaluated.
        message: Template,
        /// Fails the step when it has passed.
        timeout: Option<Duration>,
    },
    /// Tells somebody.
    Notify {
        /// The channels, as `slack`.
        channels: Vec<Arc<str>>,
        /// What is told, once evaluated; `None`: a sentence about the run.
        message: Option<Template>,
    },
}

/// An agent's action.
#[derive(Debug)]
pub struct Action {
    /// The agent's type or alias; `None`: any agent that offers the action.
    pub agent: Option<Arc<str>>,
    /// Where the agent's name stands in the file (the action's place without one).
    pub agent_position: Position,
    /// The action's name.
    pub action: Arc<str>,
    /// Where the action's name stands in the file.
    pub action_position: Position,
    /// The params; `None`: an empty object.
    pub params: Option<Template>,
    /// Labels that the agent must have.
    pub requires: Arc<BTreeMap<String, String>>,
    /// Bounds one attempt; 30 s unless the step says otherwise.
    pub timeout: Duration,
    /// How long it may wait for an agent.
    pub queue_timeout: Option<Duration>,
    /// The retry policy in force: the step's own, else the definition's, else one attempt.
    pub retry: Retry,
    /// Agent types tried in order after the last attempt.
    pub fallback: Vec<Arc<str>>,
    /// How this step is undone, in place of what the agent declares.
    pub compensate: Option<Compensate>,
    /// At least once or at most once.
    pub delivery: Delivery,
    /// 0 to 9; `None`: the run's.
    pub priority: Option<u8>,
}

/// Another workflow as a step.
#[derive(Debug)]
pub struct SubWorkflow {
    /// Its name.
    pub name: Arc<str>,
    /// Its version; `None`: the one registered last.
    pub version: Option<Arc<str>>,
    /// Where the name stands in the file.
    pub name_position: Position,
    /// Its params; `None`: none.
    pub params: Option<Template>,
    /// Fails the step when it has passed.
    pub timeout: Option<Duration>,
}

/// How often a loop runs.
#[derive(Debug)]
pub enum Repeat {
    /// Once per item of a list.
    ForEach {
        /// The list, once evaluated.
        items: Template,
        /// The name of the item in expressions.
        item_name: Arc<str>,
        /// How many at once; `None`: all.
        max_parallel: Option<u32>,
    },
    /// As long as a condition holds, evaluated before each iteration.
    While {
        /// The condition.
        condition: Expression,
        /// With the condition still true after so many, the step fails.
        max_iterations: u32,
    },
}

/// When a failed attempt is followed by another.
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// How many attempts, the first included.
    pub max_attempts: u32,
    /// How the delay grows.
    pub backoff: Backoff,
    /// The first delay.
    pub delay: Duration,
    /// The longest delay.
    pub max_delay: Option<Duration>,
    /// The share of the delay by which it may be shorter or longer, 0 to 1.
    pub jitter: f64,
    /// Only these error codes; empty: all.
    pub retry_on: Vec<String>,
    /// Not these error codes.
    pub no_retry_on: Vec<String>,
}

impl Retry {
    /// What holds without any `retry`: one attempt.
    #[must_use]
    pub fn none() -> Self {
        Self { max_attempts: 1, ..Self::default() }
    }
}

impl Default for Retry {
    /// The defaults within a `retry`, except for `max_attempts` (which is 1 until given).
    fn default() -> Self {
        Self {
            max_attempts: 1,
            backoff: Backoff::Exponential,
            delay: Duration::from_secs(1),
            max_delay: None,
            jitter: 0.1,
            retry_on: Vec::new(),
            no_retry_on: Vec::new(),
        }
    }
}

/// How a delay grows from attempt to attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backoff {
    /// Twice as long each time.
    Exponential,
    /// Longer by the first delay each time.
    Linear,
    /// The same each time.
    Constant,
}

/// How a step is undone, as the definition says.
#[derive(Debug)]
pub struct Compensate {
    /// The agent; `None`: the step's own.
    pub agent: Option<Arc<str>>,
    /// The action.
    pub action: Arc<str>,
    /// Where the action's name stands in the file.
    pub position: Position,
    /// Its params; `None`: `{params, output}` of the step.
    pub params: Option<Template>,
}

/// How many may hold a key at once, over all runs.
#[derive(Debug)]
pub struct Concurrency {
    /// The key, once evaluated.
    pub key: Template,
    /// How many.
    pub limit: u32,
    /// What happens to one too many.
    pub on_conflict: OnConflict,
}

/// What happens when a concurrency key is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnConflict {
    /// It waits.
    Queue,
    /// The oldest holder is cancelled.
    CancelRunning,
    /// It fails.
    Reject,
}

/// How often something may start, over all runs.
#[derive(Debug)]
pub struct RateLimit {
    /// The key, once evaluated.
    pub key: Template,
    /// How many.
    pub limit: u32,
    /// In which time.
    pub per: Duration,
}

/// `error_handling.rollback`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rollback {
    /// Nothing is undone.
    #[default]
    None,
    /// Everything is undone.
    ToStart,
    /// Everything behind the last checkpoint is undone.
    ToCheckpoint,
}

/// `error_handling.scope`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FailureScope {
    /// A failure stops the run.
    #[default]
    Run,
    /// A failure stops the failed step, its block and what depends on them.
    Branch,
}

/// When a workflow runs by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// The cron expression, 5 or 6 fields.
    pub cron: String,
    /// The IANA time zone.
    pub timezone: String,
    /// What happens to instants missed while nothing ran.
    pub catch_up: CatchUp,
    /// What happens while the run before still goes on.
    pub overlap: Overlap,
}

/// What happens to missed instants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CatchUp {
    /// They are lost.
    None,
    /// The latest one is made up for.
    Latest,
    /// All are made up for, the oldest first.
    All,
}

/// What happens when the run before still goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlap {
    /// The instant is passed over.
    Skip,
    /// Both run.
    Allow,
}

impl Graph {
    /// The steps of the whole.
    pub const ROOT: ListId = ListId(0);

    /// The node of this number.
    ///
    /// # Panics
    /// When the number is not one of this graph.
    #[must_use]
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    /// The list of this number.
    ///
    /// # Panics
    /// When the number is not one of this graph.
    #[must_use]
    pub fn list(&self, id: ListId) -> &List {
        &self.lists[id.0 as usize]
    }

    /// All actions, those of loops and compensations among them: agent, action and place.
    pub fn actions(&self) -> impl Iterator<Item = ActionUse<'_>> {
        self.nodes.iter().flat_map(|node| match &node.kind {
            NodeKind::Action(action) => {
                let compensate = action.compensate.as_ref().map(|undo| ActionUse {
                    agent: undo.agent.as_deref().or(action.agent.as_deref()),
                    agent_position: undo.position,
                    action: &undo.action,
                    action_position: undo.position,
                });
                let own = ActionUse {
                    agent: action.agent.as_deref(),
                    agent_position: action.agent_position,
                    action: &action.action,
                    action_position: action.action_position,
                };
                [Some(own), compensate].into_iter().flatten()
            }
            _ => [None, None].into_iter().flatten(),
        })
    }

    /// All sub-workflows.
    pub fn sub_workflows(&self) -> impl Iterator<Item = &SubWorkflow> {
        self.nodes.iter().filter_map(|node| match &node.kind {
            NodeKind::Workflow(workflow) => Some(workflow),
            _ => None,
        })
    }
}

/// One use of an action in a definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActionUse<'a> {
    /// The agent, where one is named.
    pub agent: Option<&'a str>,
    /// Where the agent's name stands.
    pub agent_position: Position,
    /// The action.
    pub action: &'a str,
    /// Where the action's name stands.
    pub action_position: Position,
}
