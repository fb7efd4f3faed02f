//! An agent: who it is and what it can do. Running it is `runner`'s business.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use contracts::v1;

use crate::action::{Action, Undo};
use crate::capacity::Capacity;
use crate::error::Error;
use crate::limits::SLOTS_DEFAULT;

/// An agent, put together by a builder and then run.
#[derive(Clone, Debug)]
pub struct Agent {
    pub(crate) agent_type: String,
    pub(crate) version: String,
    pub(crate) slots: u32,
    pub(crate) instance: Option<String>,
    pub(crate) drain_timeout: Option<Duration>,
    pub(crate) capacity: Capacity,
    description: String,
    aliases: Vec<String>,
    labels: BTreeMap<String, String>,
    resources: BTreeMap<String, f64>,
    actions: Vec<Action>,
}

impl Agent {
    /// An agent of this type (`[a-z0-9-]+`, as definitions name it) and version.
    pub fn new(agent_type: impl Into<String>, version: impl Into<String>) -> Self {
        Self {
            agent_type: agent_type.into(),
            version: version.into(),
            slots: SLOTS_DEFAULT,
            instance: None,
            drain_timeout: None,
            capacity: Capacity::default(),
            description: String::new(),
            aliases: Vec::new(),
            labels: BTreeMap::new(),
            resources: BTreeMap::new(),
            actions: Vec::new(),
        }
    }

    /// What it is for, in a sentence.
    #[must_use]
    pub fn describe(mut self, description: impl Into<String>) -> Self {
        self.description = description.into();
        self
    }

    /// Another name of its type.
    #[must_use]
    pub fn alias(mut self, alias: impl Into<String>) -> Self {
        self.aliases.push(alias.into());
        self
    }

    /// A label, for `requires` of a step.
    #[must_use]
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// How much it has of something, as `cpu` or `memory_mb`.
    #[must_use]
    pub fn resource(mut self, name: impl Into<String>, amount: f64) -> Self {
        self.resources.insert(name.into(), amount);
        self
    }

    /// How many tasks it does at once; 8 unless told.
    #[must_use]
    pub fn slots(mut self, slots: u32) -> Self {
        self.slots = slots;
        self
    }

    /// The name of this process among all of its type; by default host, process id and a
    /// random part.
    #[must_use]
    pub fn instance(mut self, instance: impl Into<String>) -> Self {
        self.instance = Some(instance.into());
        self
    }

    /// How long a drain may take before running tasks are cancelled; unbounded unless told.
    #[must_use]
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = Some(timeout);
        self
    }

    /// Adds an action.
    #[must_use]
    pub fn action(mut self, action: Action) -> Self {
        self.actions.push(action);
        self
    }

    /// The handle to change how many tasks it takes while it runs.
    pub fn capacity(&self) -> Capacity {
        self.capacity.clone()
    }

    /// Its type.
    pub fn agent_type(&self) -> &str {
        &self.agent_type
    }

    /// Its other names.
    pub fn aliases(&self) -> &[String] {
        &self.aliases
    }

    /// Its actions.
    pub fn actions(&self) -> &[Action] {
        &self.actions
    }

    /// What it tells the control plane that it can do.
    pub fn card(&self) -> v1::AgentCard {
        v1::AgentCard {
            description: self.description.clone(),
            actions: self
                .actions
                .iter()
                .map(|action| v1::ActionCard {
                    inherits: self.inherited_fields(action),
                    ..action.card()
                })
                .collect(),
        }
    }

    /// Says what is wrong with how it was put together, if anything is.
    pub fn check(&self) -> Result<(), Error> {
        let complain = |what: String| Err(Error::Agent(what));
        for name in std::iter::once(&self.agent_type).chain(&self.aliases) {
            let fits = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
            if name.is_empty() || !name.bytes().all(fits) {
                return complain(format!(
                    "`{name}` is no agent type: small letters, digits and `-` make one"
                ));
            }
        }
        if self.slots == 0 {
            return complain("it has no slots: it could never do a task".to_owned());
        }
        let mut names: HashMap<&str, usize> = HashMap::new();
        for action in &self.actions {
            *names.entry(&action.name).or_default() += 1;
        }
        for action in &self.actions {
            if action.name.is_empty() {
                return complain("an action has no name".to_owned());
            }
            if names[action.name.as_str()] > 1 {
                return complain(format!("it has two actions `{}`", action.name));
            }
            if let Undo::Action(undo) = &action.undo
                && !names.contains_key(undo.as_str())
            {
                return complain(format!(
                    "`{}` is undone by `{undo}`, which it does not have",
                    action.name
                ));
            }
        }
        Ok(())
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Action> {
        self.actions.iter().find(|action| action.name == name)
    }

    /// The fields that an action may inherit. One that undoes others inherits what they do, for
    /// it gets their params.
    pub(crate) fn inherited_fields(&self, action: &Action) -> Vec<String> {
        let undone = self
            .actions
            .iter()
            .filter(|other| matches!(&other.undo, Undo::Action(undo) if *undo == action.name));
        let mut fields = Vec::new();
        for field in undone.chain([action]).flat_map(|action| &action.inherits) {
            if !fields.contains(field) {
                fields.push(field.clone());
            }
        }
        fields
    }

    pub(crate) fn register(&self, instance: &str) -> v1::Register {
        v1::Register {
            agent_type: self.agent_type.clone(),
            instance: instance.to_owned(),
            version: self.version.clone(),
            aliases: self.aliases.clone(),
            card: Some(self.card()),
            labels: self.labels.clone().into_iter().collect(),
            slots: i32::try_from(self.slots).unwrap_or(i32::MAX),
            resources: self.resources.clone().into_iter().collect(),
            session_token: String::new(),
            tasks_in_flight: Vec::new(),
        }
    }
}
