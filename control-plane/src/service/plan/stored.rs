//! Plans as documents: read, written by compare-and-swap, shown.

use std::time::Duration;

use contracts::v1::{self, Reason};
use engine::{Instant, RunId};
use serde_json::json;
use store::{Changed, DocumentRow, DocumentWrite};

use crate::audit::{self, Entry};
use crate::documents::Kind;
use crate::plans::{self, Body, Issue};
use crate::recovery::ended::{How, IssueEnd};
use crate::recovery::progress::PlanIssue;
use crate::service::auth::Principal;
use crate::service::request::Mark;
use crate::service::status::{Refusal, cut};
use crate::service::{Context, convert};

/// A plan.
#[derive(Clone, Debug)]
pub(in crate::service) struct Plan {
    pub(super) row: DocumentRow,
    pub(super) body: Body,
}

impl Plan {
    /// A plan that nobody has stored yet.
    pub(super) fn new(who: &Principal, id: String, body: Body, now: Instant) -> Self {
        let row = DocumentRow {
            kind: Kind::Plan.number(),
            id,
            tenant: who.tenant.clone(),
            parent: (!body.triage.is_empty()).then(|| body.triage.clone()),
            status: status_number(v1::PlanStatus::Draft),
            created_at: now.0,
            updated_at: now.0,
            due_at: None,
            version: 0,
            body: Vec::new(),
        };
        Self { row, body }
    }

    /// A plan of the caller's.
    pub(in crate::service) async fn get(
        context: &Context,
        who: &Principal,
        id: &str,
    ) -> Result<Self, Refusal> {
        if id.is_empty() {
            return Err(Refusal::field("plan_id", "must be given"));
        }
        let row = match id.len() > store::limits::TEXT_BYTES_MAX || id.contains('\0') {
            true => None,
            false => context.runs.store().document(Kind::Plan.number(), id).await?,
        };
        let row = row.filter(|row| row.tenant == who.tenant).ok_or_else(|| {
            let id = cut(id, 200);
            let message = format!(
                "there is no recovery plan `{id}`; `orchestrator plans list` shows those \
                         there are"
            );
            Refusal::missing(Reason::PlanNotFound, "recovery plan", &id, message)
        })?;
        Self::read(row)
    }

    /// The plan of a row.
    pub(super) fn read(row: DocumentRow) -> Result<Self, Refusal> {
        let body = serde_json::from_slice(&row.body).map_err(|error| Refusal::internal(&error))?;
        Ok(Self { row, body })
    }

    pub(super) fn id(&self) -> &str {
        &self.row.id
    }

    pub(super) fn status(&self) -> v1::PlanStatus {
        v1::PlanStatus::try_from(i32::from(self.row.status)).unwrap_or_default()
    }

    pub(super) fn set_status(&mut self, status: v1::PlanStatus) {
        self.row.status = status_number(status);
    }

    /// The run that carries it out.
    pub(in crate::service) fn run(&self) -> Option<RunId> {
        self.body.run
    }

    fn etag(&self) -> String {
        self.row.version.to_string()
    }

    /// Refuses when it is not as the caller has read it; an empty etag is no claim.
    pub(super) fn expect(&self, etag: &str) -> Result<(), Refusal> {
        if etag.is_empty() || etag == self.etag() {
            return Ok(());
        }
        Err(self.changed())
    }

    fn changed(&self) -> Refusal {
        let message = format!(
            "the recovery plan `{}` has changed since it was read; read it again",
            self.row.id
        );
        Refusal::new(Reason::EtagMismatch, message).metadata("etag", self.etag())
    }

    /// Refuses when it is, or was, executed.
    pub(super) fn expect_open(&self) -> Result<(), Refusal> {
        let Some(run) = self.body.run else { return Ok(()) };
        let message = format!(
            "the recovery plan `{}` is executed by run {run} and cannot be changed; make a new \
             one for what is left",
            self.row.id
        );
        let refusal = Refusal::new(Reason::PlanState, message);
        Err(refusal.metadata("run_id", run.to_string()))
    }

    /// The issues as progress wants them.
    pub(in crate::service) fn outline(&self) -> Vec<PlanIssue> {
        self.body.outline()
    }

    /// Stores it as the next version, with an entry in the audit log; false when the request
    /// behind it is known already.
    pub(super) async fn write(
        &mut self,
        context: &Context,
        who: &Principal,
        mark: Option<&Mark>,
        action: &'static str,
    ) -> Result<bool, Refusal> {
        let now = context.runs.clock().now();
        let expected_version = self.row.version;
        self.row.version += 1;
        self.row.updated_at = now.0;
        self.row.body =
            serde_json::to_vec(&self.body).map_err(|error| Refusal::internal(&error))?;
        let documents = vec![DocumentWrite { row: self.row.clone(), expected_version }];
        let request = mark.map(|mark| {
            let response = Some(self.row.id.clone().into_bytes());
            store::RequestRow { response, ..mark.row(who, None, now) }
        });
        let entry = Entry {
            resource: plans::resource(&self.row.id),
            actor: who.subject.clone(),
            action,
            body: json!({
                "definition": engine::ContentHash::of(self.body.text.as_bytes()).to_string(),
                "allow_not_undoable": self.body.allow_not_undoable,
                "comment": audit::said(&self.body.comment),
                "run": self.body.run,
            }),
        };
        let store = &**context.runs.store();
        match audit::change(store, documents, &[entry], request, now).await? {
            Changed::Done => Ok(true),
            Changed::Conflict => Err(self.changed()),
            Changed::DuplicateRequest(_) => Ok(false),
        }
    }

    /// As clients see it.
    pub(super) fn shown(&self, with_text: bool) -> v1::RecoveryPlan {
        let body = &self.body;
        let ends = body.ended.iter().flat_map(|ended| ended.issues.iter().map(Some));
        let issues = body.issues.iter().zip(ends.chain(std::iter::repeat(None)));
        v1::RecoveryPlan {
            plan_id: self.row.id.clone(),
            triage_id: body.triage.clone(),
            status: self.status().into(),
            definition: if with_text { body.text.clone() } else { String::new() },
            issues: issues.map(|(issue, end)| shown_issue(issue, end)).collect(),
            allow_not_undoable: body.allow_not_undoable,
            estimated_duration: Some(convert::duration(Duration::from_millis(body.estimate_ms))),
            run_id: body.run.map(|run| run.to_string()).unwrap_or_default(),
            approved_by: body.approved_by.clone(),
            comment: body.comment.clone(),
            create_time: Some(convert::timestamp(Instant(self.row.created_at))),
            update_time: Some(convert::timestamp(Instant(self.row.updated_at))),
            etag: self.etag(),
            end_time: body.ended.as_ref().map(|ended| convert::timestamp(ended.at)),
            run_status: body.ended.as_ref().map_or(0, |ended| i32::from(ended.status)),
        }
    }
}

fn shown_issue(issue: &Issue, end: Option<&IssueEnd>) -> v1::PlanIssue {
    let by = end.and_then(IssueEnd::mended_by);
    v1::PlanIssue {
        issue_id: issue.id.clone(),
        title: issue.title.clone(),
        step: issue.step.clone().unwrap_or_default(),
        estimated_duration: issue
            .estimate_ms
            .map(|millis| convert::duration(Duration::from_millis(millis))),
        category: issue.category.clone(),
        agent: issue.agent.clone(),
        status: end.map_or(v1::IssueStatus::Unspecified, |end| issue_status(end.how)).into(),
        mended_by: by.map(|tried| tried.agent.clone()).unwrap_or_default(),
        took: by.and_then(|tried| tried.took()).map(convert::duration),
        error: end.map(|end| end.error.clone()).unwrap_or_default(),
    }
}

fn issue_status(how: How) -> v1::IssueStatus {
    match how {
        How::Resolved => v1::IssueStatus::Resolved,
        How::Failed => v1::IssueStatus::Failed,
        How::Skipped => v1::IssueStatus::Skipped,
        How::Undone => v1::IssueStatus::Undone,
        How::Stuck => v1::IssueStatus::Stuck,
        How::ByHand => v1::IssueStatus::ByHand,
    }
}

fn status_number(status: v1::PlanStatus) -> i16 {
    i16::try_from(i32::from(status)).unwrap_or_default()
}
