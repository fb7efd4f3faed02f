//! A run that is driven by anything, with checks behind every decision.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use engine::event::{Origin, RunStarted};
use engine::graph::Graph;
use engine::task::TaskKey;
use engine::{
    Command, Effect, Event, Instant, Phase, RunId, RunStatus, State, StepView, Transition,
};

/// Decisions in a row that only say that there is more to decide.
const MORE_MAX: usize = 100;

pub(crate) struct Run {
    pub(crate) state: State,
    pub(crate) now: Instant,
    graph: Arc<Graph>,
    started: RunStarted,
    journal: Vec<(Instant, Event)>,
    /// The fold of the journal, kept up with it.
    folded: State,
    /// Everything about the state, as it was behind the last decision.
    shown: String,
    /// What had settled by then.
    settled: BTreeMap<Arc<str>, StepView>,
    /// The attempts that were given out.
    given: BTreeSet<(TaskKey, u32)>,
}

impl Run {
    pub(crate) fn new(graph: Graph) -> Self {
        let graph = Arc::new(graph);
        let now = Instant(1_700_000_000_000_000);
        let started = RunStarted {
            workflow: graph.name.to_string(),
            version: String::new(),
            hash: graph.hash.to_string(),
            params: "{}".into(),
            tenant: "t".to_owned(),
            origin: Origin::default(),
            labels: BTreeMap::new(),
            priority: graph.priority,
            parent: None,
            epoch: 1,
            siblings: BTreeMap::new(),
        };
        let id = RunId::at_instant(now, "fuzz");
        let begun = engine::start(id, Arc::clone(&graph), started.clone(), now).unwrap();
        let folded = State::new(id, Arc::clone(&graph), started.clone(), now).unwrap();
        let (state, transition) = begun;
        let mut run = Self {
            state,
            now,
            graph,
            started,
            journal: Vec::new(),
            folded,
            shown: String::new(),
            settled: BTreeMap::new(),
            given: BTreeSet::new(),
        };
        assert!(matches!(transition.events[0], Event::RunStarted(_)));
        let more = transition.more;
        run.took(Transition { events: transition.events[1..].to_vec(), ..transition }, false);
        if more {
            run.settle_more();
        }
        run
    }

    /// Asks something of the run. Gives whether it was accepted.
    pub(crate) fn ask(&mut self, command: Command) -> bool {
        let ended = self.ended();
        let is_retry = matches!(command, Command::Retry { .. });
        match engine::decide(&mut self.state, command, self.now) {
            Ok(transition) => {
                if ended.is_some() && !is_retry {
                    assert_eq!(transition.events, [], "an ended run stays as it is");
                    assert_eq!(transition.effects, [], "an ended run does nothing");
                }
                let more = transition.more;
                self.took(transition, is_retry);
                if ended.is_some() && !is_retry {
                    assert_eq!(self.ended(), ended, "an ended run stays ended");
                }
                if more {
                    self.settle_more();
                }
                true
            }
            Err(rejection) => {
                assert!(!rejection.to_string().is_empty());
                assert_eq!(shown(&self.state), self.shown, "a rejection changes nothing");
                false
            }
        }
    }

    fn settle_more(&mut self) {
        for _ in 0..MORE_MAX {
            let decided = engine::decide(&mut self.state, Command::Tick, self.now);
            let transition = decided.expect("a tick is accepted");
            let more = transition.more;
            self.took(transition, false);
            if !more {
                return;
            }
        }
        panic!("there is always more to decide");
    }

    fn ended(&self) -> Option<RunStatus> {
        (self.state.phase() == Phase::Ended).then(|| self.state.status())
    }

    fn took(&mut self, transition: Transition, is_retry: bool) {
        for event in transition.events {
            let body = event.encode().unwrap();
            let read = Event::decode(event.kind(), &body).unwrap();
            assert_eq!(read, event, "an event survives the journal");
            // Time never runs back in a journal.
            let at = self.journal.last().map_or(self.now, |(at, _)| self.now.max(*at));
            self.folded.apply(&read, at);
            self.journal.push((at, read));
        }
        for effect in &transition.effects {
            if let Effect::Dispatch(order) = effect {
                self.given.insert((order.key, order.attempt));
            }
        }
        self.folded.settle_fold();
        self.shown = shown(&self.state);
        assert_eq!(shown(&self.folded), self.shown, "the journal tells all");
        assert_eq!(self.folded.pending_effects(), self.state.pending_effects());
        for effect in self.state.pending_effects() {
            if let Effect::Dispatch(order) = effect {
                let owed = (order.key, order.attempt);
                assert!(self.given.contains(&owed), "{} was never given out", order.path);
            }
        }
        self.check_settled(is_retry);
    }

    /// What has settled never changes, except that a retry opens what ended badly
    /// and forgets the steps of `on_failure`.
    fn check_settled(&mut self, is_retry: bool) {
        let steps = self.state.steps();
        let words = ["success", "failure", "skipped", "cancelled"];
        let mut settled = BTreeMap::new();
        for step in steps.into_iter().filter(|step| words.contains(&step.status)) {
            settled.insert(Arc::clone(&step.path), step);
        }
        for (path, was) in &self.settled {
            let is = settled.get(path);
            let kept = is.is_some_and(|is| is == was);
            let handler = path.starts_with("on_failure.");
            let reopened = is_retry && (was.status != "success" || handler);
            assert!(kept || reopened, "settled step changed: {was:#?} to {is:#?}");
        }
        self.settled = settled;
    }

    /// The process dies and another takes the run over: state is what the journal gives.
    pub(crate) fn crash(&mut self, epoch: u64) {
        let id = self.state.id();
        let graph = Arc::clone(&self.graph);
        let begun = self.state.started_at();
        let mut state = State::new(id, graph, self.started.clone(), begun).unwrap();
        for (at, event) in &self.journal {
            state.apply(event, *at);
        }
        state.settle_fold();
        assert_eq!(shown(&state), self.shown, "the journal tells all");
        self.state = state;
        // A run that has ended is not taken over.
        self.ask(Command::Adopt { epoch });
    }

    pub(crate) fn owed(&self) -> Vec<Effect> {
        self.state.pending_effects()
    }
}

/// Everything about a state but what only decisions use.
fn shown(state: &State) -> String {
    let mut state = state.clone();
    state.settle_fold();
    format!("{state:?}")
}
