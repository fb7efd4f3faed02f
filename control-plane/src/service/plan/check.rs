//! What stands against a plan, and what it would change: its text compiled and held against the
//! agents that are connected.

use std::sync::Arc;
use std::time::Duration;

use contracts::v1::{self, UndoKind};
use engine::definition::{Complaint, Severity};
use engine::graph::{Action, Graph, Node, NodeKind};

use super::stored::Plan;
use crate::plans::Body;
use crate::recovery::plan::Undo;
use crate::recovery::progress::Outline;
use crate::service::definition::{self, Strictness, Unit};
use crate::service::status::Refusal;
use crate::service::{Context, convert};

/// What complaints call the text of a plan.
const FILE: &str = "plan.yml";

/// A plan's text, compiled.
pub(super) struct Checked {
    pub(super) unit: Unit,
    /// What stands against executing it, the most severe first.
    pub(super) complaints: Vec<Complaint>,
    /// What it would change.
    pub(super) changes: Vec<v1::PlannedChange>,
}

impl Checked {
    /// Whether nothing stands against it.
    pub(super) fn is_valid(&self) -> bool {
        self.errors().next().is_none()
    }

    pub(super) fn errors(&self) -> impl Iterator<Item = &Complaint> {
        self.complaints.iter().filter(|complaint| complaint.severity == Severity::Error)
    }

    /// What does not depend on who is connected, or on what is allowed.
    pub(super) fn shown(&self) -> Vec<v1::Complaint> {
        convert::complaints(&self.complaints)
    }

    /// Refuses when anything stands against it.
    pub(super) fn refuse(&self) -> Result<(), Refusal> {
        let errors: Vec<Complaint> = self.errors().cloned().collect();
        if errors.is_empty() { Ok(()) } else { Err(definition::refuse(FILE, &errors)) }
    }
}

/// Compiles a text.
///
/// # Errors
/// `INVALID_DEFINITION` with all complaints.
pub(super) async fn compile(
    context: &Context,
    text: &str,
) -> Result<(Unit, Vec<Complaint>), Refusal> {
    let yaml = v1::Definition {
        yaml: text.to_owned(),
        file: FILE.to_owned(),
        siblings: std::collections::HashMap::default(),
    };
    let compiled = definition::compile(context, yaml).await?;
    let compiled = compiled.map_err(|complaints| definition::refuse(FILE, &complaints))?;
    Ok((compiled.main, compiled.warnings))
}

/// Checks a plan as it stands.
///
/// # Errors
/// When the text does not compile or the store cannot be asked.
pub(super) async fn check(context: &Context, plan: &Plan) -> Result<Checked, Refusal> {
    let (unit, warnings) = compile(context, &plan.body.text).await?;
    let siblings = std::collections::BTreeMap::new();
    let tenant = &plan.row.tenant;
    let (_, unknown) =
        definition::sub_workflows(context, tenant, &unit, &siblings, Strictness::Refuse).await?;
    let mut complaints = unknown;
    // A plan is for now: an agent that is not there is an error, not a warning.
    complaints.extend(
        definition::agent_warnings(context, &unit)
            .into_iter()
            .map(|warning| Complaint { severity: Severity::Error, ..warning }),
    );
    if let Err(errors) = engine::definition::check_params(&unit.graph, None) {
        complaints.extend(errors.into_iter().map(|error| Complaint {
            file: FILE.to_owned(),
            line: 1,
            column: 1,
            message: format!(
                "a plan is executed without params: {}: {}",
                convert::param_path(&error.path),
                error.message
            ),
            suggestion: "give the parameter a default".to_owned(),
            severity: Severity::Error,
        }));
    }
    let changes = changes(context, &unit.graph, &plan.body);
    if !plan.body.allow_not_undoable {
        complaints.extend(not_undoable(&unit.graph, &changes));
    }
    complaints.extend(warnings);
    Ok(Checked { unit, complaints, changes })
}

/// What the actions of a graph change, and how each is undone.
fn changes(context: &Context, graph: &Graph, body: &Body) -> Vec<v1::PlannedChange> {
    let changes = actions(graph).map(|(node, action)| {
        let (undo_kind, undo) = undo_of(context, action);
        let issue = body.issues.iter().find(|issue| issue.step.as_deref() == Some(&*node.id));
        v1::PlannedChange {
            step: node.id.to_string(),
            issue_id: issue.map(|issue| issue.id.clone()).unwrap_or_default(),
            agent: action.agent.as_deref().unwrap_or_default().to_owned(),
            action: action.action.to_string(),
            undo,
            undo_kind: undo_kind.into(),
        }
    });
    changes.collect()
}

fn actions(graph: &Graph) -> impl Iterator<Item = (&Node, &Action)> {
    graph.nodes.iter().filter_map(|node| match &node.kind {
        NodeKind::Action(action) => Some((node, &**action)),
        _ => None,
    })
}

/// How a step is undone: as the text says, else as its agents declare, the worst of them first.
fn undo_of(context: &Context, action: &Action) -> (UndoKind, String) {
    if let Some(compensate) = &action.compensate {
        return (UndoKind::Action, compensate.action.to_string());
    }
    let agents = action.agent.iter().chain(&action.fallback);
    let declared = agents.map(|agent| declared(context, agent, &action.action));
    let declared: Vec<(UndoKind, String, bool)> = declared.flatten().collect();
    let rank = |kind: UndoKind| match kind {
        UndoKind::Impossible => 3,
        UndoKind::Action => 2,
        UndoKind::Nothing => 1,
        UndoKind::Unspecified => 0,
    };
    let worst = declared.into_iter().max_by_key(|(kind, _, _)| rank(*kind));
    worst.map_or((UndoKind::Unspecified, String::new()), |(kind, undo, _)| (kind, undo))
}

/// What a connected agent says of how an action is undone: which way, by which action, and
/// whether that needs the output. `None`: nobody of the type is there, or offers it.
fn declared(context: &Context, agent: &str, action: &str) -> Option<(UndoKind, String, bool)> {
    use contracts::v1::undo::Way;
    let agents = context.dispatcher.find(agent);
    let mut cards = agents.iter().flat_map(|agent| &agent.card.actions);
    let card = cards.find(|card| card.name == action)?;
    let needs_output = card.undo.as_ref().is_some_and(|undo| undo.needs_output);
    Some(match card.undo.as_ref().and_then(|undo| undo.way.as_ref()) {
        Some(Way::Action(undo)) => (UndoKind::Action, undo.clone(), needs_output),
        Some(Way::NothingToUndo(_)) => (UndoKind::Nothing, String::new(), false),
        Some(Way::NotUndoable(_)) | None => (UndoKind::Impossible, String::new(), false),
    })
}

/// How a step of a plan is undone, so that its text can say it.
pub(super) fn planned_undo(
    context: &Context,
    agent: &str,
    fallback: &[String],
    action: &str,
) -> Undo {
    let Some((kind, undo, needs_output)) = declared(context, agent, action) else {
        return Undo::Declared;
    };
    let is_shared = fallback.iter().all(|other| {
        declared(context, other, action)
            .is_some_and(|(other, by, _)| (other, &*by) == (kind, &*undo))
    });
    match kind {
        _ if !is_shared => Undo::Declared,
        // Without the output a person must see to it; only the agent's own word says so.
        UndoKind::Action if needs_output => Undo::Declared,
        UndoKind::Action => Undo::Action(undo),
        UndoKind::Nothing => Undo::Nothing,
        UndoKind::Impossible => Undo::Impossible,
        UndoKind::Unspecified => Undo::Declared,
    }
}

/// How long a connected agent says that an action takes.
pub(super) fn declared_duration(context: &Context, agent: &str, action: &str) -> Option<Duration> {
    let agents = context.dispatcher.find(agent);
    let mut cards = agents.iter().flat_map(|agent| &agent.card.actions);
    let card = cards.find(|card| card.name == action)?;
    let expected = card.expected_duration.as_ref()?;
    Duration::try_from(*expected).ok()
}

fn not_undoable(graph: &Graph, changes: &[v1::PlannedChange]) -> Vec<Complaint> {
    let impossible = actions(graph)
        .zip(changes)
        .filter(|(_, change)| change.undo_kind() == UndoKind::Impossible);
    impossible
        .map(|((node, action), _)| Complaint {
            file: FILE.to_owned(),
            line: action.action_position.line,
            column: action.action_position.column,
            message: format!(
                "what `{}` does in step `{}` cannot be undone, and the plan does not allow that",
                action.action, node.id
            ),
            suggestion: "say by `compensate` how it is undone, or allow it: \
                         `orchestrator plans edit PLAN --allow-not-undoable`"
                .to_owned(),
            severity: Severity::Error,
        })
        .collect()
}

/// The longest chain of a plan's steps, in milliseconds.
pub(super) fn estimate_ms(graph: &Arc<Graph>, plan: &Plan) -> u64 {
    let (chain, _) = Outline::new(graph, &plan.outline()).estimates();
    u64::try_from(chain.as_millis()).unwrap_or(u64::MAX)
}

/// Whether what stands against a plan is only that it makes changes which cannot be undone.
pub(super) fn is_only_not_undoable(checked: &Checked, plan: &Plan) -> bool {
    let impossible =
        checked.changes.iter().filter(|it| it.undo_kind() == UndoKind::Impossible).count();
    !plan.body.allow_not_undoable && impossible > 0 && checked.errors().count() == impossible
}
