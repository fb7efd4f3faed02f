//! The actions of the agent: their cards, which issues they take, and how each is undone.

use std::time::Duration;

use agent_sdk::{Action, Context, Handles, Undo, UndoInput};
use serde::Deserialize;
use serde_json::Value;

use crate::config::{self, EditConfig};
use crate::health::{self, CheckHealth};
use crate::migration::{self, ApplyMigration};
use crate::quarantine::{self, ClearFolder};
use crate::rotation::{self, Means, RotateKey};
use crate::service::{self, Service, Wish};
use crate::tools::Tools;
use crate::{blocking, now, random};

/// What an undo gets. The record says what was done; of the params only the place is read.
type Undoing = UndoInput<Where, Value>;

/// The place that a task was about, so that the undo waits for the same lock.
#[derive(Debug, Deserialize, agent_sdk::JsonSchema)]
struct Where {
    #[serde(default)]
    file: String,
    #[serde(default)]
    manifest: String,
}

/// Every action.
pub(crate) fn all(tools: &Tools) -> Vec<Action> {
    let mut actions = vec![
        edit_config(tools.clone()),
        restore_config(tools.clone()),
        rotate_key(tools.clone()),
        restore_key(tools.clone()),
        clear_folder(tools.clone()),
        refill_folder(tools.clone()),
        apply_migration(tools.clone()),
        revert_migration(tools.clone()),
        check_health(tools.clone()),
    ];
    actions.extend(processes(tools));
    actions
}

/// Which issues an action takes: none where nobody has said what may be changed.
fn taking(action: Action, takes_issues: bool, handles: Handles) -> Action {
    if takes_issues { action.handles(handles) } else { action }
}

fn edit_config(tools: Tools) -> Action {
    let takes_issues = tools.takes_issues;
    let work = move |context: Context, input: EditConfig| {
        blocking(tools.clone(), context, move |tools, key| config::edit(tools, key, &input))
    };
    let action = Action::new("edit_config", "Edits settings of a configuration file.", work)
        .undo(Undo::action("restore_config"))
        .expected_duration(Duration::from_millis(20));
    let handles = Handles {
        components: words(&["configuration", "config"]),
        keywords: words(&[
            "configuration",
            "config",
            "configured",
            "misconfigured",
            "setting",
            "settings",
            "wrong value",
            "wrong port",
            "config file",
            "environment variable",
        ]),
        labels: words(&["configuration", "config"]),
        categories: words(&["configuration"]),
    };
    taking(action, takes_issues, handles)
}

fn restore_config(tools: Tools) -> Action {
    let work = move |context: Context, input: Undoing| {
        blocking(tools.clone(), context, move |tools, key| {
            config::undo(tools, key, &input.params.file, input.output.is_some())
        })
    };
    Action::new("restore_config", "Undoes edit_config: the bytes and the mode are as before.", work)
        .undo(Undo::NotUndoable)
}

fn rotate_key(tools: Tools) -> Action {
    let takes_issues = tools.takes_issues;
    let work = move |context: Context, input: RotateKey| {
        blocking(tools.clone(), context, move |tools, key| {
            rotation::rotate(tools, key, &input, &Means { now: now(), random: &random })
        })
    };
    let action = Action::new("rotate_key", "Puts a new random key into a key file.", work)
        .undo(Undo::action("restore_key"))
        .expected_duration(Duration::from_millis(20));
    let handles = Handles {
        components: words(&["key", "keys", "certificate"]),
        keywords: words(&[
            "key",
            "api key",
            "signing key",
            "expired",
            "expired key",
            "expires",
            "rotate",
            "rotation",
            "credential",
            "certificate expired",
            "token expired",
        ]),
        labels: words(&["key", "expired", "security"]),
        categories: words(&["key", "credentials"]),
    };
    taking(action, takes_issues, handles)
}

fn restore_key(tools: Tools) -> Action {
    let work = move |context: Context, input: Undoing| {
        blocking(tools.clone(), context, move |tools, key| {
            rotation::undo(tools, key, &input.params.file, input.output.is_some())
        })
    };
    Action::new("restore_key", "Undoes rotate_key: the old key file is back.", work)
        .undo(Undo::NotUndoable)
}

fn clear_folder(tools: Tools) -> Action {
    let takes_issues = tools.takes_issues;
    let work = move |context: Context, input: ClearFolder| {
        blocking(tools.clone(), context, move |tools, key| quarantine::clear(tools, key, &input))
    };
    let action =
        Action::new("clear_folder", "Moves what is in a full folder into a quarantine.", work)
            .undo(Undo::action("refill_folder"))
            .expected_duration(Duration::from_millis(50));
    let handles = Handles {
        components: words(&["disk", "storage", "folder"]),
        keywords: words(&[
            "disk",
            "disk full",
            "full",
            "no space left",
            "no space left on device",
            "out of space",
            "quota",
            "folder",
            "spool",
            "too many files",
        ]),
        labels: words(&["disk", "storage"]),
        categories: words(&["disk", "storage"]),
    };
    taking(action, takes_issues, handles)
}

fn refill_folder(tools: Tools) -> Action {
    let work = move |context: Context, input: UndoInput<Value, Value>| {
        blocking(tools.clone(), context, move |tools, key| {
            quarantine::undo(tools, key, input.output.is_some())
        })
    };
    Action::new("refill_folder", "Undoes clear_folder: everything is back in its place.", work)
        .undo(Undo::NotUndoable)
}

fn apply_migration(tools: Tools) -> Action {
    let takes_issues = tools.takes_issues;
    let work = move |context: Context, input: ApplyMigration| {
        blocking(tools.clone(), context, move |tools, key| migration::apply(tools, key, &input))
    };
    let action = Action::new("apply_migration", "Applies an SQL migration, exactly once.", work)
        .undo(Undo::action("revert_migration"))
        .expected_duration(Duration::from_millis(200));
    let handles = Handles {
        components: words(&["database", "db", "schema"]),
        keywords: words(&[
            "migration",
            "migrations",
            "schema",
            "table",
            "missing table",
            "no such table",
            "no such column",
            "column",
            "relation does not exist",
            "sql",
            "database",
        ]),
        labels: words(&["database", "migration"]),
        categories: words(&["database", "migration"]),
    };
    taking(action, takes_issues, handles)
}

fn revert_migration(tools: Tools) -> Action {
    let work = move |context: Context, input: UndoInput<Value, Value>| {
        blocking(tools.clone(), context, move |tools, key| {
            migration::undo(tools, key, input.output.is_some())
        })
    };
    Action::new("revert_migration", "Undoes apply_migration by the SQL that reverts it.", work)
        .undo(Undo::NotUndoable)
}

fn check_health(tools: Tools) -> Action {
    let work = move |context: Context, input: CheckHealth| {
        let tools = tools.clone();
        async move { context.blocking(move || health::check(&tools, &input, now())).await? }
    };
    Action::new("check_health", "Checks a service and tells what is wrong as issues.", work)
        .undo(Undo::Nothing)
        .expected_duration(Duration::from_millis(50))
}

fn processes(tools: &Tools) -> [Action; 4] {
    let dead = Handles {
        components: words(&["worker", "process"]),
        keywords: words(&[
            "worker",
            "process",
            "dead",
            "died",
            "crashed",
            "not running",
            "hung",
            "unresponsive",
            "restart",
            "heartbeat",
        ]),
        labels: words(&["worker", "process"]),
        categories: words(&["process", "worker"]),
    };
    let action = |name: &str, about: &str, wish: Wish| {
        let tools = tools.clone();
        let work = move |context: Context, input: Service| {
            blocking(tools.clone(), context, move |tools, key| {
                service::act(tools, key, wish, &input)
            })
        };
        Action::new(name, about, work)
            .undo(Undo::action("restore_process"))
            .expected_duration(Duration::from_millis(100))
    };
    let undoing = tools.clone();
    let restore = move |context: Context, input: Undoing| {
        blocking(undoing.clone(), context, move |tools, key| {
            service::undo(tools, key, &input.params.manifest, input.output.is_some())
        })
    };
    let about = "Stops a process when it runs, and starts it.";
    let restart = action("restart_process", about, Wish::Restart);
    let undo = "Undoes a start, stop or restart: what ran before runs, what did not does not.";
    [
        action("start_process", "Starts a process, unless it runs.", Wish::Start),
        action("stop_process", "Stops a process.", Wish::Stop),
        taking(restart, tools.takes_issues, dead),
        Action::new("restore_process", undo, restore).undo(Undo::NotUndoable),
    ]
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
