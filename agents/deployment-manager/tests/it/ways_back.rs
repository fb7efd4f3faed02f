//! Rollback and undo, once per key.

use agent_sdk::Kind;
use deployment_manager_agent::deploy::{self, Undeployed};
use deployment_manager_agent::rollback;

use crate::support::World;

#[test]
fn a_rollback_goes_back_one_release_per_key() {
    let world = World::new();
    let first = world.deploy("1", "one").unwrap();
    world.deploy("2", "two").unwrap();
    world.deploy("3", "three").unwrap();
    let back = world.rollback("a").unwrap();
    assert!(back.rolled_back);
    assert_eq!(world.live().as_deref(), Some("two"));
    assert_eq!(world.rollback("a").unwrap(), back);
    assert_eq!(world.live().as_deref(), Some("two"));
    assert_eq!(world.rollback("b").unwrap().release, first.release);
    assert_eq!(world.live().as_deref(), Some("one"));
}

#[test]
fn with_nothing_to_go_back_to_a_rollback_fails_clearly() {
    let world = World::new();
    let cases = ["nothing was ever deployed", "first release"];
    for (number, part) in cases.into_iter().enumerate() {
        let failure = world.rollback(&format!("key-{number}")).unwrap_err();
        assert_eq!(failure.kind(), Kind::Permanent);
        assert_eq!(failure.code_text(), "nothing_to_roll_back");
        assert!(failure.message().contains(part) && failure.had_no_effect(), "{failure}");
        world.deploy("1", "one").unwrap();
    }
    world.undo_deploy("1").unwrap();
    let failure = world.rollback("key").unwrap_err();
    assert!(failure.message().contains("no release is current"), "{failure}");
}

#[test]
fn a_rollback_is_undone_while_nobody_deployed_since() {
    let world = World::new();
    world.deploy("1", "one").unwrap();
    world.deploy("2", "two").unwrap();
    world.rollback("a").unwrap();
    assert!(rollback::undo(&world.workspace, "a", true).unwrap().switched_back);
    assert_eq!(world.live().as_deref(), Some("two"));
    world.rollback("b").unwrap();
    world.deploy("3", "three").unwrap();
    assert!(!rollback::undo(&world.workspace, "b", true).unwrap().switched_back);
    assert_eq!(world.live().as_deref(), Some("three"));
}

#[test]
fn after_a_rollback_the_next_release_follows_what_was_gone_back_to() {
    let world = World::new();
    world.deploy("1", "one").unwrap();
    world.deploy("2", "two").unwrap();
    world.rollback("a").unwrap();
    world.deploy("3", "three").unwrap();
    world.rollback("b").unwrap();
    assert_eq!(world.live().as_deref(), Some("one"));
}

#[test]
fn an_undo_switches_back_and_a_second_one_changes_nothing() {
    let world = World::new();
    let first = world.deploy("1", "one").unwrap();
    let before = world.names();
    world.deploy("2", "two").unwrap();
    let undone = world.undo_deploy("2").unwrap();
    assert_eq!(undone, Undeployed { switched_back: true, release: Some(first.release) });
    assert_eq!(world.live().as_deref(), Some("one"));
    assert_eq!(world.names(), before);
    assert!(!world.undo_deploy("2").unwrap().switched_back);
    assert_eq!(world.live().as_deref(), Some("one"));
}

#[test]
fn an_undo_of_the_first_release_leaves_none() {
    let world = World::new();
    world.deploy("1", "one").unwrap();
    world.undo_deploy("1").unwrap();
    assert!(world.names().is_empty());
    assert!(!world.target().join("current").is_symlink());
}

#[test]
fn an_undo_does_not_touch_a_later_release() {
    let world = World::new();
    world.deploy("1", "one").unwrap();
    world.deploy("2", "two").unwrap();
    world.deploy("3", "three").unwrap();
    assert!(!world.undo_deploy("2").unwrap().switched_back);
    assert_eq!(world.live().as_deref(), Some("three"));
    world.rollback("a").unwrap();
    assert_eq!(world.live().as_deref(), Some("one"));
}

#[test]
fn an_undo_before_the_do_leaves_a_mark() {
    let world = World::new();
    assert_eq!(world.undo_deploy("1").unwrap(), Undeployed::default());
    let failure = world.deploy("1", "one").unwrap_err();
    assert_eq!((failure.kind(), failure.code_text()), (Kind::Permanent, "undone"));
    assert_eq!(world.live(), None);
    rollback::undo(&world.workspace, "a", false).unwrap();
    world.deploy("2", "two").unwrap();
    world.deploy("3", "three").unwrap();
    assert_eq!(world.rollback("a").unwrap_err().code_text(), "undone");
    assert_eq!(world.live().as_deref(), Some("three"));
}

#[test]
fn an_undo_without_the_record_of_what_was_done_does_not_claim_success() {
    let world = World::new();
    let failure = deploy::undo(&world.workspace, "key", true).unwrap_err();
    assert!(failure.message().contains("ORCHESTRATOR_WORKSPACE"), "{failure}");
}
