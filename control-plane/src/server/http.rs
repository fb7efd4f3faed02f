//! What is served beside gRPC: `/health`, `/metrics`, and a clear answer for every other path.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use axum::{Router, middleware};
use contracts::v1::{AgentHealth, RunStatus};
use engine::event::WaitingFor;
use engine::{Instant, RunId, Waiting};
use serde_json::json;
use store::{DeadLetterFilter, RunFilter};

use super::{SharedContext, telemetry};
use crate::limits;
use crate::runs::TENANT_DEFAULT;
use crate::service::{Context, convert};

/// How long a count of escalations is good for.
const ESCALATIONS_GOOD_FOR: Duration = Duration::from_secs(2);
/// How long the store may take to answer before it counts as out of reach.
const STORE_WAIT_MAX: Duration = Duration::from_secs(2);

/// The routes beside gRPC.
pub(super) fn routes(context: Context) -> Router {
    let shared = Shared { context: Arc::new(context), escalations: Arc::default() };
    Router::new()
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::map_response(no_store))
        .with_state(shared)
}

#[derive(Clone)]
struct Shared {
    context: SharedContext,
    escalations: Arc<Mutex<Escalations>>,
}

/// How many decisions people owe, as it was counted last.
#[derive(Debug, Default)]
struct Escalations {
    at: Option<Instant>,
    count: usize,
    /// Decisions by run and version, so that a run that stands still is folded once.
    runs: HashMap<RunId, (i64, usize)>,
}

async fn health(State(shared): State<Shared>) -> Response {
    let context = &shared.context;
    let store = context.runs.store();
    let answered = tokio::time::timeout(STORE_WAIT_MAX, store.health()).await;
    let store_ok = matches!(answered, Ok(Ok(())));
    let draining = context.stopping.is_cancelled();
    let agents = context.dispatcher.agents(None, limits::SESSIONS_MAX);
    let count = |wanted: &[AgentHealth]| {
        agents.iter().filter(|agent| wanted.contains(&agent.health)).count()
    };
    let unhealthy = count(&[AgentHealth::Unreachable, AgentHealth::Degraded]);
    let connected = agents.len() - count(&[AgentHealth::Unreachable]);
    let escalations = if store_ok { escalations(&shared).await.ok() } else { None };
    let status = match (draining, store_ok) {
        (true, _) => "draining",
        (false, true) => "ok",
        (false, false) => "unavailable",
    };
    let body = json!({
        "status": status,
        "version": env!("CARGO_PKG_VERSION"),
        "store": { "kind": store.kind(), "ok": store_ok },
        "agents": { "connected": connected, "unhealthy": unhealthy },
        "active_runs": context.runs.active(),
        "escalations": escalations,
    });
    let code = if status == "ok" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(body)).into_response()
}

/// Steps that wait for a person's decision, and tasks that were given up for a person to see to.
async fn escalations(shared: &Shared) -> Result<usize, store::Error> {
    let context = &shared.context;
    let now = context.runs.clock().now();
    let mut known = {
        let last = shared.escalations.lock().unwrap_or_else(PoisonError::into_inner);
        if last.at.is_some_and(|at| now.since(at) < ESCALATIONS_GOOD_FOR) {
            return Ok(last.count);
        }
        last.runs.clone()
    };
    let store = context.runs.store();
    let waiting = RunFilter {
        tenant: Some(TENANT_DEFAULT.to_owned()),
        status: i16::try_from(RunStatus::Waiting as i32).ok(),
        ..RunFilter::default()
    };
    let rows = store.runs(&waiting, None, false, limits::ESCALATIONS_LOOKED_AT).await?;
    let mut runs = HashMap::new();
    for row in rows {
        let known = known.remove(&row.run_id).filter(|(version, _)| *version == row.version);
        let decisions = match known {
            Some((_, decisions)) => decisions,
            None => decisions(context, row.run_id).await,
        };
        runs.insert(row.run_id, (row.version, decisions));
    }
    let filter =
        DeadLetterFilter { tenant: Some(TENANT_DEFAULT.to_owned()), ..DeadLetterFilter::default() };
    let letters = store.dead_letters(&filter, None, store::limits::PAGE_ROWS_MAX).await?;
    let given_up = letters
        .iter()
        .map(|row| convert::dead_letter(row, false))
        .filter(|letter| matches!(letter.error_code.as_str(), "needs_person" | "lost"))
        .count();
    let count = given_up + runs.values().map(|(_, decisions)| decisions).sum::<usize>();
    let mut last = shared.escalations.lock().unwrap_or_else(PoisonError::into_inner);
    *last = Escalations { at: Some(now), count, runs };
    Ok(count)
}

async fn decisions(context: &Context, run: RunId) -> usize {
    let Ok((_, state)) = context.runs.read(run).await else { return 0 };
    let asks = |step: &engine::StepView| {
        matches!(step.waiting, Some(Waiting::For(WaitingFor::Decision(_), _)))
    };
    state.steps().iter().filter(|step| asks(step)).count()
}

async fn metrics(State(shared): State<Shared>) -> Response {
    for bound in shared.context.bounds() {
        #[expect(clippy::cast_precision_loss, reason = "gauges")]
        let (used, max) = (bound.used as f64, bound.max as f64);
        metrics::gauge!("orchestrator_admission_used", "bound" => bound.name).set(used);
        metrics::gauge!("orchestrator_admission_max", "bound" => bound.name).set(max);
    }
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, telemetry::render()).into_response()
}

async fn unknown(uri: Uri, headers: HeaderMap) -> Response {
    let path = crate::service::status::cut(uri.path(), 200);
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if kind.is_some_and(|kind| kind.starts_with("application/grpc")) {
        return tonic::Status::unimplemented(format!("there is no method {path}")).into_http();
    }
    let message = format!("there is nothing at {path}; there are /health and /metrics, and gRPC");
    let body = json!({ "error": { "code": "NOT_FOUND", "message": message } });
    (StatusCode::NOT_FOUND, Json(body)).into_response()
}

async fn wrong_method() -> Response {
    let message = "this path takes GET alone";
    let body = json!({ "error": { "code": "METHOD_NOT_ALLOWED", "message": message } });
    (StatusCode::METHOD_NOT_ALLOWED, Json(body)).into_response()
}

/// What stands here is of this moment.
async fn no_store(mut response: Response) -> Response {
    let value = header::HeaderValue::from_static("no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, value);
    response
}
