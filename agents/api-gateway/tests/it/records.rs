//! Once per key, undone to the byte, in any order, after any crash.

use std::fs;

use agent_sdk::Kind;
use api_gateway_agent::api::{self, RemovedApi};
use project_builder_agent::scaffold::Builder;
use project_builder_agent::template::Template;

use crate::support::World;

const SERVICES: [Template; 2] = [Template::TypescriptApi, Template::PythonService];

#[test]
fn a_repeated_do_changes_nothing_and_answers_the_same() {
    for template in SERVICES {
        let world = World::new(template);
        let first = world.create("key", "items").unwrap();
        let after = world.snapshot();
        assert_eq!(world.create("key", "items").unwrap(), first);
        assert_eq!(world.snapshot(), after);
    }
}

#[test]
fn an_undo_restores_every_byte_and_a_second_one_changes_nothing() {
    for template in SERVICES {
        let world = World::new(template);
        let before = world.snapshot();
        world.create("key", "items").unwrap();
        assert_ne!(world.snapshot(), before);
        assert!(world.remove("key").unwrap().removed);
        assert_eq!(world.snapshot(), before);
        assert_eq!(world.remove("key").unwrap(), RemovedApi::default());
        assert_eq!(world.snapshot(), before);
    }
}

#[test]
fn resources_are_undone_in_any_order() {
    for template in SERVICES {
        for order in [["a", "b"], ["b", "a"]] {
            let world = World::new(template);
            let before = world.snapshot();
            world.create("a", "items").unwrap();
            world.create("b", "orders").unwrap();
            for key in order {
                world.remove(key).unwrap();
            }
            assert_eq!(world.snapshot(), before);
        }
    }
}

#[test]
fn an_undo_before_the_do_leaves_a_mark() {
    let world = World::new(Template::TypescriptApi);
    let before = world.snapshot();
    assert_eq!(world.remove("key").unwrap(), RemovedApi::default());
    let failure = world.create("key", "items").unwrap_err();
    assert_eq!((failure.kind(), failure.code_text()), (Kind::Permanent, "undone"));
    assert_eq!(world.snapshot(), before);
}

#[test]
fn a_late_do_after_the_undo_is_refused() {
    let world = World::new(Template::TypescriptApi);
    world.create("key", "items").unwrap();
    world.remove("key").unwrap();
    assert_eq!(world.create("key", "items").unwrap_err().kind(), Kind::Permanent);
}

/// Whatever the attempt had written before it was broken off, the next one completes it, and
/// the undo takes it out. Files are written in the order of the list.
#[test]
fn a_do_broken_off_anywhere_is_completed_or_undone() {
    let world = World::new(Template::TypescriptApi);
    let before = world.snapshot();
    world.create("key", "items").unwrap();
    let after = world.snapshot();
    world.remove("key").unwrap();
    let order = [
        "src/routes/items.ts",
        "dist/routes/items.js",
        "openapi.json",
        "src/routes/index.ts",
        "dist/routes/index.js",
    ];
    for written in 0..=order.len() {
        for completed in [true, false] {
            let key = format!("key-{written}-{completed}");
            begin_only(&world, &key);
            for file in &order[..written] {
                let path = world.dir().join(file);
                let (_, bytes) = after.iter().find(|(found, _)| *found == path).unwrap();
                fs::write(path, bytes).unwrap();
            }
            if completed {
                world.create(&key, "items").unwrap();
                assert_eq!(world.snapshot(), after);
            }
            world.remove(&key).unwrap();
            assert_eq!(world.snapshot(), before, "{written} written");
        }
    }
}

/// Leaves what a crash right after the record leaves: the record, and nothing in the project.
fn begin_only(world: &World, key: &str) {
    let obstacle = world.dir().join("src/routes/items.ts.new");
    fs::create_dir(&obstacle).unwrap();
    assert_eq!(world.create(key, "items").unwrap_err().kind(), Kind::Retryable);
    fs::remove_dir(obstacle).unwrap();
}

#[test]
fn what_somebody_changed_stays() {
    let world = World::new(Template::PythonService);
    world.create("key", "items").unwrap();
    let module = world.dir().join("app/routes/items_routes.py");
    let registry = world.dir().join("app/routes/__init__.py");
    fs::write(&module, "changed").unwrap();
    let text = fs::read_to_string(&registry).unwrap();
    fs::write(&registry, format!("{text}# mine\n")).unwrap();
    let removed = world.remove("key").unwrap();
    assert_eq!(removed.kept, ["app/routes/items_routes.py"]);
    assert_eq!(fs::read_to_string(module).unwrap(), "changed");
    let text = fs::read_to_string(registry).unwrap();
    assert!(text.ends_with("# mine\n") && !text.contains("items"), "{text}");
}

#[test]
fn a_resource_that_is_there_is_not_written_over() {
    let world = World::new(Template::TypescriptApi);
    world.create("one", "items").unwrap();
    let after = world.snapshot();
    let failure = world.create("two", "items").unwrap_err();
    assert_eq!(failure.kind(), Kind::Permanent);
    assert!(failure.message().contains("`resource`"), "{failure}");
    world.remove("two").unwrap();
    assert_eq!(world.snapshot(), after);
}

#[test]
fn links_do_not_lead_out_of_the_project() {
    let world = World::new(Template::TypescriptApi);
    let outside = world.folder.path().join("outside");
    fs::rename(world.dir().join("src/routes"), &outside).unwrap();
    std::os::unix::fs::symlink(&outside, world.dir().join("src/routes")).unwrap();
    let failure = world.create("key", "items").unwrap_err();
    assert!(failure.message().contains("is a link"), "{failure}");
    assert_eq!(fs::read_dir(outside).unwrap().count(), 1);
}

#[test]
fn many_at_once_are_all_there() {
    let world = World::new(Template::PythonService);
    let before = world.snapshot();
    let names = ["a", "b", "c", "d", "e", "f"];
    std::thread::scope(|scope| {
        for name in names {
            let world = &world;
            scope.spawn(move || world.create(name, name).unwrap());
        }
    });
    let text = fs::read_to_string(world.dir().join("app/routes/__init__.py")).unwrap();
    for name in names {
        assert!(text.contains(&format!("    *{name}_routes,\n")), "{text}");
    }
    std::thread::scope(|scope| {
        for name in names {
            let world = &world;
            scope.spawn(move || world.remove(name).unwrap());
        }
    });
    assert_eq!(world.snapshot(), before);
}

#[test]
fn after_both_undos_nothing_of_the_project_is_left() {
    for template in SERVICES {
        let world = World::new(template);
        world.create("key", "items").unwrap();
        world.remove("key").unwrap();
        let builder = Builder::new(&world.workspace).unwrap();
        assert!(builder.remove("scaffold", true).unwrap().removed);
    }
}

#[test]
fn an_undo_without_the_record_of_what_was_done_does_not_claim_success() {
    let world = World::new(Template::TypescriptApi);
    let failure = api::remove(&world.records, "key", true).unwrap_err();
    assert!(failure.message().contains("ORCHESTRATOR_WORKSPACE"), "{failure}");
}
