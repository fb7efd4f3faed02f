//! Plans that are carried out once and can be taken back.

use agent_sdk::effect_log::{Plans, UNDONE_CODE};
use agent_sdk::{Failure, Kind};

const VARIABLE: &str = "WHERE_PLANS_ARE";

struct Scene {
    _folder: tempfile::TempDir,
    plans: Plans,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let plans = Plans::at(folder.path().join("sub/plans"), VARIABLE);
        Self { _folder: folder, plans }
    }

    fn apply(
        &self,
        plan: &str,
        apply: impl FnOnce(&mut String) -> Result<(), Failure>,
    ) -> Result<String, Failure> {
        self.plans.carry_out("key", || Ok(plan.to_owned()), apply)
    }

    fn undo(&self, was_done: bool) -> Result<Option<String>, Failure> {
        self.plans.take_back("key", was_done, |plan: &String| Ok(plan.clone()))
    }
}

#[test]
fn a_plan_is_carried_out_once_and_given_as_it_was_left() {
    let scene = Scene::new();
    let add = |plan: &mut String| {
        plan.push_str(" and more");
        Ok(())
    };
    assert_eq!(scene.apply("first", add).unwrap(), "first and more");
    let again = scene.apply("second", |_| panic!("it is done already"));
    assert_eq!(again.unwrap(), "first and more");
    assert_eq!(scene.undo(true).unwrap().as_deref(), Some("first and more"));
    assert_eq!(scene.undo(true).unwrap(), None);
}

#[test]
fn a_broken_off_attempt_is_carried_on_by_its_plan() {
    let scene = Scene::new();
    scene.apply("first", |_| Err(Failure::retryable("broken off"))).unwrap_err();
    assert_eq!(scene.apply("second", |_| Ok(())).unwrap(), "first");
}

#[test]
fn an_attempt_without_effect_leaves_no_plan_behind() {
    let scene = Scene::new();
    scene.apply("first", |_| Err(Failure::permanent("no").no_effect())).unwrap_err();
    assert_eq!(scene.apply("second", |_| Ok(())).unwrap(), "second");
}

#[test]
fn nothing_is_done_after_its_undoing() {
    let scene = Scene::new();
    assert_eq!(scene.undo(false).unwrap(), None);
    let failure = scene.apply("late", |_| panic!("it was undone")).unwrap_err();
    assert_eq!((failure.kind(), failure.code_text()), (Kind::Permanent, UNDONE_CODE));
}

#[test]
fn nothing_is_done_once_its_undoing_has_begun() {
    let scene = Scene::new();
    scene.apply("plan", |_| Ok(())).unwrap();
    let broken_off = scene
        .plans
        .take_back("key", true, |_: &String| Err::<(), _>(Failure::retryable("broken off")));
    broken_off.unwrap_err();
    let failure = scene.apply("late", |_| panic!("its undoing has begun")).unwrap_err();
    assert_eq!(failure.code_text(), UNDONE_CODE);
    assert_eq!(scene.undo(false).unwrap().as_deref(), Some("plan"));
}

#[test]
fn what_was_done_elsewhere_is_not_taken_back_in_silence() {
    let failure = Scene::new().undo(true).unwrap_err();
    assert!(failure.message().contains(VARIABLE), "{failure}");
    let nowhere = Plans::at("here", VARIABLE);
    let failure = nowhere.carry_out("key", || Ok(1), |_| Ok(())).unwrap_err();
    assert!(failure.message().contains("absolute"), "{failure}");
}
