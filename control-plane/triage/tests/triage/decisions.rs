//! The decision on small cases: rules, constraints, schemas, ties, duplicates, order.

use serde_json::{Map, Value, json};
use triage::classifier::Classifier;
use triage::decide::{Basis, Triage};
use triage::{
    Action, AgentDeclaration, Constraints, Handles, History, Input, Issue, Problem, decide,
};

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|one| (*one).to_owned()).collect()
}

fn agent(agent_type: &str, actions: Vec<Action>) -> AgentDeclaration {
    AgentDeclaration {
        agent_type: agent_type.into(),
        description: format!("mends what {agent_type} is for"),
        actions,
        slots: 2,
        availability: 1.0,
    }
}

fn action(name: &str, components: &[&str], keywords: &[&str]) -> Action {
    Action {
        name: name.into(),
        handles: Handles {
            components: strings(components),
            keywords: strings(keywords),
            ..Handles::default()
        },
        duration_ms: Some(1_000),
        ..Action::default()
    }
}

fn agents() -> Vec<AgentDeclaration> {
    vec![
        agent(
            "database-agent",
            vec![
                action("migrate", &["database"], &["migration", "missing table"]),
                action("rotate", &["database"], &["password", "expired key"]),
            ],
        ),
        agent("disk-agent", vec![action("clear", &["disk"], &["no space left", "disk full"])]),
        agent("echo", vec![action("say", &[], &[])]),
    ]
}

fn issue(id: &str, title: &str, component: &str) -> Issue {
    Issue { id: id.into(), title: title.into(), component: component.into(), ..Issue::default() }
}

fn check(
    issues: &[Issue],
    agents: &[AgentDeclaration],
    constraints: &Constraints,
) -> Result<Triage, Problem> {
    decide(&Input {
        issues,
        system: &Default::default(),
        constraints,
        agents,
        classifier: &Classifier::new(None, agents),
        history: &History::default(),
        now_ms: 0,
        threads: 1,
    })
}

fn triaged(issues: &[Issue]) -> Triage {
    check(issues, &agents(), &Constraints::default()).unwrap()
}

#[test]
fn a_rule_places_by_component_and_names_itself_and_the_words_choose_the_action() {
    let triage = triaged(&[
        issue("a", "a missing table", "Database"),
        issue("b", "an expired key", "database"),
    ]);
    let placed: Vec<(&str, &str)> = triage
        .assignments
        .iter()
        .map(|one| (one.agent_type.as_str(), one.action.as_str()))
        .collect();
    assert_eq!(placed, [("database-agent", "migrate"), ("database-agent", "rotate")]);
    let first = &triage.assignments[0];
    assert_eq!(first.basis, Basis::Rule);
    assert_eq!(first.reason, "rule: component `Database` is declared by database-agent");
    assert_eq!(first.duration_ms, 1_000);
}

#[test]
fn labels_place_too_unless_they_disagree() {
    let mut by_label = issue("a", "something", "");
    by_label.labels = strings(&["disk"]);
    let mut torn = issue("b", "quite mysterious", "");
    torn.labels = strings(&["disk", "database"]);
    let triage = triaged(&[by_label, torn]);
    assert_eq!(triage.assignments[0].agent_type, "disk-agent");
    assert_eq!(triage.escalated[0].issue_id, "b");
}

#[test]
fn declared_words_place_without_any_rule() {
    let triage = triaged(&[issue("a", "No space left on device, the disk full again", "")]);
    let placed = &triage.assignments[0];
    assert_eq!((placed.agent_type.as_str(), placed.basis), ("disk-agent", Basis::Declaration));
    assert!(placed.reason.contains("`disk full`"), "{}", placed.reason);
}

#[test]
fn what_nobody_takes_is_escalated_with_a_reason() {
    let triage = triaged(&[issue("a", "the coffee is cold", "")]);
    assert!(triage.assignments.is_empty());
    assert!(triage.escalated[0].reason.starts_with("not sure enough"), "{triage:?}");
    let nobody = check(&[issue("a", "x", "")], &[], &Constraints::default()).unwrap();
    assert!(nobody.escalated[0].reason.contains("no agent declares"));
}

#[test]
fn constraints_hold() {
    let constraints =
        Constraints { excluded_agent_types: strings(&["disk-agent"]), ..Constraints::default() };
    let triage = check(&[issue("a", "full", "disk")], &agents(), &constraints).unwrap();
    assert!(triage.escalated[0].reason.contains("constraints"), "{triage:?}");
}

#[test]
fn the_cheaper_of_two_equals_gets_it_and_the_other_is_named() {
    let mut both = vec![
        agent("a-agent", vec![action("clear", &["disk"], &[])]),
        agent("b-agent", vec![action("clear", &["disk"], &[])]),
    ];
    both[0].actions[0].cost = Some(2.0);
    both[1].actions[0].cost = Some(1.0);
    let issues = [issue("x", "full", "disk")];
    let triage = check(&issues, &both, &Constraints::default()).unwrap();
    assert_eq!(triage.assignments[0].agent_type, "b-agent");
    assert_eq!(triage.assignments[0].runners_up[0].agent_type, "a-agent");
    both[1].actions[0].cost = Some(2.0);
    let triage = check(&issues, &both, &Constraints::default()).unwrap();
    assert_eq!(triage.assignments[0].agent_type, "a-agent");
}

#[test]
fn params_must_hold_to_the_schema_and_are_filled_from_the_issue() {
    let mut agents = agents();
    agents[1].actions[0].input_schema = Some(json!({
        "type": "object",
        "properties": {"folder": {"type": "string"}, "title": {"type": "string"}},
        "required": ["folder", "title"],
    }));
    let bare = issue("a", "full", "disk");
    let mut given = issue("b", "full too", "disk");
    let params = json!({"folder": "data"});
    given.params = params.as_object().cloned();
    let triage = check(&[bare, given], &agents, &Constraints::default()).unwrap();
    assert!(triage.escalated[0].reason.contains("cannot be called"), "{triage:?}");
    let want: Map<String, Value> =
        json!({"folder": "data", "title": "full too"}).as_object().cloned().unwrap();
    assert_eq!(triage.assignments[0].params, want);
}

#[test]
fn duplicates_join_their_first_and_order_and_estimates_follow() {
    let mut issues = vec![
        issue("a", "Disk 1 full", "disk"),
        issue("b", "disk 22 full!", "disk"),
        issue("c", "migration is missing", "database"),
        issue("d", "the coffee is cold", ""),
        issue("e", "table is missing", "database"),
    ];
    issues[2].depends_on = strings(&["b"]);
    issues[4].depends_on = strings(&["d", "c"]);
    let triage = triaged(&issues);
    assert_eq!(triage.duplicates[0].of, "a");
    assert_eq!(triage.assignments[0].count, 2);
    assert_eq!(triage.stages, [["a"], ["c"], ["e"]]);
    assert_eq!(triage.estimate.whole_ms, 3_000);
    assert_eq!(triage.assignments[2].blocked_by, ["d"]);
}

#[test]
fn joining_duplicates_never_loses_an_issue_to_a_circle() {
    let mut issues = vec![
        issue("a", "Disk 1 full", "disk"),
        issue("c", "migration is missing", "database"),
        issue("b", "disk 2 full", "disk"),
    ];
    issues[0].depends_on = strings(&["c"]);
    issues[1].depends_on = strings(&["b"]);
    let triage = triaged(&issues);
    assert_eq!(triage.stages.iter().flatten().count(), 2);
}

#[test]
fn one_thread_or_many_decide_the_same() {
    let issues: Vec<Issue> = (0..300)
        .map(|number| {
            let letters: String =
                format!("{number:03}").bytes().map(|b| char::from(b + 49)).collect();
            let title = format!("{} {letters}", ["disk full", "migration", "cold"][number % 3]);
            issue(&number.to_string(), &title, "")
        })
        .collect();
    let agents = agents();
    let with = |threads| {
        decide(&Input {
            issues: &issues,
            system: &Default::default(),
            constraints: &Constraints::default(),
            agents: &agents,
            classifier: &Classifier::new(None, &agents),
            history: &History::default(),
            now_ms: 0,
            threads,
        })
        .unwrap()
    };
    assert_eq!(with(1), with(4));
}
