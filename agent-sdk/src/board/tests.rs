//! What is heard while nothing can be said, and what is taken on.

use std::sync::atomic::{AtomicU32, Ordering};

use contracts::v1::task_result::Outcome;
use futures::StreamExt as _;
use serde_json::Value;
use tonic::transport::Endpoint;

use super::*;
use crate::Action;
use crate::limits::FRAMES_QUEUED_MAX;

const WAIT_MAX: Duration = Duration::from_secs(20);

struct Scene {
    board: Arc<Board>,
    frames: Frames,
    began: Arc<AtomicU32>,
    stopped: Arc<Notify>,
}

impl Scene {
    /// A registered agent with room for what the tests give it.
    fn deaf() -> Self {
        Self::with_slots(10)
    }

    fn with_slots(slots: u32) -> Self {
        let (began, stopped) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
        let (count, told) = (Arc::clone(&began), Arc::clone(&stopped));
        let hold = move |context: Context, _: Value| {
            count.fetch_add(1, Ordering::SeqCst);
            let told = Arc::clone(&told);
            async move {
                context.cancelled().cancelled().await;
                told.notify_one();
                Err::<Value, _>(Failure::cancelled("stopped"))
            }
        };
        let agent = Agent::new("tester", "1").slots(slots).action(Action::new("hold", "", hold));
        let board = Board::new(agent);
        let (number, register) = board.begin_session("one", "");
        let frames = Frames::new(Arc::clone(&board), number, register);
        let channel = Endpoint::from_static("http://nowhere").connect_lazy();
        board.registered(&v1::Registered::default(), &[], channel);
        Self { board, frames, began, stopped }
    }

    fn clog(&self) {
        for nonce in 0..u64::try_from(FRAMES_QUEUED_MAX).unwrap() {
            self.board.send(Frame::Ping(v1::Ping { nonce }));
        }
    }

    fn assign(&self, id: &str) {
        let r#ref = Some(v1::TaskRef { task_id: id.to_owned(), lease_token: "1".to_owned() });
        let (action, attempt) = ("hold".to_owned(), 1);
        self.board.assign(v1::Task { r#ref, action, attempt, ..v1::Task::default() });
    }

    fn cancel(&self, id: &str) {
        let task = Some(v1::TaskRef { task_id: id.to_owned(), lease_token: "1".to_owned() });
        self.board.cancel(&v1::Cancel { task, ..v1::Cancel::default() });
    }

    /// Reads what the agent says until it has told how `count` tasks ended.
    async fn results(&mut self, count: usize) -> Vec<v1::TaskResult> {
        let mut results = Vec::new();
        let reading = async {
            while results.len() < count {
                if let Some(Frame::Results(said)) = self.frames.next().await.unwrap().frame {
                    results.extend(said.results);
                }
            }
        };
        tokio::time::timeout(WAIT_MAX, reading).await.unwrap();
        results.sort_by_key(|result| result.task.clone().map(|task| task.task_id));
        results
    }
}

#[tokio::test]
async fn a_cancel_is_heard_while_nothing_can_be_said() {
    let mut scene = Scene::deaf();
    scene.assign("running");
    tokio::task::yield_now().await;
    scene.clog();
    scene.assign("held");
    scene.assign("later");
    assert!(!scene.board.is_full(), "it reads on");
    assert_eq!(scene.board.tasks(), 3);
    scene.cancel("running");
    tokio::time::timeout(WAIT_MAX, scene.stopped.notified()).await.unwrap();
    assert_eq!(scene.began.load(Ordering::SeqCst), 1, "nothing was taken on meanwhile");
    scene.cancel("held");
    let results = scene.results(2).await;
    let never = &results[0];
    assert_eq!(never.task.as_ref().unwrap().task_id, "held");
    let Some(Outcome::Cancelled(cancelled)) = &never.outcome else { panic!("{never:?}") };
    assert_eq!(cancelled.message, "it had not begun");
    let third = async {
        while scene.began.load(Ordering::SeqCst) < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(WAIT_MAX, third).await.expect("the third begins when there is room");
    scene.cancel("later");
    assert_eq!(scene.results(1).await[0].task.as_ref().unwrap().task_id, "later");
}

#[tokio::test]
async fn what_is_held_is_forgotten_with_its_session() {
    let scene = Scene::deaf();
    scene.clog();
    scene.assign("held");
    scene.assign("held");
    assert_eq!(scene.board.tasks(), 1, "the same task twice is one");
    let (_, register) = scene.board.begin_session("one", "");
    assert!(register.tasks_in_flight.is_empty(), "it is given out anew");
    assert_eq!(scene.board.tasks(), 0);
}

#[tokio::test]
async fn results_that_wait_for_their_acknowledgement_take_no_slot() {
    let mut scene = Scene::with_slots(2);
    let taken = |scene: &Scene| scene.board.tasks();
    for round in 1..=3 {
        let ids = [format!("{round}-a"), format!("{round}-b"), format!("{round}-c")];
        ids.iter().for_each(|id| scene.assign(id));
        assert_eq!(taken(&scene), 2, "round {round}: the third has no slot");
        let Some(Frame::Release(release)) = released(&mut scene).await else { panic!("a release") };
        assert_eq!(release.task.unwrap().task_id, ids[2]);
        scene.cancel(&ids[0]);
        scene.cancel(&ids[1]);
        let results = scene.results(2).await;
        assert_eq!(taken(&scene), 2, "they are kept");
        let more = format!("{round}-more");
        scene.assign(&more);
        assert_eq!(taken(&scene), 3, "and there is a slot all the same");
        let lost = v1::LeaseLost {
            task_id: more,
            lease_token: "1".to_owned(),
            ..v1::LeaseLost::default()
        };
        scene.board.lease_lost(&lost);
        let ack = |result: v1::TaskResult| {
            let task = result.task.unwrap();
            let (task_id, lease_token) = (task.task_id, task.lease_token);
            v1::ResultAck { task_id, lease_token, ..v1::ResultAck::default() }
        };
        let acks: Vec<v1::ResultAck> = results.into_iter().map(ack).collect();
        scene.board.acknowledge(&acks);
        assert_eq!(taken(&scene), 0);
    }
}

/// The next task that is given back.
async fn released(scene: &mut Scene) -> Option<Frame> {
    let reading = async {
        loop {
            let frame = scene.frames.next().await?.frame;
            if matches!(frame, Some(Frame::Release(_))) {
                return frame;
            }
        }
    };
    tokio::time::timeout(WAIT_MAX, reading).await.unwrap()
}
