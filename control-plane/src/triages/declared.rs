//! What agents declare: those that are connected, and those that were and may come back.

use std::collections::BTreeMap;
use std::time::Duration;

use ::triage::{Action, AgentDeclaration, Handles};
use contracts::v1;
use contracts::v1::payload::Data;
use engine::Instant;
use store::{DocumentFilter, DocumentRow, DocumentWrite, Store};

use crate::dispatch::{AgentView, Dispatcher};
use crate::documents::Kind;
use crate::limits;

const AGENTS_READ_AT_ONCE: usize = 1_000;

/// Everything that is declared to a tenant, by agent type. Declarations of connected agents are
/// kept,
/// so that a triage knows them while they are away.
///
/// # Errors
/// When the store does not answer.
pub async fn gather(
    dispatcher: &Dispatcher,
    store: &dyn Store,
    tenant: &str,
    now: Instant,
) -> Result<Vec<AgentDeclaration>, store::Error> {
    let live = connected(dispatcher);
    let filter = DocumentFilter {
        kind: Kind::AgentDeclaration.number(),
        tenant: Some(tenant.to_owned()),
        ..DocumentFilter::default()
    };
    let limit = u32::try_from(limits::DECLARATIONS_MAX).unwrap_or(u32::MAX);
    let rows = store.documents(&filter, None, true, limit).await?;
    let mut all = BTreeMap::new();
    for row in &rows {
        let declaration: AgentDeclaration = super::body(row)?;
        all.insert(declaration.agent_type.clone(), (row.version, declaration));
    }
    let mut changed = Vec::new();
    for (agent_type, declaration) in &live {
        let kept = lasting(declaration);
        let version = match all.get(agent_type) {
            Some((_, known)) if *known == kept => continue,
            Some((version, _)) => *version,
            None => 0,
        };
        if takes_issues(&kept) && (version > 0 || all.len() < limits::DECLARATIONS_MAX) {
            changed.push(document(tenant, &kept, version, now));
        }
    }
    for write in changed {
        // Another replica may have written the same; the next triage looks again.
        let change = store::Change { documents: vec![write], ..store::Change::default() };
        store.change(&change).await?;
    }
    let mut all: BTreeMap<String, AgentDeclaration> =
        all.into_iter().map(|(agent_type, (_, declaration))| (agent_type, declaration)).collect();
    all.extend(live);
    Ok(all.into_values().collect())
}

/// Whether any action of it takes issues.
pub(super) fn takes_issues(declaration: &AgentDeclaration) -> bool {
    declaration.actions.iter().any(|action| !action.handles.is_empty())
}

/// What is kept of a declaration: not how the agents are doing.
fn lasting(declaration: &AgentDeclaration) -> AgentDeclaration {
    AgentDeclaration { slots: 0, availability: 0.0, ..declaration.clone() }
}

fn document(
    tenant: &str,
    declaration: &AgentDeclaration,
    version: i64,
    now: Instant,
) -> DocumentWrite {
    let row = DocumentRow {
        kind: Kind::AgentDeclaration.number(),
        id: format!("{tenant}/{}", declaration.agent_type),
        tenant: tenant.to_owned(),
        parent: None,
        status: 1,
        created_at: now.0,
        updated_at: now.0,
        due_at: None,
        version: version + 1,
        body: serde_json::to_vec(declaration).unwrap_or_default(),
    };
    DocumentWrite { row, expected_version: version }
}

/// The agent types that are connected.
fn connected(dispatcher: &Dispatcher) -> BTreeMap<String, AgentDeclaration> {
    let mut by_type: BTreeMap<String, Vec<AgentView>> = BTreeMap::new();
    let mut after: Option<(String, String)> = None;
    loop {
        let place = after.as_ref().map(|(kind, instance)| (kind.as_str(), instance.as_str()));
        let page = dispatcher.agents(place, AGENTS_READ_AT_ONCE);
        let is_last = page.len() < AGENTS_READ_AT_ONCE;
        after = page.last().map(|last| (last.agent_type.to_string(), last.instance.to_string()));
        for view in page {
            by_type.entry(view.agent_type.to_string()).or_default().push(view);
        }
        if is_last {
            break;
        }
    }
    by_type.into_iter().filter_map(|(name, views)| Some((name, declaration(&views)?))).collect()
}

/// What a type's agents declare: the card of the newest version, the first of its instances by
/// name.
fn declaration(views: &[AgentView]) -> Option<AgentDeclaration> {
    let newest = views.iter().reduce(|best, view| {
        if (&view.version, &best.instance) > (&best.version, &view.instance) { view } else { best }
    })?;
    let takes = |view: &&AgentView| {
        matches!(view.health, v1::AgentHealth::Healthy | v1::AgentHealth::Degraded)
    };
    let slots: u32 = views.iter().filter(takes).map(|view| view.slots).sum();
    let tasks: usize = views.iter().filter(takes).map(|view| view.tasks).sum();
    let free = slots.saturating_sub(u32::try_from(tasks).unwrap_or(u32::MAX));
    let availability = if slots == 0 { 0.0 } else { f64::from(free) / f64::from(slots) };
    Some(AgentDeclaration {
        agent_type: newest.agent_type.to_string(),
        description: newest.card.description.clone(),
        actions: newest.card.actions.iter().map(action).collect(),
        slots,
        availability,
    })
}

fn action(card: &v1::ActionCard) -> Action {
    let handles = card.handles.clone().unwrap_or_default();
    let duration_ms = card.expected_duration.and_then(|duration| {
        let duration = Duration::try_from(duration).ok()?;
        u64::try_from(duration.as_millis()).ok()
    });
    let schema = card.input_schema.as_ref().and_then(|payload| match &payload.data {
        Some(Data::Json(text)) => serde_json::from_str(text).ok(),
        _ => None,
    });
    Action {
        name: card.name.clone(),
        description: card.description.clone(),
        handles: Handles {
            components: handles.components,
            keywords: handles.keywords,
            labels: handles.labels,
            categories: handles.categories,
        },
        cost: (card.expected_cost > 0.0).then_some(card.expected_cost),
        duration_ms: duration_ms.filter(|duration| *duration > 0),
        input_schema: schema,
    }
}
