//! What people decide about issues behind a triage: who takes an issue that nobody was sure of, or
//! that its agent did not mend; and which issues need nobody any more.
//!
//! What a person says is checked like what the triage itself decides, and the order of everything
//! is made anew. Nothing is changed where it is refused.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::decide::{Assignment, Basis, Scene, Triage, arrange, params_of, schema_error};
use crate::declaration::{Action, AgentDeclaration, class_names};
use crate::estimate;
use crate::issue::Issue;

/// Names of agent types or actions that an error lists.
const NAMED_MAX: usize = 20;

/// Who is to take an issue.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Order {
    /// The issue.
    pub issue_id: String,
    /// The agent type.
    pub agent_type: String,
    /// The action; empty: the only one that the agent has for issues.
    pub action: String,
    /// The action's input; `None`: what the issue gives.
    pub params: Option<Map<String, Value>>,
    /// Why, in a sentence.
    pub reason: String,
}

/// Why an issue cannot go to whom a person says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// It is no issue of the triage.
    #[error("the triage has no issue `{0}`")]
    Issue(String),
    /// Nobody declares to be of this type.
    #[error("no agent type `{agent}` is known; there are: {there}")]
    Agent {
        /// The type.
        agent: String,
        /// Those that are known.
        there: String,
    },
    /// The type does not offer this action, or several, of which one must be named.
    #[error("{what}; `{agent}` offers: {there}")]
    Action {
        /// The type.
        agent: String,
        /// What is wrong.
        what: String,
        /// What it offers.
        there: String,
    },
    /// The action does not take this input.
    #[error("`{action}` of {agent} cannot be called so: {wrong}")]
    Params {
        /// The type.
        agent: String,
        /// The action.
        action: String,
        /// What is wrong with it.
        wrong: String,
    },
}

impl Triage {
    /// Gives an issue to whom a person says, in place of whoever had it.
    ///
    /// # Errors
    /// When the agent type, its action or its input is not one.
    pub fn assign(&mut self, scene: &Scene<'_>, order: Order) -> Result<Assignment, Wrong> {
        let found = scene.issues.iter().find(|issue| issue.id == order.issue_id);
        let issue = found.ok_or_else(|| Wrong::Issue(order.issue_id.clone()))?;
        let agent = scene.agents.iter().find(|agent| agent.agent_type == order.agent_type);
        let agent = agent.ok_or_else(|| unknown_agent(&order.agent_type, scene.agents))?;
        let action = action(agent, &order.action)?;
        let params = match order.params {
            Some(params) => params,
            None => params_of(issue, action.input_schema.as_ref()),
        };
        check(agent, action, &params)?;
        let at = self.assignments.iter().position(|it| it.issue_id == issue.id);
        let before = at.map(|at| self.assignments.remove(at));
        let escalated = self.escalated.iter().position(|it| it.issue_id == issue.id);
        let escalated = escalated.map(|at| self.escalated.remove(at));
        let (priority, count) = match (&before, &escalated) {
            (Some(before), _) => (before.priority, before.count),
            (None, Some(escalated)) => (escalated.priority, escalated.count),
            (None, None) => (0.0, 1),
        };
        let assignment = Assignment {
            issue_id: issue.id.clone(),
            agent_type: agent.agent_type.clone(),
            action: action.name.clone(),
            params,
            category: category(agent, action, escalated.map(|it| it.category)),
            confidence: 1.0,
            basis: Basis::Person,
            reason: order.reason,
            priority,
            duration_ms: action.duration_ms.unwrap_or(estimate::DURATION_UNKNOWN_MS),
            cost: action.cost.unwrap_or(0.0),
            count,
            instead_of: before.map(instead_of).unwrap_or_default(),
            ..Assignment::default()
        };
        let order: BTreeMap<&str, usize> =
            scene.issues.iter().enumerate().map(|(at, issue)| (issue.id.as_str(), at)).collect();
        let place = order[issue.id.as_str()];
        let at = self.assignments.partition_point(|it| order[it.issue_id.as_str()] < place);
        self.assignments.insert(at, assignment.clone());
        self.rearrange(scene);
        Ok(assignment)
    }

    /// Nobody needs to take an escalated issue any more, and nothing waits for it.
    pub fn settle(&mut self, scene: &Scene<'_>, issue: &str) {
        self.escalated.retain(|escalated| escalated.issue_id != issue);
        self.rearrange(scene);
    }

    /// Stages, estimates and what is blocked, as they follow from who has what now.
    fn rearrange(&mut self, scene: &Scene<'_>) {
        let place: BTreeMap<&str, usize> =
            scene.issues.iter().enumerate().map(|(at, issue)| (issue.id.as_str(), at)).collect();
        let mut first_of: Vec<usize> = (0..scene.issues.len()).collect();
        for duplicate in &self.duplicates {
            let places = (place.get(&*duplicate.issue_id), place.get(&*duplicate.of));
            if let (Some(at), Some(first)) = places {
                first_of[*at] = *first;
            }
        }
        arrange(scene, &first_of, self);
    }
}

/// The agent type to which the triage itself gave it.
fn instead_of(before: Assignment) -> String {
    match before.basis {
        Basis::Person => before.instead_of,
        _ => before.agent_type,
    }
}

/// For what kind of issue the action takes it: the likeliest one, where it takes that.
fn category(agent: &AgentDeclaration, action: &Action, likeliest: Option<String>) -> String {
    let names = class_names(agent, action);
    match likeliest.filter(|likeliest| names.contains(likeliest)) {
        Some(likeliest) => likeliest,
        None => names.into_iter().next().unwrap_or_default(),
    }
}

fn action<'a>(agent: &'a AgentDeclaration, name: &str) -> Result<&'a Action, Wrong> {
    let wrong = |what: String| Wrong::Action {
        agent: agent.agent_type.clone(),
        what,
        there: names(agent.actions.iter().map(|action| &*action.name)),
    };
    if !name.is_empty() {
        let found = agent.actions.iter().find(|action| action.name == name);
        return found.ok_or_else(|| wrong(format!("there is no action `{name}`")));
    }
    let takes: Vec<&Action> =
        agent.actions.iter().filter(|action| !action.handles.is_empty()).collect();
    match (takes.as_slice(), agent.actions.as_slice()) {
        ([one], _) => Ok(*one),
        ([], [one]) => Ok(one),
        _ => Err(wrong("the action must be named".to_owned())),
    }
}

fn unknown_agent(agent: &str, agents: &[AgentDeclaration]) -> Wrong {
    let there = names(agents.iter().map(|agent| &*agent.agent_type));
    Wrong::Agent { agent: agent.to_owned(), there }
}

fn names<'a>(all: impl Iterator<Item = &'a str>) -> String {
    all.take(NAMED_MAX).collect::<Vec<_>>().join(", ")
}

fn check(
    agent: &AgentDeclaration,
    action: &Action,
    params: &Map<String, Value>,
) -> Result<(), Wrong> {
    // A schema that is none was refused when the agent registered.
    let schema = action.input_schema.as_ref();
    let validator = schema.and_then(|schema| jsonschema::validator_for(schema).ok());
    match validator.and_then(|validator| schema_error(&validator, params)) {
        None => Ok(()),
        Some(wrong) => {
            let (agent, action) = (agent.agent_type.clone(), action.name.clone());
            Err(Wrong::Params { agent, action, wrong })
        }
    }
}

/// The issue of an id, to be changed by a person.
pub fn issue_mut<'a>(issues: &'a mut [Issue], id: &str) -> Option<&'a mut Issue> {
    issues.iter_mut().find(|issue| issue.id == id)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Handles;
    use crate::decide::{Constraints, Escalated};

    fn agent(name: &str, keywords: &[&str]) -> AgentDeclaration {
        let handles = Handles {
            keywords: keywords.iter().map(ToString::to_string).collect(),
            ..Handles::default()
        };
        let schema = json!({"type": "object", "required": ["host"]});
        AgentDeclaration {
            agent_type: name.to_owned(),
            actions: vec![
                Action { name: "look".to_owned(), ..Action::default() },
                Action {
                    name: "mend".to_owned(),
                    handles,
                    duration_ms: Some(7_000),
                    input_schema: Some(schema),
                    ..Action::default()
                },
            ],
            slots: 1,
            ..AgentDeclaration::default()
        }
    }

    fn issue(id: &str, on: &[&str]) -> Issue {
        Issue {
            id: id.to_owned(),
            title: id.to_owned(),
            depends_on: on.iter().map(ToString::to_string).collect(),
            ..Issue::default()
        }
    }

    /// The first issue is escalated, the second one assigned and waits for it.
    fn triage() -> Triage {
        Triage {
            assignments: vec![Assignment {
                issue_id: "b".to_owned(),
                agent_type: "one".to_owned(),
                blocked_by: vec!["a".to_owned()],
                ..Assignment::default()
            }],
            escalated: vec![Escalated { issue_id: "a".to_owned(), count: 3, ..Default::default() }],
            stages: vec![vec!["b".to_owned()]],
            ..Triage::default()
        }
    }

    #[test]
    fn an_escalated_issue_goes_to_whom_a_person_says_and_the_order_is_made_anew() {
        let (issues, constraints) = ([issue("a", &[]), issue("b", &["a"])], Constraints::default());
        let agents = [agent("one", &["x"]), agent("two", &["y"])];
        let scene = Scene { issues: &issues, constraints: &constraints, agents: &agents };
        let mut triage = triage();
        let order = |agent: &str, action: &str, params: Value| Order {
            issue_id: "a".to_owned(),
            agent_type: agent.to_owned(),
            action: action.to_owned(),
            params: params.as_object().cloned(),
            reason: "ann said so".to_owned(),
        };
        let before = triage.clone();
        let wrong = [
            order("three", "", json!(null)),
            order("two", "fly", json!(null)),
            order("two", "mend", json!({"port": 1})),
        ];
        let wrong = wrong.map(|order| triage.assign(&scene, order).unwrap_err().to_string());
        assert!(wrong[0].ends_with("there are: one, two"), "{}", wrong[0]);
        assert!(wrong[1].contains("offers: look, mend"), "{}", wrong[1]);
        assert!(wrong[2].contains("its input does not hold to /required"), "{}", wrong[2]);
        assert_eq!(triage, before, "nothing changed");
        let given = triage.assign(&scene, order("two", "", json!({"host": "h"}))).unwrap();
        assert_eq!((&*given.action, given.count, given.basis), ("mend", 3, Basis::Person));
        assert_eq!((&*given.category, given.duration_ms), ("two", 7_000));
        assert!(triage.escalated.is_empty());
        assert_eq!(triage.stages, [vec!["a".to_owned()], vec!["b".to_owned()]]);
        assert!(triage.assignments[1].blocked_by.is_empty());
        let again = triage.assign(&scene, order("one", "mend", json!({"host": "h"}))).unwrap();
        assert_eq!(again.instead_of, "", "the triage gave it to nobody");
        assert_eq!(triage.assignments.len(), 2);
    }

    #[test]
    fn what_is_settled_blocks_nothing() {
        let (issues, constraints) = ([issue("a", &[]), issue("b", &["a"])], Constraints::default());
        let agents = [agent("one", &["x"])];
        let mut triage = triage();
        let scene = Scene { issues: &issues, constraints: &constraints, agents: &agents };
        triage.settle(&scene, "a");
        assert!(triage.escalated.is_empty() && triage.assignments[0].blocked_by.is_empty());
        let order = Order {
            issue_id: "b".to_owned(),
            agent_type: "one".to_owned(),
            action: "look".to_owned(),
            ..Order::default()
        };
        assert_eq!(triage.assign(&scene, order).unwrap().instead_of, "one");
    }
}
