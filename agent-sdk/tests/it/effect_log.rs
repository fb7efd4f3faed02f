//! Effects that happen once and can be undone.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use agent_sdk::effect_log::{EffectLog, Mark, UNDONE_CODE};
use agent_sdk::{Failure, Kind};

struct Scene {
    folder: tempfile::TempDir,
    log: EffectLog,
    effects: Arc<AtomicU32>,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = EffectLog::open(folder.path().join("sub/effects")).unwrap();
        Self { folder, log, effects: Arc::default() }
    }

    /// The log as another process would see it.
    fn again(&self) -> EffectLog {
        EffectLog::open(self.log.path()).unwrap()
    }

    async fn act(&self, log: &EffectLog, key: &str) -> Result<u32, Failure> {
        let effects = Arc::clone(&self.effects);
        log.once(key, |_| async move { Ok(effects.fetch_add(1, Ordering::SeqCst) + 1) }).await
    }

    async fn undo(&self, log: &EffectLog, key: &str) -> Result<Option<Option<u32>>, Failure> {
        let effects = Arc::clone(&self.effects);
        log.undo(key, |output: Option<u32>| async move {
            effects.fetch_sub(1, Ordering::SeqCst);
            Ok(output)
        })
        .await
    }

    fn effects(&self) -> u32 {
        self.effects.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn an_effect_happens_once_and_its_output_is_kept() {
    let scene = Scene::new();
    assert_eq!(scene.act(&scene.log, "a").await.unwrap(), 1);
    assert_eq!(scene.act(&scene.log, "a").await.unwrap(), 1);
    assert_eq!(scene.act(&scene.again(), "a").await.unwrap(), 1);
    assert_eq!(scene.act(&scene.log, "b").await.unwrap(), 2);
}

#[tokio::test]
async fn do_undo_undo_changes_nothing_the_second_time() {
    let scene = Scene::new();
    scene.act(&scene.log, "a").await.unwrap();
    assert_eq!(scene.undo(&scene.log, "a").await.unwrap(), Some(Some(1)));
    assert_eq!(scene.undo(&scene.again(), "a").await.unwrap(), None);
    assert_eq!(scene.effects(), 0);
}

#[tokio::test]
async fn undo_before_do_leaves_a_mark_that_refuses_the_do() {
    let scene = Scene::new();
    assert_eq!(scene.undo(&scene.log, "a").await.unwrap(), None);
    let failure = scene.act(&scene.again(), "a").await.unwrap_err();
    assert_eq!((failure.kind(), failure.code_text()), (Kind::Permanent, UNDONE_CODE));
    assert!(failure.had_no_effect());
    assert_eq!(scene.effects(), 0);
}

#[tokio::test]
async fn an_undo_that_fails_can_be_tried_again() {
    let scene = Scene::new();
    scene.act(&scene.log, "a").await.unwrap();
    let failure = scene
        .log
        .undo("a", |_: Option<u32>| async { Err::<(), _>(Failure::retryable("not now")) })
        .await
        .unwrap_err();
    assert_eq!(failure.message(), "not now");
    assert!(scene.act(&scene.log, "a").await.is_err(), "the undo has begun");
    assert_eq!(scene.undo(&scene.again(), "a").await.unwrap(), Some(Some(1)));
    assert_eq!(scene.effects(), 0);
}

#[tokio::test]
async fn an_effect_that_was_begun_is_announced_to_the_next_attempt() {
    let scene = Scene::new();
    let failed = scene.log.once("a", |begun| async move {
        assert!(!begun);
        Err::<u32, _>(Failure::retryable("half way"))
    });
    failed.await.unwrap_err();
    let begun = scene.again().once("a", |begun| async move { Ok(begun) }).await.unwrap();
    assert!(begun);
}

#[tokio::test]
async fn a_failure_without_effect_takes_the_beginning_back() {
    let scene = Scene::new();
    let failed = scene
        .log
        .once("a", |_| async { Err::<u32, _>(Failure::retryable("not begun").no_effect()) });
    failed.await.unwrap_err();
    assert_eq!(scene.again().lock().unwrap().mark("a"), None);
}

#[tokio::test]
async fn one_key_at_a_time_even_when_many_ask() {
    let scene = Arc::new(Scene::new());
    let mut asks = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let scene = Arc::clone(&scene);
        asks.spawn(async move { scene.act(&scene.log, "a").await.unwrap() });
    }
    while let Some(output) = asks.join_next().await {
        assert_eq!(output.unwrap(), 1);
    }
    assert_eq!(scene.effects(), 1);
}

#[test]
fn a_line_that_a_crash_cut_off_is_as_if_never_written() {
    let scene = Scene::new();
    scene.log.lock().unwrap().begin("a", "1").unwrap();
    let mut file = std::fs::OpenOptions::new().append(true).open(scene.log.path()).unwrap();
    file.write_all(br#"{"key":"b","mark":"do"#).unwrap();
    let again = scene.again();
    let mut locked = again.lock().unwrap();
    assert_eq!(locked.mark("b"), None);
    assert_eq!(locked.mark("a"), Some(&Mark::Begun("1".to_owned())));
    locked.done("b", "2").unwrap();
    drop(locked);
    assert_eq!(scene.log.lock().unwrap().mark("b"), Some(&Mark::Done("2".to_owned())));
}

#[test]
fn a_file_that_is_no_effect_log_is_refused_by_name() {
    let scene = Scene::new();
    let path = scene.folder.path().join("other");
    std::fs::write(&path, "hello\n").unwrap();
    let error = EffectLog::open(&path).unwrap_err().to_string();
    assert!(error.contains("other is no effect log"), "{error}");
}

#[test]
fn a_log_that_was_removed_begins_anew() {
    let scene = Scene::new();
    scene.log.lock().unwrap().done("a", "1").unwrap();
    std::fs::remove_file(scene.log.path()).unwrap();
    assert_eq!(scene.log.lock().unwrap().mark("a"), None);
}
