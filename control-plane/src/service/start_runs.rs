//! `StartRuns`: many runs of one workflow over one stream, and their ends on the same.
//!
//! What all runs share is looked up and checked once. A stream that is not read is not read from
//! either, so a client that sends without end is held back by its own connection. The ends come
//! from the write path; runs that another replica may have are looked for in the store as well.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use contracts::v1::{self, start_run_request, start_runs_request, start_runs_setup};
use contracts::v1::{RunToStart, start_runs_response::Item};
use engine::RunId;
use engine::definition::check_params;
use engine::event::RunStarted;
use engine::graph::Graph;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::auth::Principal;
use super::request::Mark;
use super::status::Refusal;
use super::{Context, convert, definition, run};
use crate::hash::QuickSet;
use crate::limits;
use crate::runs::{self, End, Final, NewRun, Started, started};

/// What the stream gives.
pub type Answers = ReceiverStream<Result<v1::StartRunsResponse, Status>>;

type Starting = BoxFuture<'static, (i64, RunId, Result<Started, runs::Error>)>;

/// `StartRuns`.
pub async fn start(
    context: &Context,
    who: &Principal,
    mut frames: Streaming<v1::StartRunsRequest>,
) -> Result<Answers, Refusal> {
    let first = frames
        .message()
        .await
        .map_err(|status| Refusal::field("setup", format!("did not come: {}", status.message())))?;
    let Some(start_runs_request::Item::Setup(setup)) = first.and_then(|first| first.item) else {
        return Err(Refusal::field("setup", "must be the first message of the stream"));
    };
    let template = Template::read(context, who, setup).await?;
    let (answers, stream) = mpsc::channel(limits::STARTS_ANSWERS_WAITING);
    let (ends_to, ends) = mpsc::channel(limits::ENDS_PER_STREAM_MAX + 1);
    let session = Session {
        context: context.clone(),
        template,
        starting: FuturesUnordered::new(),
        awaited: HashMap::new(),
        elsewhere: QuickSet::default(),
        fresh: Vec::new(),
        ends_to,
        ends,
        answers,
    };
    tokio::spawn(session.run(frames));
    Ok(ReceiverStream::new(stream))
}

/// What all runs of the stream have in common.
struct Template {
    who: Principal,
    graph: Arc<Graph>,
    started: RunStarted,
    await_end: bool,
}

impl Template {
    async fn read(
        context: &Context,
        who: &Principal,
        setup: v1::StartRunsSetup,
    ) -> Result<Self, Refusal> {
        run::check_labels(&setup.labels)?;
        let priority = run::check_priority(setup.priority)?;
        let source = setup.source.map(|source| match source {
            start_runs_setup::Source::Workflow(name) => start_run_request::Source::Workflow(name),
            start_runs_setup::Source::Definition(definition) => {
                start_run_request::Source::Definition(definition)
            }
        });
        let plan = run::plan(context, who, source).await?;
        if setup.require_agents {
            definition::require_agents(context, &plan.graphs)?;
        }
        plan.keep(context).await?;
        let graph = Arc::clone(&plan.main.graph);
        let mut started = started(&graph, "{}".into(), context.runs.epoch());
        started.tenant.clone_from(&who.tenant);
        started.labels = setup.labels.into_iter().collect();
        started.priority = priority.unwrap_or(graph.priority);
        started.siblings = run::hashes(&plan.siblings);
        Ok(Self { who: who.clone(), graph, started, await_end: setup.await_end })
    }

    /// One run, ready to be started.
    fn new_run(&self, context: &Context, asked: RunToStart) -> Result<NewRun, Refusal> {
        let given = convert::value(asked.params, "params")?;
        let params = check_params(&self.graph, given.as_ref()).map_err(run::wrong_params)?;
        let params = convert::params(params);
        let hash = self.graph.hash.to_string();
        let labels = format!("{} {:?}", self.started.priority, self.started.labels);
        let parts = [hash.as_bytes(), params.as_bytes(), labels.as_bytes()];
        let mark = Mark::new(&asked.request_id, "StartRuns", &parts)?;
        let clock = &**context.runs.clock();
        let id = crate::ids::run_id(clock);
        let started = RunStarted {
            params,
            origin: self.who.origin(mark.as_ref().map(Mark::journal)),
            // The owner's epoch may have changed since the stream was opened.
            epoch: context.runs.epoch(),
            ..self.started.clone()
        };
        let request = mark.map(|mark| mark.row(&self.who, Some(id), clock.now()));
        Ok(NewRun { id, graph: Arc::clone(&self.graph), started, request, fork: None })
    }
}

/// One stream.
struct Session {
    context: Context,
    template: Template,
    starting: FuturesUnordered<Starting>,
    /// The runs whose ends are to be told.
    awaited: HashMap<RunId, Awaited>,
    /// Those of them that another replica may have, of whose ends the write path does not tell.
    elsewhere: QuickSet<RunId>,
    /// Those of them that have not been looked for yet.
    fresh: Vec<RunId>,
    ends_to: mpsc::Sender<Final>,
    ends: mpsc::Receiver<Final>,
    answers: mpsc::Sender<Result<v1::StartRunsResponse, Status>>,
}

/// A run whose end is to be told.
struct Awaited {
    /// The client's names of it.
    tags: Vec<i64>,
    /// It is known to have been written.
    is_written: bool,
}

/// The client is gone: nobody is to be told anything any more.
struct Gone;

impl Session {
    async fn run(mut self, frames: Streaming<v1::StartRunsRequest>) {
        let stopping = self.context.stopping.clone();
        let answers = self.answers.clone();
        let stop = tokio::select! {
            stop = self.follow(frames) => stop,
            () = stopping.cancelled() => Some(Refusal::unavailable(
                "the server stops; open another stream and send again what is not answered",
            ).into()),
            () = answers.closed() => None,
        };
        for run in self.awaited.keys() {
            self.context.runs.forget_end(*run, &self.ends_to);
        }
        if let Some(status) = stop {
            // With the channel full the reader has long stopped reading; it sees the stream end.
            drop(answers.try_send(Err(status)));
        }
    }

    /// Goes on until everything is answered; gives what is wrong with the stream, if anything.
    async fn follow(&mut self, mut frames: Streaming<v1::StartRunsRequest>) -> Option<Status> {
        let mut look = tokio::time::interval(limits::ENDS_LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut is_open = true;
        while is_open || !self.starting.is_empty() || !self.awaited.is_empty() {
            let has_room = self.starting.len() < limits::STARTS_PER_STREAM_MAX
                && self.awaited.len() + self.starting.len() < limits::ENDS_PER_STREAM_MAX;
            let done = tokio::select! {
                // Room is made before more is taken in.
                biased;
                Some(word) = self.ends.recv() => self.told(word).await,
                Some((tag, id, answer)) = self.starting.next() => {
                    self.answered(tag, id, answer).await
                }
                // Behind all that is known already, so that many are looked for at once.
                () = std::future::ready(()), if !self.fresh.is_empty() => {
                    let fresh = std::mem::take(&mut self.fresh);
                    self.look(fresh).await
                }
                _ = look.tick(), if !self.elsewhere.is_empty() => {
                    let all = self.elsewhere.iter().copied().collect();
                    self.look(all).await
                }
                frame = frames.message(), if is_open && has_room => match frame {
                    Ok(Some(frame)) => match frame.item {
                        Some(start_runs_request::Item::Run(asked)) => self.begin(asked).await,
                        _ => return Some(Refusal::field("run", "must be given").into()),
                    },
                    Ok(None) => {
                        is_open = false;
                        Ok(())
                    }
                    Err(_) => return None,
                },
            };
            if done.is_err() {
                return None;
            }
        }
        None
    }

    async fn begin(&mut self, asked: RunToStart) -> Result<(), Gone> {
        let tag = asked.tag;
        let new = match self.template.new_run(&self.context, asked) {
            Ok(new) => new,
            Err(refusal) => return self.refuse(tag, refusal).await,
        };
        let permit = match self.context.admit() {
            Ok(permit) => permit,
            Err(refusal) => return self.refuse(tag, refusal).await,
        };
        let id = new.id;
        if self.template.await_end {
            // Before it is started: its end may come before the answer to its start.
            self.wait_for(id, tag, false);
        }
        let runs = self.context.runs.clone();
        self.starting.push(Box::pin(async move {
            let started = runs.start(new).await;
            drop(permit);
            (tag, id, started)
        }));
        Ok(())
    }

    async fn answered(
        &mut self,
        tag: i64,
        id: RunId,
        answer: Result<Started, runs::Error>,
    ) -> Result<(), Gone> {
        match answer {
            Ok(Started::New(id)) => {
                if let Some(awaited) = self.awaited.get_mut(&id) {
                    awaited.is_written = true;
                }
                self.started(tag, id).await
            }
            Ok(Started::Before(before)) => {
                self.forget(id);
                self.started(tag, before).await?;
                if self.template.await_end {
                    self.wait_for(before, tag, true);
                    self.look_for(before);
                }
                Ok(())
            }
            Err(error) => {
                self.forget(id);
                self.refuse(tag, error.into()).await
            }
        }
    }

    /// Has the write path tell of the run's end, should it be here.
    fn wait_for(&mut self, run: RunId, tag: i64, is_written: bool) {
        match self.awaited.entry(run) {
            Entry::Vacant(vacant) => {
                vacant.insert(Awaited { tags: vec![tag], is_written });
                self.context.runs.tell_end(run, self.ends_to.clone());
            }
            Entry::Occupied(mut awaited) => {
                let awaited = awaited.get_mut();
                awaited.tags.push(tag);
                awaited.is_written |= is_written;
            }
        }
    }

    /// Has the store asked for a run at once, and then from time to time.
    fn look_for(&mut self, run: RunId) {
        if self.elsewhere.insert(run) {
            self.fresh.push(run);
        }
    }

    /// Nobody waits for the run any more; gives who did.
    fn forget(&mut self, run: RunId) -> Vec<i64> {
        self.elsewhere.remove(&run);
        let Some(awaited) = self.awaited.remove(&run) else { return Vec::new() };
        self.context.runs.forget_end(run, &self.ends_to);
        awaited.tags
    }

    async fn told(&mut self, word: Final) -> Result<(), Gone> {
        match word {
            Final::Ended(end) => {
                self.elsewhere.remove(&end.run);
                let Some(awaited) = self.awaited.remove(&end.run) else { return Ok(()) };
                let run = self.run_of(&end);
                self.ended(awaited.tags, run).await
            }
            Final::Lost(run) => {
                if self.awaited.contains_key(&run) {
                    // It may come back.
                    self.context.runs.tell_end(run, self.ends_to.clone());
                    self.look_for(run);
                }
                Ok(())
            }
        }
    }

    /// Looks into the store which of these runs have ended.
    async fn look(&mut self, runs: Vec<RunId>) -> Result<(), Gone> {
        let context = self.context.clone();
        for some in runs.chunks(limits::ENDS_LOOKED_AT) {
            let store = context.runs.store();
            // They stay among those to be looked for.
            let Ok(standings) = store.standings(some).await else { return Ok(()) };
            let found: QuickSet<RunId> = standings.iter().map(|it| it.run_id).collect();
            let ended = standings.into_iter().filter(|it| it.ended).map(|it| it.run_id);
            let ended: Vec<RunId> = ended.filter(|run| self.awaited.contains_key(run)).collect();
            let rows = ended.into_iter().map(|id| read(&context, id));
            let mut rows = futures::stream::iter(rows).buffer_unordered(limits::ENDS_READ_AT_ONCE);
            while let Some(run) = rows.next().await {
                let Some((id, run)) = run else { continue };
                let tags = self.forget(id);
                self.ended(tags, v1::Run { params: None, ..run }).await?;
            }
            for id in some.iter().filter(|id| !found.contains(id)) {
                // One that is not written yet may be in the commit; if not, its start is refused.
                if self.awaited.get(id).is_none_or(|awaited| awaited.is_written) {
                    for tag in self.forget(*id) {
                        self.refuse(tag, runs::Error::NotFound(*id).into()).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// A run as it ended, from memory.
    fn run_of(&self, end: &End) -> v1::Run {
        let started = &self.template.started;
        let (failed_step, error) = end.failure.clone();
        v1::Run {
            run_id: end.run.to_string(),
            workflow: started.workflow.clone(),
            version: started.version.clone(),
            definition_hash: started.hash.clone(),
            status: convert::run_status(end.status).into(),
            outputs: end.outputs.as_ref().map(|outputs| convert::payload(&**outputs)),
            error: error.unwrap_or_default(),
            failed_step: failed_step.unwrap_or_default(),
            create_time: Some(convert::timestamp(end.started_at)),
            end_time: Some(convert::timestamp(end.ended_at)),
            labels: started.labels.clone().into_iter().collect(),
            priority: i32::from(started.priority),
            version_sequence: end.version,
            metrics: Some(convert::counts(end.counts)),
            actor: self.template.who.subject.clone(),
            ..v1::Run::default()
        }
    }

    async fn started(&mut self, tag: i64, id: RunId) -> Result<(), Gone> {
        self.send(tag, Item::Started(v1::RunStarted { run_id: id.to_string() })).await
    }

    async fn ended(&mut self, tags: Vec<i64>, run: v1::Run) -> Result<(), Gone> {
        for tag in tags {
            self.send(tag, Item::Ended(v1::RunEnded { run: Some(run.clone()) })).await?;
        }
        Ok(())
    }

    async fn refuse(&mut self, tag: i64, refusal: Refusal) -> Result<(), Gone> {
        let status = Status::from(refusal);
        let mut rich = contracts::rpc::Status::decode(status.details()).unwrap_or_default();
        rich.code = status.code() as i32;
        status.message().clone_into(&mut rich.message);
        self.send(tag, Item::Refused(rich)).await
    }

    async fn send(&mut self, tag: i64, item: Item) -> Result<(), Gone> {
        let response = v1::StartRunsResponse { tag, item: Some(item) };
        self.answers.send(Ok(response)).await.map_err(|_| Gone)
    }
}

/// A run that has ended; none when it cannot be read just now.
async fn read(context: &Context, id: RunId) -> Option<(RunId, v1::Run)> {
    let row = context.runs.store().run(id).await.ok()??;
    Some((id, run::basic(context, &row).await.ok()?))
}
