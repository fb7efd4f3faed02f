//! What outcomes taught: the model, the history, and how often the first assignment was right. The
//! model learns from what people confirmed, the history also from how recoveries ended. It is one
//! document a tenant; it follows from outcomes and declarations alone, so that any replica may make
//! it and all make the same.
//!
//! New outcomes are learned from in the background, many at once; a triage that comes before waits
//! for it, so that whatever was confirmed here before a triage has been learned from.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use ::triage::classifier::{self, Classifier};
use ::triage::declaration::{category_of, classes};
use ::triage::{AgentDeclaration, Example, History, Model};
use engine::{ContentHash, Instant};
use serde::{Deserialize, Serialize};
use store::{Changed, DocumentRow, DocumentWrite, Store};
use tokio::sync::Mutex;

use super::outcome::{self, Outcome};
use super::{Written, declared, write};
use crate::clock::Clock;
use crate::dispatch::Dispatcher;
use crate::documents::Kind;
use crate::limits;
use crate::plans::outcome::{self as plan_outcome, PlanOutcome};

/// How often the document is tried to be written when others write it too.
const ATTEMPTS: usize = 5;

/// What was learned.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Learned {
    /// What places issues.
    pub model: Model,
    /// How agents did.
    pub history: History,
    /// The hash of all that the model was learned from.
    from: String,
    /// The hash of the recoveries that the history was learned from beside that.
    #[serde(default)]
    recoveries: String,
}

/// What a triage is decided with.
#[derive(Clone, Debug)]
pub struct Knowledge {
    /// What agents declare.
    pub agents: Arc<Vec<AgentDeclaration>>,
    /// What places issues.
    pub classifier: Arc<Classifier>,
    /// What was learned.
    pub learned: Arc<Learned>,
}

/// How learning stands.
#[derive(Clone, Debug)]
pub struct Standing {
    /// What was learned.
    pub model: Model,
    /// When; nothing when nothing was.
    pub learned_at: Option<Instant>,
    /// It was learned from all that is confirmed and declared.
    pub is_current: bool,
    /// Agent types that take issues.
    pub agent_types: usize,
}

/// The way to what was learned. Cheap to clone.
#[derive(Clone)]
pub struct Learning(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    dispatcher: Dispatcher,
    tenants: Mutex<HashMap<String, Tenant>>,
}

/// What is in memory of a tenant.
#[derive(Default)]
struct Tenant {
    /// Everything confirmed has been learned from, as far as is known here.
    is_fresh: bool,
    /// A look at it in the background is on its way.
    is_waking: bool,
    version: i64,
    learned: Arc<Learned>,
    /// The classifier and the hash of what it was made for.
    classifier: Option<(String, Arc<Classifier>)>,
}

impl Learning {
    /// What is kept in `store`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, dispatcher: Dispatcher) -> Self {
        Self(Arc::new(Inner { store, clock, dispatcher, tenants: Mutex::default() }))
    }

    /// What to decide a triage with.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn knowledge(&self, tenant: &str) -> Result<Knowledge, store::Error> {
        let inner = &*self.0;
        let agents = self.declared(tenant).await?;
        let said = digest(&agents, std::iter::empty());
        let mut tenants = inner.tenants.lock().await;
        if tenants.len() >= limits::TENANTS_LEARNED && !tenants.contains_key(tenant) {
            tenants.clear();
        }
        let state = tenants.entry(tenant.to_owned()).or_default();
        self.refresh(tenant, state, &agents, &said).await?;
        // A classifier knows agents by their place.
        let places: Vec<(&str, usize)> =
            agents.iter().map(|agent| (agent.agent_type.as_str(), agent.actions.len())).collect();
        let key = format!("{} {said} {places:?}", state.version);
        let classifier = match &state.classifier {
            Some((known, classifier)) if *known == key => Arc::clone(classifier),
            _ => {
                let (learned, made_for) = (Arc::clone(&state.learned), agents.clone());
                let make = move || Classifier::new(Some(&learned.model), &made_for);
                let classifier = Arc::new(blocking(make).await?);
                state.classifier = Some((key, Arc::clone(&classifier)));
                classifier
            }
        };
        let learned = Arc::clone(&state.learned);
        Ok(Knowledge { agents: Arc::new(agents), classifier, learned })
    }

    /// There is something new to learn from. It is learned from soon, in the background, and at the
    /// latest by the next triage.
    pub async fn confirmed(&self, tenant: &str) {
        let mut tenants = self.0.tenants.lock().await;
        let state = tenants.entry(tenant.to_owned()).or_default();
        state.is_fresh = false;
        if std::mem::replace(&mut state.is_waking, true) {
            return;
        }
        let (learning, tenant) = (self.clone(), tenant.to_owned());
        tokio::spawn(async move {
            // More often comes along with some.
            tokio::time::sleep(limits::LEARNING_DELAY).await;
            if let Some(state) = learning.0.tenants.lock().await.get_mut(&tenant) {
                state.is_waking = false;
            }
            if let Err(error) = learning.knowledge(&tenant).await {
                tracing::warn!(%error, "outcomes wait to be learned from");
            }
        });
    }

    /// How learning stands. With `wait` everything that was confirmed is learned from first, also
    /// what another replica took.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn standing(&self, tenant: &str, wait: bool) -> Result<Standing, store::Error> {
        if wait {
            if let Some(state) = self.0.tenants.lock().await.get_mut(tenant) {
                state.is_fresh = false;
            }
            self.knowledge(tenant).await?;
        }
        let store = &*self.0.store;
        let agents = self.declared(tenant).await?;
        let row = store.document(Kind::TriageModel.number(), tenant).await?;
        let learned: Learned = row.as_ref().map(super::body).transpose()?.unwrap_or_default();
        let lessons = Lessons::read(store, tenant, &digest(&agents, std::iter::empty())).await?;
        Ok(Standing {
            is_current: lessons.are_known(&learned) || lessons.is_nothing(),
            learned_at: row.map(|row| Instant(row.updated_at)),
            agent_types: agents.iter().filter(|agent| declared::takes_issues(agent)).count(),
            model: learned.model,
        })
    }

    /// Of all confirmed outcomes of triaged issues, the share whose first assignment was right; 0
    /// when there are none.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn right_ratio(&self, tenant: &str) -> Result<f64, store::Error> {
        let outcomes = outcome::read(&*self.0.store, tenant).await?;
        let (mut judged, mut right) = (0_u32, 0_u32);
        for (_, outcome) in &outcomes {
            let Some(assigned) = &outcome.assigned else { continue };
            judged += 1;
            right += u32::from(*assigned == outcome.example.agent_type);
        }
        let ratio = f64::from(right) / f64::from(judged.max(1));
        metrics::gauge!("orchestrator_triage_first_assignment_correct_ratio").set(ratio);
        Ok(ratio)
    }

    /// What agents declare.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn declared(&self, tenant: &str) -> Result<Vec<AgentDeclaration>, store::Error> {
        let inner = &*self.0;
        declared::gather(&inner.dispatcher, &*inner.store, tenant, inner.clock.now()).await
    }

    /// Brings a tenant's state up to what is stored, and what is stored up to what was confirmed.
    async fn refresh(
        &self,
        tenant: &str,
        state: &mut Tenant,
        agents: &[AgentDeclaration],
        said: &str,
    ) -> Result<(), store::Error> {
        let store = &*self.0.store;
        for _ in 0..ATTEMPTS {
            let row = store.document(Kind::TriageModel.number(), tenant).await?;
            let version = row.as_ref().map_or(0, |row| row.version);
            if let Some(row) = row.filter(|row| row.version != state.version) {
                state.learned = Arc::new(super::body(&row)?);
                state.version = row.version;
            }
            let is_for_these = state.learned.from.ends_with(said);
            if state.is_fresh && (is_for_these || state.version == 0) {
                return Ok(());
            }
            let lessons = Lessons::read(store, tenant, said).await?;
            if lessons.is_nothing() || lessons.are_known(&state.learned) {
                state.is_fresh = true;
                return Ok(());
            }
            let (next, made_for) = (u64::try_from(version).unwrap_or(0) + 1, agents.to_vec());
            let before = Arc::clone(&state.learned);
            let learned = blocking(move || lessons.learn(next, &before, &made_for)).await?;
            if self.keep(tenant, &learned, version).await? == Changed::Done {
                tracing::info!(
                    tenant,
                    version = version + 1,
                    outcomes = learned.model.examples.len(),
                    "triage has learned from confirmed outcomes"
                );
                state.learned = Arc::new(learned);
                state.version = version + 1;
                state.is_fresh = true;
                return Ok(());
            }
        }
        Err(store::Error::Unavailable("others learn at the same time; try again".to_owned()))
    }

    async fn keep(
        &self,
        tenant: &str,
        learned: &Learned,
        version: i64,
    ) -> Result<Changed, store::Error> {
        let now = self.0.clock.now();
        let row = DocumentRow {
            kind: Kind::TriageModel.number(),
            id: tenant.to_owned(),
            tenant: tenant.to_owned(),
            parent: None,
            status: 1,
            created_at: now.0,
            updated_at: now.0,
            due_at: None,
            version: version + 1,
            body: serde_json::to_vec(learned)
                .map_err(|error| store::Error::Invalid(error.to_string()))?,
        };
        let written = Written {
            documents: vec![DocumentWrite { row, expected_version: version }],
            resource: format!("triage-model/{tenant}"),
            actor: "orchestrator".to_owned(),
            action: "triage.learn",
            body: serde_json::json!({
                "version": version + 1,
                "examples": learned.model.examples.len(),
                "from": learned.from,
                "recoveries": learned.recoveries,
            }),
            request: None,
        };
        write(&*self.0.store, written, now).await
    }
}

/// What is to be learned from.
struct Lessons {
    tenant: String,
    outcomes: Vec<Outcome>,
    /// The ids of those that say how it went.
    confirmed: BTreeSet<String>,
    recoveries: Vec<PlanOutcome>,
    /// The hashes by which it is known what was learned already.
    from: String,
    recovered: String,
}

impl Lessons {
    /// `said` is the hash of what agents declare.
    async fn read(store: &dyn Store, tenant: &str, said: &str) -> Result<Self, store::Error> {
        let outcomes = outcome::read(store, tenant).await?;
        let recoveries = plan_outcome::read(store, tenant).await?;
        let recovered = match recoveries.is_empty() {
            true => String::new(),
            false => digest(&[], recoveries.iter().map(|(row, _)| row)),
        };
        Ok(Self {
            tenant: tenant.to_owned(),
            from: digest(&[], outcomes.iter().map(|(row, _)| row)) + said,
            recovered,
            confirmed: outcomes
                .iter()
                .filter(|(_, outcome)| !outcome.placed_only)
                .map(|(row, _)| row.id.clone())
                .collect(),
            outcomes: outcomes.into_iter().map(|(_, outcome)| outcome).collect(),
            recoveries: recoveries.into_iter().map(|(_, outcome)| outcome).collect(),
        })
    }

    fn is_nothing(&self) -> bool {
        self.outcomes.is_empty() && self.recoveries.is_empty()
    }

    fn are_known(&self, learned: &Learned) -> bool {
        learned.from == self.from && learned.recoveries == self.recovered
    }

    /// `before` is what was known until now: its model stays where nothing new was confirmed.
    fn learn(self, version: u64, before: &Learned, agents: &[AgentDeclaration]) -> Learned {
        let mut learned = Learned { recoveries: self.recovered, ..Learned::default() };
        for outcome in self.outcomes.iter().filter(|outcome| !outcome.placed_only) {
            let right = &outcome.example.agent_type;
            let category = match outcome.category.is_empty() {
                true => category_of(agents, right),
                false => outcome.category.clone(),
            };
            let (duration, at) = (outcome.duration_ms, outcome.at_ms);
            learned.history.record(right, &category, outcome.mended, duration, at);
            if let Some(assigned) = &outcome.assigned
                && assigned != right
            {
                learned.history.record(assigned, &category, false, None, at);
            }
        }
        let history = &mut learned.history;
        plan_outcome::learn(history, &self.tenant, &self.recoveries, &self.confirmed);
        if before.from == self.from {
            learned.model = before.model.clone();
        } else {
            let examples = self.outcomes.into_iter().map(|outcome| outcome.example);
            let examples: Vec<Example> = examples.collect();
            learned.model = classifier::train(version, &examples, agents);
        }
        learned.from = self.from;
        learned
    }
}

/// A hash of what agents declare of issues and of which outcomes there are.
fn digest<'a>(agents: &[AgentDeclaration], rows: impl Iterator<Item = &'a DocumentRow>) -> String {
    let mut text = format!("{}\n", classifier::LEARNER);
    for class in classes(agents) {
        text.push_str(&format!("{:?} {:?} {:?}\n", class.name, class.text, class.phrases));
        for (at, number) in class.handlers {
            text.push_str(&format!("{:?} {number}\n", agents[at].agent_type));
        }
    }
    for row in rows {
        text.push_str(&format!("{:?} {}\n", row.id, row.version));
    }
    ContentHash::of(text.as_bytes()).to_string()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, store::Error> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| store::Error::Unavailable(format!("learning was cut short: {error}")))
}

impl std::fmt::Debug for Learning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Learning").finish_non_exhaustive()
    }
}
