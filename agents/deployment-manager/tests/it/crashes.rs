//! Broken off anywhere, the target has a whole release, and the next attempt ends well.

use std::fs;
use std::path::Path;

use deployment_manager_agent::deploy;
use deployment_manager_agent::target::{Release, Target};

use crate::support::World;

/// Where a deployment is broken off.
#[derive(Clone, Copy, Debug)]
enum Crash {
    WhileCopying,
    BeforeRecord,
    WhileRecording,
    BeforeSwitch,
    WhileSwitching,
    AfterSwitch,
}

const CRASHES: [Crash; 6] = [
    Crash::WhileCopying,
    Crash::BeforeRecord,
    Crash::WhileRecording,
    Crash::BeforeSwitch,
    Crash::WhileSwitching,
    Crash::AfterSwitch,
];

/// Leaves on disk what a deployment under the key "2" leaves when it is broken off there.
fn break_off(world: &World, crash: Crash) {
    // A folder in the place of the link that switches breaks off right there.
    let obstacle = world.target().join(".current.new");
    fs::create_dir(&obstacle).unwrap();
    world.deploy("2", "two").unwrap_err();
    fs::remove_dir(&obstacle).unwrap();
    let target = Target::lock(&world.target()).unwrap();
    let current = target.current().unwrap();
    let release: Release = target
        .releases()
        .unwrap()
        .into_iter()
        .find(|one| Some(&one.id) != current.as_ref())
        .unwrap();
    let releases = world.target().join("releases");
    let (place, record) =
        (releases.join(&release.id), releases.join(format!("{}.json", release.id)));
    match crash {
        Crash::WhileCopying => {
            fs::remove_file(record).unwrap();
            fs::remove_dir_all(place.join("src")).unwrap();
            fs::rename(place, releases.join(format!(".{}.staging", release.id))).unwrap();
        }
        Crash::BeforeRecord => fs::remove_file(record).unwrap(),
        Crash::WhileRecording => {
            fs::rename(&record, releases.join(format!("{}.json.new", release.id))).unwrap();
        }
        Crash::BeforeSwitch => {}
        Crash::WhileSwitching => {
            let link = Path::new("releases").join(&release.id);
            std::os::unix::fs::symlink(link, obstacle).unwrap();
        }
        Crash::AfterSwitch => target.switch(Some(&release.id)).unwrap(),
    }
}

#[test]
fn the_old_release_is_current_until_the_switch() {
    for crash in CRASHES {
        let world = World::new();
        world.deploy("1", "one").unwrap();
        break_off(&world, crash);
        let live = if matches!(crash, Crash::AfterSwitch) { "two" } else { "one" };
        assert_eq!(world.live().as_deref(), Some(live), "{crash:?}");
    }
}

#[test]
fn the_next_attempt_ends_as_if_nothing_had_happened() {
    for crash in CRASHES {
        let world = World::new();
        let first = world.deploy("1", "one").unwrap();
        break_off(&world, crash);
        let second = world.deploy("2", "two").unwrap();
        assert_eq!(second.previous.as_ref(), Some(&first.release), "{crash:?}");
        assert_eq!(world.live().as_deref(), Some("two"), "{crash:?}");
        assert_eq!(world.names().len(), 4, "{crash:?}: {:?}", world.names());
    }
}

#[test]
fn an_undo_leaves_the_old_release_alone() {
    for crash in CRASHES {
        let world = World::new();
        world.deploy("1", "one").unwrap();
        let before = world.names();
        break_off(&world, crash);
        deploy::undo(&world.workspace, "2", false).unwrap();
        assert_eq!(world.live().as_deref(), Some("one"), "{crash:?}");
        assert_eq!(world.names(), before, "{crash:?}");
        assert!(!world.target().join(".current.new").is_symlink(), "{crash:?}");
    }
}

#[test]
fn a_late_attempt_does_not_put_itself_before_a_later_release() {
    let world = World::new();
    world.deploy("1", "one").unwrap();
    break_off(&world, Crash::AfterSwitch);
    world.deploy("3", "three").unwrap();
    world.deploy("2", "two").unwrap();
    assert_eq!(world.live().as_deref(), Some("three"));
}
