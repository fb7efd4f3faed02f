//! Definitions that come with a request: compiled with what is handed in beside them, and checked
//! against what is registered and which agents are there.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use contracts::v1::{self, Reason};
use engine::definition::{Complaint, Severity};
use engine::graph::{Graph, NodeKind, Position};
use serde_json::json;

use super::Context;
use super::status::Refusal;
use crate::limits;

/// A definition larger than this is compiled beside the threads that serve.
const COMPILE_INLINE_BYTES: usize = 64 * 1024;
/// All complaints of one refusal as JSON; they travel in a header.
const COMPLAINT_BYTES_MAX: usize = 4 * 1024;

/// A text that compiles.
#[derive(Clone, Debug)]
pub struct Unit {
    /// What complaints call the file.
    pub file: String,
    /// The text.
    pub yaml: String,
    /// What it says.
    pub graph: Arc<Graph>,
}

/// A definition and what it needs.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The definition.
    pub main: Unit,
    /// Those handed in beside it, by name.
    pub siblings: BTreeMap<String, Unit>,
    /// Warnings so far.
    pub warnings: Vec<Complaint>,
}

/// What is unknown is refused, or only warned of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strictness {
    /// A sub-workflow that is not there is an error.
    Refuse,
    /// It may still be registered.
    Warn,
}

/// Compiles a definition with its siblings.
///
/// # Errors
/// When a bound is exceeded; complaints are the inner error.
pub async fn compile(
    context: &Context,
    definition: v1::Definition,
) -> Result<Result<Compiled, Vec<Complaint>>, Refusal> {
    let count = definition.siblings.len();
    if count > limits::SIBLINGS_MAX {
        let max = limits::SIBLINGS_MAX;
        let message = format!("{count} definitions were handed in beside it; {max} are allowed");
        return Err(Refusal::limit("definition.siblings", message));
    }
    let beside: usize = definition.siblings.values().map(String::len).sum();
    let bytes = definition.yaml.len() + beside;
    let definitions = context.runs.definitions().clone();
    let work = move || compile_all(&definitions, definition);
    if bytes < COMPILE_INLINE_BYTES {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(|error| Refusal::internal(&error))
}

fn compile_all(
    definitions: &crate::definitions::Definitions,
    definition: v1::Definition,
) -> Result<Compiled, Vec<Complaint>> {
    let v1::Definition { yaml, file, siblings } = definition;
    let folder = file.rfind(['/', '\\']).map_or("", |end| &file[..=end]).to_owned();
    let (mut warnings, mut errors) = (Vec::new(), Vec::new());
    let mut unit = |file: String, yaml: String| match definitions.compile(&file, yaml.as_bytes()) {
        Ok((graph, found)) => {
            warnings.extend(found);
            Some(Unit { file, yaml, graph })
        }
        Err(found) => {
            errors.extend(found);
            None
        }
    };
    let main = unit(file, yaml);
    let siblings: BTreeMap<String, String> = siblings.into_iter().collect();
    let siblings: BTreeMap<String, Unit> = siblings
        .into_iter()
        .filter_map(|(name, yaml)| unit(format!("{folder}{name}.yml"), yaml).map(|u| (name, u)))
        .collect();
    match main {
        Some(main) if errors.is_empty() => Ok(Compiled { main, siblings, warnings }),
        _ => Err(errors),
    }
}

/// Finds the sub-workflows that are neither registered nor handed in; a complaint for each use.
/// Gives all graphs that a run may need, the definition's own first.
///
/// # Errors
/// When the store cannot say what is registered.
pub async fn sub_workflows(
    context: &Context,
    tenant: &str,
    main: &Unit,
    siblings: &BTreeMap<String, Unit>,
    strictness: Strictness,
) -> Result<(Vec<Arc<Graph>>, Vec<Complaint>), Refusal> {
    let mut complaints = Vec::new();
    let mut known: HashMap<(Arc<str>, Option<Arc<str>>), bool> = HashMap::new();
    let mut seen = BTreeSet::from([main.graph.hash]);
    let mut units = vec![main.clone()];
    let mut next = 0;
    while let Some(Unit { file, graph, .. }) = units.get(next).cloned() {
        next += 1;
        for sub in graph.sub_workflows() {
            let key = (Arc::clone(&sub.name), sub.version.clone());
            let found = match known.get(&key) {
                Some(found) => *found,
                None => {
                    let version = sub.version.as_deref();
                    let unit = find(context, tenant, &sub.name, version, siblings).await?;
                    let found = unit.is_some();
                    known.insert(key, found);
                    if let Some(unit) = unit
                        && units.len() < limits::SUB_WORKFLOWS_MAX
                        && seen.insert(unit.graph.hash)
                    {
                        units.push(unit);
                    }
                    found
                }
            };
            if !found {
                let version = sub.version.as_deref();
                let place = sub.name_position;
                complaints.push(unknown_workflow(&file, place, &sub.name, version, strictness));
            }
        }
    }
    Ok((units.into_iter().map(|unit| unit.graph).collect(), complaints))
}

/// A sub-workflow: a registered one, else one that was handed in.
async fn find(
    context: &Context,
    tenant: &str,
    name: &str,
    version: Option<&str>,
    siblings: &BTreeMap<String, Unit>,
) -> Result<Option<Unit>, Refusal> {
    if let Some(row) = context.runs.store().workflow(tenant, name, version).await? {
        let graph = context.runs.definitions().graph(row.definition_hash).await?;
        let file = format!("{name}@{}", row.version);
        return Ok(Some(Unit { file, yaml: String::new(), graph }));
    }
    let beside = siblings.get(name);
    Ok(beside.filter(|unit| version.is_none_or(|version| version == unit.graph.version)).cloned())
}

fn unknown_workflow(
    file: &str,
    place: Position,
    name: &str,
    version: Option<&str>,
    strictness: Strictness,
) -> Complaint {
    let version = version.map(|version| format!("@{version}")).unwrap_or_default();
    let severity = match strictness {
        Strictness::Refuse => Severity::Error,
        Strictness::Warn => Severity::Warning,
    };
    Complaint {
        file: file.to_owned(),
        line: place.line,
        column: place.column,
        message: format!(
            "there is no workflow `{name}{version}`: it is neither registered nor handed in \
             beside this file"
        ),
        suggestion: format!("register it, or put `{name}.yml` beside this file"),
        severity,
    }
}

/// Warnings about actions that no connected agent offers.
#[must_use]
pub fn agent_warnings(context: &Context, unit: &Unit) -> Vec<Complaint> {
    let mut warnings = Vec::new();
    for used in unit.graph.actions() {
        if warnings.len() >= limits::WARNINGS_MAX {
            break;
        }
        let offer = context.dispatcher.offers(used.agent, used.action);
        let (place, message) = match (used.agent, offer.known_agent, offer.offers_action) {
            (_, _, true) => continue,
            (Some(agent), false, _) => {
                (used.agent_position, format!("no agent of type `{agent}` is connected"))
            }
            (Some(agent), true, false) => (
                used.action_position,
                format!("no connected agent of type `{agent}` offers the action `{}`", used.action),
            ),
            (None, _, false) => (
                used.action_position,
                format!("no connected agent offers the action `{}`", used.action),
            ),
        };
        warnings.push(Complaint {
            file: unit.file.clone(),
            line: place.line,
            column: place.column,
            message,
            suggestion: offer.suggestion.unwrap_or_default(),
            severity: Severity::Warning,
        });
    }
    warnings
}

/// Refuses when a step's action is offered by no connected agent, its fallbacks included.
///
/// # Errors
/// Naming each step and the agent that is missing.
pub fn require_agents(context: &Context, graphs: &[Arc<Graph>]) -> Result<(), Refusal> {
    let mut missing = Vec::new();
    for graph in graphs {
        for node in &graph.nodes {
            let NodeKind::Action(action) = &node.kind else { continue };
            let mut agents = std::iter::once(action.agent.as_deref())
                .chain(action.fallback.iter().map(|agent| Some(&**agent)));
            if agents.any(|it| context.dispatcher.offers(it, &action.action).offers_action) {
                continue;
            }
            let offer = context.dispatcher.offers(action.agent.as_deref(), &action.action);
            let hint = offer
                .suggestion
                .map(|name| format!("; did you mean `{name}`?"))
                .unwrap_or_default();
            let what = match &action.agent {
                Some(agent) if !offer.known_agent => {
                    format!("no agent of type `{agent}` is connected{hint}")
                }
                Some(agent) => {
                    let action = &action.action;
                    format!("no connected agent of type `{agent}` offers `{action}`{hint}")
                }
                None => format!("no connected agent offers `{}`{hint}", action.action),
            };
            missing.push((node.id.to_string(), what));
        }
    }
    let Some((step, what)) = missing.first() else { return Ok(()) };
    let more = match missing.len() {
        1 => String::new(),
        2 => " (and one more step)".to_owned(),
        count => format!(" (and {} more steps)", count - 1),
    };
    let message = format!("step `{step}`: {what}{more}; connect the agent or correct the step");
    let refusal = Refusal::new(Reason::RunState, message);
    Err(missing.iter().fold(refusal, |refusal, (step, what)| {
        refusal.precondition("AGENT_MISSING", step, what.clone())
    }))
}

/// The refusal of a definition with complaints.
#[must_use]
pub fn refuse(main_file: &str, complaints: &[Complaint]) -> Refusal {
    let message = match complaints {
        [] => "the definition is wrong".to_owned(),
        [only] => said(only),
        [first, rest @ ..] => format!("{} (and {} more)", said(first), rest.len()),
    };
    let mut refusal = Refusal::new(Reason::InvalidDefinition, message);
    let mut listed = Vec::new();
    let mut bytes = 2;
    for complaint in complaints {
        let entry = json!({
            "file": complaint.file,
            "line": complaint.line,
            "column": complaint.column,
            "message": complaint.message,
            "suggestion": complaint.suggestion,
        })
        .to_string();
        bytes += entry.len() + 1;
        if bytes > COMPLAINT_BYTES_MAX {
            break;
        }
        listed.push(entry);
    }
    refusal = refusal.metadata("complaints", format!("[{}]", listed.join(",")));
    refusal = refusal.metadata("complaint_count", complaints.len().to_string());
    for complaint in complaints {
        let Complaint { file, line, column, message, .. } = complaint;
        let field = if file == main_file { "definition" } else { file };
        refusal = refusal.violation(&format!("{field}:{line}:{column}"), message);
    }
    refusal
}

fn said(complaint: &Complaint) -> String {
    let Complaint { file, line, column, message, .. } = complaint;
    format!("{file}:{line}:{column}: {message}")
}

#[cfg(test)]
mod tests {
    use tonic::Status;
    use tonic_types::StatusExt as _;

    use super::*;

    fn complaint(file: &str, line: u32, message: &str) -> Complaint {
        Complaint {
            file: file.to_owned(),
            line,
            column: 3,
            message: message.to_owned(),
            suggestion: "steps".to_owned(),
            severity: Severity::Error,
        }
    }

    #[test]
    fn a_refused_definition_carries_its_complaints_twice_over() {
        let complaints = [complaint("a.yml", 2, "unknown"), complaint("b.yml", 9, "missing")];
        let status = Status::from(refuse("a.yml", &complaints));
        assert_eq!(status.message(), "a.yml:2:3: unknown (and 1 more)");
        let details = status.get_error_details();
        let fields: Vec<String> = details
            .bad_request()
            .unwrap()
            .field_violations
            .iter()
            .map(|violation| violation.field.clone())
            .collect();
        assert_eq!(fields, ["definition:2:3", "b.yml:9:3"]);
        let json = &details.error_info().unwrap().metadata["complaints"];
        let listed: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(listed[1]["file"], "b.yml");
        assert_eq!(listed[1]["suggestion"], "steps");
    }

    #[test]
    fn a_thousand_complaints_still_fit() {
        let complaints: Vec<Complaint> =
            (0..1000).map(|line| complaint("a.yml", line, &"x".repeat(200))).collect();
        let status = Status::from(refuse("a.yml", &complaints));
        assert!(status.details().len() < 11 * 1024);
        let details = status.get_error_details();
        let metadata = &details.error_info().unwrap().metadata;
        assert_eq!(metadata["complaint_count"], "1000");
        let listed: serde_json::Value = serde_json::from_str(&metadata["complaints"]).unwrap();
        assert!(listed.as_array().unwrap().len() > 5);
    }
}
