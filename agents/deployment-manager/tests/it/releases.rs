//! Copied as a whole, switched in one step, pruned, one at a time.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use agent_sdk::Kind;
use deployment_manager_agent::deploy::{self, Deploy};

use crate::support::{World, names};

#[test]
fn a_release_is_a_copy_of_the_project() {
    let world = World::new();
    world.write("bin/run", "#!/bin/sh\n");
    world.write(".git/config", "history");
    world.write(".orchestrator/scaffold.json", "{}");
    fs::create_dir(world.project().join("empty")).unwrap();
    let run = world.project().join("bin/run");
    fs::set_permissions(&run, fs::Permissions::from_mode(0o755)).unwrap();
    symlink("../bin/run", world.project().join("src/link")).unwrap();

    let deployed = world.deploy("key", "one").unwrap();
    assert!(deployed.release.starts_with("1.2.3-"), "{deployed:?}");
    assert_eq!(deployed.target, world.target().display().to_string());
    assert_eq!(deployed.previous, None);
    let current = Path::new(&deployed.current);
    assert_eq!(fs::read_link(current).unwrap(), Path::new("releases").join(&deployed.release));
    assert_eq!(names(current), ["bin", "empty", "orchestrator.project.json", "src"]);
    let mode = fs::metadata(current.join("bin/run")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
    assert_eq!(fs::read_link(current.join("src/link")).unwrap(), Path::new("../bin/run"));
    assert_eq!(world.live().as_deref(), Some("one"));
}

#[test]
fn a_repeated_do_changes_nothing_and_answers_the_same() {
    let world = World::new();
    let first = world.deploy("key", "one").unwrap();
    assert_eq!(world.deploy("key", "two").unwrap(), first);
    assert_eq!(world.live().as_deref(), Some("one"));
}

#[test]
fn a_new_release_follows_the_one_before() {
    let world = World::new();
    let first = world.deploy("1", "one").unwrap();
    let second = world.deploy("2", "two").unwrap();
    assert_eq!(second.previous.as_ref(), Some(&first.release));
    assert_eq!(world.live().as_deref(), Some("two"));
}

#[test]
fn old_releases_go_and_what_is_needed_stays() {
    let world = World::new();
    let mut last = Vec::new();
    for number in 1..=6 {
        let wish = Deploy { keep: Some(3), ..world.wish() };
        let key = number.to_string();
        world.write("src/main.txt", &key);
        last.push(deploy::deploy(&world.workspace, &key, &wish, &|| false).unwrap().release);
    }
    let mut kept: Vec<String> =
        last[3..].iter().flat_map(|id| [id.clone(), format!("{id}.json")]).collect();
    kept.sort();
    assert_eq!(world.names(), kept);
    assert_eq!(world.live().as_deref(), Some("6"));
    world.rollback("a").unwrap();
    world.rollback("b").unwrap();
    assert_eq!(world.live().as_deref(), Some("4"));
    let failure = world.rollback("c").unwrap_err();
    assert!(failure.message().contains("not kept any more"), "{failure}");
    // Far behind the newest, the current release and the one before it are spared.
    let wish = Deploy { keep: Some(2), ..world.wish() };
    let deployed = deploy::deploy(&world.workspace, "7", &wish, &|| false).unwrap();
    assert_eq!(deployed.previous.as_ref(), Some(&last[3]));
    assert!(world.names().contains(&last[3]));
}

#[test]
fn links_that_lead_out_are_refused_and_nothing_is_left() {
    for leads_to in ["/etc/hostname", "../../secret"] {
        let world = World::new();
        world.deploy("1", "one").unwrap();
        let before = world.names();
        symlink(leads_to, world.project().join("src/link")).unwrap();
        let failure = world.deploy("2", "two").unwrap_err();
        assert_eq!(failure.kind(), Kind::Permanent);
        assert!(failure.message().contains("src/link"), "{failure}");
        assert_eq!(world.names(), before);
        assert_eq!(world.live().as_deref(), Some("one"));
        fs::remove_file(world.project().join("src/link")).unwrap();
        world.deploy("2", "two").unwrap();
        assert_eq!(world.live().as_deref(), Some("two"));
    }
}

#[test]
fn what_is_no_file_is_refused() {
    let world = World::new();
    let _socket = std::os::unix::net::UnixListener::bind(world.project().join("s")).unwrap();
    let failure = world.deploy("key", "one").unwrap_err();
    assert!(failure.message().contains("s is neither"), "{failure}");
}

#[test]
fn a_foreign_current_is_not_replaced() {
    let world = World::new();
    fs::create_dir_all(world.target()).unwrap();
    let current = world.target().join("current");
    fs::write(&current, "mine").unwrap();
    let failure = world.deploy("1", "one").unwrap_err();
    assert_eq!(failure.kind(), Kind::Permanent);
    assert_eq!(fs::read_to_string(&current).unwrap(), "mine");
    fs::remove_file(&current).unwrap();
    symlink("/etc", &current).unwrap();
    assert_eq!(world.deploy("2", "one").unwrap_err().kind(), Kind::Permanent);
    assert_eq!(fs::read_link(&current).unwrap(), Path::new("/etc"));
}

#[test]
fn deployments_to_one_target_are_one_chain_and_the_link_is_always_there() {
    let world = World::new();
    world.deploy("first", "one").unwrap();
    let is_over = AtomicBool::new(false);
    let mut deployed = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut looks = 0_u64;
            while !is_over.load(Ordering::Relaxed) {
                assert!(world.live().is_some());
                looks += 1;
            }
            looks
        });
        let starts: Vec<_> = (0..8)
            .map(|number| {
                let world = &world;
                let wish = Deploy { keep: Some(50), ..world.wish() };
                scope.spawn(move || {
                    let key = format!("key-{number}");
                    deploy::deploy(&world.workspace, &key, &wish, &|| false).unwrap()
                })
            })
            .collect();
        // The watcher must end before anything here may panic.
        let ended: Vec<_> = starts.into_iter().map(|start| start.join()).collect();
        is_over.store(true, Ordering::Relaxed);
        assert!(watcher.join().unwrap() > 0);
        ended.into_iter().map(Result::unwrap).collect::<Vec<_>>()
    });
    // Each follows another one, so that together they are one line back to the first.
    let mut current = world.deploy("last", "two").unwrap().previous.unwrap();
    for _ in 0..8 {
        let place = deployed.iter().position(|one| one.release == current).unwrap();
        current = deployed.swap_remove(place).previous.unwrap();
    }
    assert!(deployed.is_empty());
}

#[test]
fn a_cancelled_deployment_leaves_nothing() {
    let world = World::new();
    world.deploy("1", "one").unwrap();
    let before = world.names();
    let looks = std::cell::Cell::new(0);
    let is_cancelled = || {
        looks.set(looks.get() + 1);
        looks.get() > 3
    };
    let failure = deploy::deploy(&world.workspace, "2", &world.wish(), &is_cancelled).unwrap_err();
    assert_eq!(failure.kind(), Kind::Cancelled);
    assert_eq!(world.names(), before);
}
