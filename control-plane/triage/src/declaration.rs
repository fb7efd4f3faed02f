//! What agents say of themselves on registering, and the classes of issues that follow from it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::words;

/// Which issues an action takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Handles {
    /// Components, as `database`.
    pub components: Vec<String>,
    /// Words in title or description.
    pub keywords: Vec<String>,
    /// Labels.
    pub labels: Vec<String>,
    /// Categories.
    pub categories: Vec<String>,
}

impl Handles {
    /// Whether nothing is declared: such an action takes no issues.
    pub fn is_empty(&self) -> bool {
        self.components.is_empty()
            && self.keywords.is_empty()
            && self.labels.is_empty()
            && self.categories.is_empty()
    }
}

/// One action of an agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Action {
    /// Its name.
    pub name: String,
    /// What it does.
    pub description: String,
    /// Which issues it takes.
    pub handles: Handles,
    /// What one task costs; `None` when unknown.
    pub cost: Option<f64>,
    /// How long one task takes, in milliseconds; `None` when unknown.
    pub duration_ms: Option<u64>,
    /// The JSON Schema of its input; `None` takes anything.
    pub input_schema: Option<serde_json::Value>,
}

/// What an agent type declares, and how it is doing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentDeclaration {
    /// The agent type.
    pub agent_type: String,
    /// What it is for.
    pub description: String,
    /// Its actions.
    pub actions: Vec<Action>,
    /// Slots of all connected instances together; 0 when none is there.
    pub slots: u32,
    /// How much of it can be had: 0 when nothing is there, 1 when all is free.
    pub availability: f64,
}

/// One kind of issue: a component or a category that agents declare, or, for an agent that
/// declares neither, the agent itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Class {
    /// Its name, in lower case.
    pub name: String,
    /// Who takes it: indexes of agent and action, by agent and action name.
    pub handlers: Vec<(usize, usize)>,
    /// Everything that its handlers say of it.
    pub text: String,
    /// Keywords, in both spellings of [`words`], each once.
    pub phrases: BTreeSet<String>,
}

/// The classes that declarations give, by name. Actions that declare nothing take no part.
pub fn classes(agents: &[AgentDeclaration]) -> Vec<Class> {
    let mut handlers: BTreeMap<String, BTreeSet<(usize, usize)>> = BTreeMap::new();
    for (at, agent) in agents.iter().enumerate() {
        for (number, action) in agent.actions.iter().enumerate() {
            for name in class_names(agent, action) {
                handlers.entry(name).or_default().insert((at, number));
            }
        }
    }
    handlers
        .into_iter()
        .map(|(name, handlers)| {
            let mut handlers: Vec<(usize, usize)> = handlers.into_iter().collect();
            let key = |at: &(usize, usize)| {
                (&agents[at.0].agent_type, &agents[at.0].actions[at.1].name, *at)
            };
            handlers.sort_by(|left, right| key(left).cmp(&key(right)));
            class(agents, name, handlers)
        })
        .collect()
}

/// The classes that one action takes.
pub fn class_names(agent: &AgentDeclaration, action: &Action) -> Vec<String> {
    let handles = &action.handles;
    if handles.is_empty() {
        return Vec::new();
    }
    let mut names: Vec<String> = handles
        .components
        .iter()
        .chain(&handles.categories)
        .map(|name| name.trim().to_lowercase())
        .filter(|name| !name.is_empty())
        .collect();
    if names.is_empty() {
        names.push(agent.agent_type.to_lowercase());
    }
    names.sort();
    names.dedup();
    names
}

/// The kind of issue that an agent takes: its only class, else one named after itself.
pub fn category_of(agents: &[AgentDeclaration], agent_type: &str) -> String {
    let mut names: Vec<String> = agents
        .iter()
        .filter(|agent| agent.agent_type == agent_type)
        .flat_map(|agent| agent.actions.iter().flat_map(|action| class_names(agent, action)))
        .collect();
    names.sort();
    names.dedup();
    match names.as_slice() {
        [only] => only.clone(),
        _ => agent_type.to_lowercase(),
    }
}

/// The agent's type as people would write it.
pub fn short_name(agent_type: &str) -> &str {
    agent_type.strip_suffix("-agent").unwrap_or(agent_type)
}

fn class(agents: &[AgentDeclaration], name: String, handlers: Vec<(usize, usize)>) -> Class {
    let mut text = String::new();
    let mut phrases = BTreeSet::new();
    let mut described = BTreeSet::new();
    let mut phrase = |text: &str| {
        phrases.insert(words::split(text).join(" "));
        phrases.insert(words::whole(text).join(" "));
    };
    phrase(short_name(&name));
    for (at, number) in &handlers {
        let agent = &agents[*at];
        let action = &agent.actions[*number];
        if described.insert(*at) {
            text.push_str(&agent.description);
            text.push_str(" . ");
        }
        text.push_str(&action.description);
        text.push_str(" . ");
        for keyword in action.handles.keywords.iter().chain(&action.handles.labels) {
            phrase(keyword);
            text.push_str(keyword);
            text.push_str(" . ");
        }
    }
    text.push_str(short_name(&name));
    phrases.remove("");
    Class { name, handlers, text, phrases }
}
