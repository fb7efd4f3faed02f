//! What an agent says of itself when it registers, checked. What is wrong is named field by
//! field, so that an agent's author sees all of it at once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use contracts::v1;
use engine::task::{DeclaredUndo, TaskKey};

use super::lease::LeaseToken;
use crate::limits;

/// A checked registration.
#[derive(Clone, Debug)]
pub(super) struct Registration {
    pub(super) agent_type: Arc<str>,
    pub(super) instance: Arc<str>,
    pub(super) version: String,
    pub(super) aliases: Vec<Arc<str>>,
    pub(super) card: Arc<v1::AgentCard>,
    pub(super) actions: Arc<BTreeMap<Arc<str>, Arc<ActionSpec>>>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) slots: u32,
    pub(super) session_token: String,
    pub(super) claims: Vec<(TaskKey, LeaseToken)>,
}

/// The cards that agents of each type showed last: those of equal agents are kept once.
#[derive(Debug, Default)]
pub(super) struct Cards(HashMap<Arc<str>, Registration>);

impl Cards {
    /// Has `registration` share what it has in common with the one of its type before.
    pub(super) fn share(&mut self, registration: &mut Registration) {
        if let Some(known) = self.0.get(&registration.agent_type) {
            registration.agent_type = known.agent_type.clone();
            if known.card == registration.card {
                registration.card = known.card.clone();
                registration.actions = known.actions.clone();
                return;
            }
        } else if self.0.len() >= limits::CARDS_SHARED {
            self.0.clear();
        }
        let mut kept = registration.clone();
        kept.claims = Vec::new();
        self.0.insert(kept.agent_type.clone(), kept);
    }
}

/// What dispatch needs to know of an action.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ActionSpec {
    pub(super) name: Arc<str>,
    pub(super) undo: DeclaredUndo,
    pub(super) inherits: Vec<String>,
}

impl ActionSpec {
    /// Of an action that the agent does not declare.
    pub(super) fn undeclared(name: &Arc<str>) -> Self {
        Self { name: name.clone(), undo: DeclaredUndo::NotUndoable, inherits: Vec::new() }
    }
}

/// One thing that is wrong with a registration: the field and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The field's path within `Register`.
    pub field: String,
    /// What is wrong and what would be right.
    pub description: String,
}

#[derive(Default)]
struct Violations(Vec<Violation>);

impl Violations {
    fn add(&mut self, field: impl Into<String>, description: impl Into<String>) {
        self.0.push(Violation { field: field.into(), description: description.into() });
    }

    fn name(&mut self, field: impl Into<String>, name: &str) {
        let length = name.len();
        if length == 0 {
            self.add(field, "must not be empty");
        } else if length > limits::NAME_BYTES_MAX {
            let max = limits::NAME_BYTES_MAX;
            self.add(field, format!("has {length} bytes; at most {max} are allowed"));
        } else if name.chars().any(char::is_control) {
            self.add(field, "must not contain control characters");
        }
    }

    fn type_name(&mut self, field: &str, name: &str) {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || !name.chars().all(fits) {
            let what = "must be one or more of a-z, 0-9 and `-`";
            self.add(field, format!("{what}, found `{}`", name.escape_debug()));
        } else {
            self.name(field, name);
        }
    }

    fn count(&mut self, field: &str, count: usize, max: usize) {
        if count > max {
            self.add(field, format!("has {count} entries; at most {max} are allowed"));
        }
    }
}

/// Checks a registration.
pub(super) fn check(register: v1::Register) -> Result<Registration, Vec<Violation>> {
    let mut violations = Violations::default();
    violations.type_name("agent_type", &register.agent_type);
    violations.name("instance", &register.instance);
    if register.instance.contains('/') {
        violations.add("instance", "must not contain `/`, which joins type and instance");
    }
    violations.count("aliases", register.aliases.len(), limits::ALIASES_MAX);
    for (index, alias) in register.aliases.iter().enumerate() {
        violations.type_name(&format!("aliases[{index}]"), alias);
    }
    violations.count("labels", register.labels.len(), limits::LABELS_MAX);
    for (name, value) in &register.labels {
        violations.name("labels", name);
        if value.len() > limits::NAME_BYTES_MAX {
            violations.add(format!("labels[{name}]"), "is too long");
        }
    }
    let slots = u32::try_from(register.slots).unwrap_or(0);
    if !(1..=limits::SLOTS_MAX).contains(&slots) {
        let found = register.slots;
        let what = format!("must be 1 to {}, found {found}", limits::SLOTS_MAX);
        violations.add("slots", what);
    }
    let card = register.card.unwrap_or_default();
    let actions = check_actions(&card, &mut violations);
    let claims = check_claims(&register.tasks_in_flight, &mut violations);
    if !violations.0.is_empty() {
        return Err(violations.0);
    }
    Ok(Registration {
        agent_type: register.agent_type.into(),
        instance: register.instance.into(),
        version: register.version,
        aliases: register.aliases.into_iter().map(Arc::from).collect(),
        card: Arc::new(card),
        actions: Arc::new(actions),
        labels: register.labels.into_iter().collect(),
        slots,
        session_token: register.session_token,
        claims,
    })
}

fn check_actions(
    card: &v1::AgentCard,
    violations: &mut Violations,
) -> BTreeMap<Arc<str>, Arc<ActionSpec>> {
    let mut actions = BTreeMap::new();
    violations.count("card.actions", card.actions.len(), limits::ACTIONS_MAX);
    if card.actions.is_empty() {
        violations.add("card.actions", "must name at least one action that the agent offers");
    }
    for (index, action) in card.actions.iter().enumerate() {
        let field = format!("card.actions[{index}]");
        violations.name(format!("{field}.name"), &action.name);
        check_schema(&format!("{field}.input_schema"), action.input_schema.as_ref(), violations);
        check_schema(&format!("{field}.output_schema"), action.output_schema.as_ref(), violations);
        let undo = match action.undo.as_ref().and_then(|undo| undo.way.as_ref()) {
            Some(v1::undo::Way::Action(name)) => {
                let needs_output = action.undo.as_ref().is_some_and(|undo| undo.needs_output);
                if needs_output {
                    DeclaredUndo::ActionWithOutput(name.clone())
                } else {
                    DeclaredUndo::Action(name.clone())
                }
            }
            Some(v1::undo::Way::NothingToUndo(_)) => DeclaredUndo::Nothing,
            Some(v1::undo::Way::NotUndoable(_)) | None => DeclaredUndo::NotUndoable,
        };
        let name: Arc<str> = action.name.as_str().into();
        let inherits = action.inherits.clone();
        let spec = Arc::new(ActionSpec { name: name.clone(), undo, inherits });
        if actions.insert(name, spec).is_some() {
            violations.add(
                format!("{field}.name"),
                format!("`{}` is declared twice; each action needs its own name", action.name),
            );
        }
    }
    check_undo_actions(card, &actions, violations);
    actions
}

fn check_undo_actions(
    card: &v1::AgentCard,
    actions: &BTreeMap<Arc<str>, Arc<ActionSpec>>,
    violations: &mut Violations,
) {
    for (index, action) in card.actions.iter().enumerate() {
        let way = action.undo.as_ref().and_then(|undo| undo.way.as_ref());
        if let Some(v1::undo::Way::Action(name)) = way
            && !actions.contains_key(name.as_str())
        {
            violations.add(
                format!("card.actions[{index}].undo.action"),
                format!("`{name}` is not an action of this agent"),
            );
        }
    }
}

/// What an agent said of itself, as it said it, naming `tasks` as in flight.
pub(super) fn to_proto(registration: &Registration, tasks: Vec<v1::TaskRef>) -> v1::Register {
    v1::Register {
        agent_type: registration.agent_type.to_string(),
        instance: registration.instance.to_string(),
        version: registration.version.clone(),
        aliases: registration.aliases.iter().map(ToString::to_string).collect(),
        card: Some(v1::AgentCard::clone(&registration.card)),
        labels: registration.labels.clone().into_iter().collect(),
        slots: i32::try_from(registration.slots).unwrap_or(i32::MAX),
        resources: std::collections::HashMap::new(),
        session_token: registration.session_token.clone(),
        tasks_in_flight: tasks,
    }
}

fn check_schema(field: &str, schema: Option<&v1::Payload>, violations: &mut Violations) {
    let Some(schema) = schema.and_then(|payload| payload.data.as_ref()) else { return };
    let v1::payload::Data::Json(text) = schema else {
        violations.add(field, "must be JSON text (`json`)");
        return;
    };
    if text.len() > limits::SCHEMA_BYTES_MAX {
        let max = limits::SCHEMA_BYTES_MAX;
        violations.add(field, format!("has {} bytes; at most {max} are allowed", text.len()));
        return;
    }
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(serde_json::Value::Object(_) | serde_json::Value::Bool(_)) => {}
        Ok(_) => violations.add(field, "must be a JSON Schema: an object, `true` or `false`"),
        Err(error) => violations.add(field, format!("is not JSON: {error}")),
    }
}

fn check_claims(refs: &[v1::TaskRef], violations: &mut Violations) -> Vec<(TaskKey, LeaseToken)> {
    violations.count("tasks_in_flight", refs.len(), limits::CLAIMS_PER_AGENT_MAX);
    let mut seen = BTreeSet::new();
    let mut claims = Vec::with_capacity(refs.len().min(limits::CLAIMS_PER_AGENT_MAX));
    for (index, task) in refs.iter().take(limits::CLAIMS_PER_AGENT_MAX).enumerate() {
        let key = task.task_id.parse::<TaskKey>();
        let lease = task.lease_token.parse::<LeaseToken>();
        match (key, lease) {
            (Ok(key), Ok(lease)) => {
                if seen.insert((key, lease)) {
                    claims.push((key, lease));
                }
            }
            (Err(error), _) | (_, Err(error)) => {
                violations.add(format!("tasks_in_flight[{index}]"), error);
            }
        }
    }
    claims
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::dispatch) fn register(agent_type: &str, instance: &str) -> v1::Register {
        v1::Register {
            agent_type: agent_type.into(),
            instance: instance.into(),
            version: "1.0.0".into(),
            slots: 1,
            card: Some(v1::AgentCard {
                description: String::new(),
                actions: vec![v1::ActionCard { name: "do".into(), ..Default::default() }],
            }),
            ..Default::default()
        }
    }

    fn fields(register: v1::Register) -> Vec<String> {
        check(register).unwrap_err().into_iter().map(|violation| violation.field).collect()
    }

    #[test]
    fn a_good_registration_passes() {
        let registration = check(register("echo", "host-1")).unwrap();
        assert_eq!(&*registration.agent_type, "echo");
        assert!(registration.actions.contains_key("do"));
    }

    #[test]
    fn all_that_is_wrong_is_named_at_once() {
        let mut wrong = register("Echo!", "");
        wrong.slots = 0;
        wrong.aliases = vec!["agent6".into(), "Agent 7".into()];
        let schema = v1::Payload {
            data: Some(v1::payload::Data::Json("{".into())),
            media_type: String::new(),
        };
        let action = v1::ActionCard {
            name: "do".into(),
            input_schema: Some(schema),
            undo: Some(v1::Undo {
                way: Some(v1::undo::Way::Action("missing".into())),
                needs_output: false,
            }),
            ..Default::default()
        };
        wrong.card.as_mut().unwrap().actions.push(action);
        wrong.tasks_in_flight = vec![v1::TaskRef { task_id: "x".into(), ..Default::default() }];
        assert_eq!(
            fields(wrong),
            [
                "agent_type",
                "instance",
                "aliases[1]",
                "slots",
                "card.actions[1].input_schema",
                "card.actions[1].name",
                "card.actions[1].undo.action",
                "tasks_in_flight[0]",
            ]
        );
    }

    #[test]
    fn slots_are_bounded() {
        let mut wrong = register("echo", "host-1");
        wrong.slots = i32::try_from(limits::SLOTS_MAX).unwrap() + 1;
        assert_eq!(fields(wrong), ["slots"]);
    }
}
