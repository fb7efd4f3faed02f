//! The issues that the example's checks find are for this agent's actions, by what it declares.

use std::path::Path;

use agent_sdk::testing::v1::{ActionCard, payload::Data};
use remediator_agent::tools::Tools;
use serde_json::Value;
use triage::priority::System;
use triage::{
    Action, AgentDeclaration, Constraints, Handles, History, Input, Issue, classifier, decide,
};

fn declared(tools: &Tools) -> AgentDeclaration {
    let agent = remediator_agent::agent_with(tools);
    let card = agent.card();
    AgentDeclaration {
        agent_type: agent.agent_type().to_owned(),
        description: card.description,
        actions: card.actions.into_iter().map(action).collect(),
        slots: 8,
        availability: 1.0,
    }
}

fn action(card: ActionCard) -> Action {
    let handles = card.handles.unwrap_or_default();
    let schema = match card.input_schema.and_then(|payload| payload.data) {
        Some(Data::Json(text)) => serde_json::from_str(&text).ok(),
        _ => None,
    };
    Action {
        name: card.name,
        description: card.description,
        handles: Handles {
            components: handles.components,
            keywords: handles.keywords,
            labels: handles.labels,
            categories: handles.categories,
        },
        input_schema: schema,
        ..Action::default()
    }
}

/// The issues of the example's checks; without component and labels only their words speak.
fn issues(with_component: bool) -> Vec<Issue> {
    let checks =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/recovery/service/checks.json");
    let checks: Vec<Value> = serde_json::from_slice(&std::fs::read(checks).unwrap()).unwrap();
    let issue = |check: &Value| {
        let mut issue: Issue = serde_json::from_value(check["issue"].clone()).unwrap();
        if !with_component {
            issue.component.clear();
            issue.labels.clear();
        }
        issue
    };
    checks.iter().map(issue).collect()
}

fn placed(agents: &[AgentDeclaration], issues: &[Issue]) -> Vec<(String, String)> {
    let decided = decide(&Input {
        issues,
        system: &System::default(),
        constraints: &Constraints::default(),
        agents,
        classifier: &classifier::Classifier::new(None, agents),
        history: &History::default(),
        now_ms: 0,
        threads: 1,
    });
    let assignments = decided.unwrap().assignments;
    let mut placed: Vec<(String, String)> =
        assignments.into_iter().map(|one| (one.issue_id, one.action)).collect();
    placed.sort();
    placed
}

#[test]
fn each_issue_of_the_example_is_for_the_action_that_mends_it() {
    let agents = [declared(&Tools::at("/sandbox", "/records"))];
    let expected = [
        ("dead-worker", "restart_process"),
        ("expired-key", "rotate_key"),
        ("full-disk", "clear_folder"),
        ("missing-migration", "apply_migration"),
        ("wrong-port", "edit_config"),
    ]
    .map(|(issue, action)| (issue.to_owned(), action.to_owned()));
    assert_eq!(placed(&agents, &issues(true)), expected);
    // What words alone do not place is escalated, never placed wrongly.
    for one in placed(&agents, &issues(false)) {
        assert!(expected.contains(&one), "{one:?}");
    }
}

#[test]
fn without_a_sandbox_no_issue_is_for_this_agent() {
    let mut tools = Tools::at("/sandbox", "/records");
    tools.takes_issues = false;
    assert!(declared(&tools).actions.iter().all(|action| action.handles.is_empty()));
}
