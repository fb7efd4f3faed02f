//! Plans as texts: readable, accepted by the language as they stand, meaning what was drafted.

use engine::RunId;
use engine::definition::compile;
use engine::graph::{FailureScope, Graph, NodeKind};
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn agent(issue: &str, on: &[&str]) -> Planned {
    Planned {
        issue: issue.to_owned(),
        title: format!("{issue} is broken"),
        severity: "HIGH".to_owned(),
        priority: 7,
        depends_on: on.iter().map(|&on| on.to_owned()).collect(),
        stage: 1,
        by: By::Agent(Box::new(Assigned {
            agent: "remediator".to_owned(),
            action: "restart".to_owned(),
            reason: "the component is `worker`".to_owned(),
            confidence: 0.9,
            estimate: Duration::from_secs(20),
            ..Assigned::default()
        })),
    }
}

fn person(issue: &str, on: &[&str]) -> Planned {
    let reason = "no agent is sure enough".to_owned();
    Planned { by: By::Person { reason }, ..agent(issue, on) }
}

fn draft(issues: Vec<Planned>) -> Draft {
    Draft { triage: "t-1".to_owned(), issues, rollback_all: false }
}

fn compiled(written: &Written) -> Graph {
    match compile("plan.yml", written.text.as_bytes()) {
        Ok((graph, warnings)) => {
            assert!(warnings.is_empty(), "{warnings:?}\n{}", written.text);
            graph
        }
        Err(complaints) => panic!("{complaints:?}\n{}", written.text),
    }
}

#[test]
fn a_plan_reads_as_a_person_would_write_it() {
    let mut first = agent("disk full", &[]);
    let By::Agent(assigned) = &mut first.by else { panic!() };
    assigned.undo = Undo::Action("put_back".to_owned());
    assigned.fallback = vec!["janitor".to_owned()];
    assigned.params =
        json!({"folder": "/srv/data", "keep": ["a", "b"]}).as_object().cloned().unwrap();
    let mut second = agent("7", &["disk full", "disk full"]);
    second.stage = 2;
    let written = write(&draft(vec![first, second])).unwrap();
    assert_eq!(
        written.text,
        r##"# Recovery plan of triage t-1. It may be edited; what stands
# here is what is done.
name: "Recovery t-1"
error_handling:
  # A failure undoes what failed and what waits for it; the rest goes on.
  scope: branch
  rollback: to_start
  retry: {max_attempts: 3}
steps:
  # Stage 1
  # HIGH disk full: disk full is broken
  # 0.90 sure. the component is `worker`
  - id: disk-full
    agent: remediator
    action: restart
    params:
      folder: "/srv/data"
      keep: ["a", "b"]
    depends_on: []
    priority: 7
    timeout: 80s
    fallback: [janitor]
    compensate: put_back
    checkpoint: after-disk-full
  # Stage 2
  # HIGH 7: 7 is broken
  # 0.90 sure. the component is `worker`
  - id: issue-7
    agent: remediator
    action: restart
    depends_on: [disk-full]
    priority: 7
    timeout: 80s
    # Undone as the agent that does it declares.
    checkpoint: after-issue-7
"##
    );
    compiled(&written);
}

#[test]
fn a_failure_undoes_a_branch_or_on_request_all() {
    let mut draft = draft(vec![agent("a", &[])]);
    let graph = compiled(&write(&draft).unwrap());
    assert_eq!(graph.scope, FailureScope::Branch);
    draft.rollback_all = true;
    let graph = compiled(&write(&draft).unwrap());
    assert_eq!(graph.scope, FailureScope::Run);
    assert_eq!(graph.rollback, engine::graph::Rollback::ToStart);
}

#[test]
fn what_waits_for_a_person_asks_first_and_other_escalated_issues_have_no_step() {
    let issues = vec![
        person("alone", &[]),
        person("deep", &[]),
        person("by hand", &["deep"]),
        agent("after", &["by hand"]),
    ];
    let written = write(&draft(issues)).unwrap();
    let steps: Vec<Option<&str>> = written.steps.iter().map(Option::as_deref).collect();
    assert_eq!(steps, [None, Some("deep"), Some("by-hand"), Some("after")]);
    let graph = compiled(&written);
    let nodes = &graph.list(Graph::ROOT).nodes;
    assert!(matches!(graph.node(nodes[1]).kind, NodeKind::Approve { .. }));
    assert_eq!(graph.node(nodes[2]).depends_on, [1]);
}

#[test]
fn contradictions_are_named() {
    let refused = |issues| write(&draft(issues)).unwrap_err();
    assert_eq!(refused(vec![]), Error::Nothing);
    assert_eq!(refused(vec![person("a", &[])]), Error::Nothing);
    assert_eq!(refused(vec![agent("a", &[]), agent("a", &[])]), Error::Twice("a".into()));
    let unknown = Error::Unknown { issue: "a".into(), on: "b".into() };
    assert_eq!(refused(vec![agent("a", &["b"])]), unknown);
    let circle =
        vec![agent("x", &["c"]), agent("a", &["b"]), agent("b", &["c"]), agent("c", &["a"])];
    let error = refused(circle);
    let Error::Cycle(path) = &error else { panic!("{error:?}") };
    assert_eq!((path.len(), path.first()), (4, path.last()));
    assert_eq!(refused(vec![agent("a", &["a"])]), Error::Cycle(vec!["a".into(), "a".into()]));
}

#[test]
fn a_plan_that_is_too_large_says_what_to_do() {
    let many = (0..=ISSUES_MAX).map(|n| agent(&n.to_string(), &[])).collect();
    let error = write(&draft(many)).unwrap_err().to_string();
    assert!(error.contains("10001 steps") && error.contains("fewer issues"), "{error}");
    let mut long = agent("a", &[]);
    let By::Agent(assigned) = &mut long.by else { panic!() };
    assigned.params.insert("text".into(), Value::String("x".repeat(2 << 20)));
    assert!(matches!(write(&draft(vec![long])), Err(Error::TooLarge { what: "bytes", .. })));
}

#[test]
fn params_whose_keys_look_like_expressions_mean_themselves() {
    let params = json!({"${{": 1, "a": {"$${{ b }}": "${{ c }}"}, "d": [{"${{ e }}": null}]});
    let mut issue = agent("a", &[]);
    let By::Agent(assigned) = &mut issue.by else { panic!() };
    assigned.params = params.as_object().unwrap().clone();
    let draft = draft(vec![issue]);
    let written = write(&draft).unwrap();
    inputs_are_as_drafted(&draft, &written, compiled(&written)).unwrap();
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e9..1e9).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        "[$\\{} a-z\"\\\\:#\n\u{85}\u{feff}-]{0,16}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[$\\{}a-z: \"1]{0,6}", inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

prop_compose! {
    fn any_issue(before: usize)(
        id in "[a-z0-9 ./é_-]{0,8}", title in ".{0,20}", severity in "[A-Z]{0,4}",
        priority in any::<u8>(), stage in 0_usize..4, is_person in proptest::bool::weighted(0.2),
        on in proptest::collection::vec(0..before.max(1), 0..4.min(before + 1)),
        params in any_value(), undo in 0..4, millis in any::<u32>(),
        agents in proptest::collection::vec("[a-z][a-z0-9-]{0,6}", 1..3),
    ) -> (Planned, Vec<usize>) {
        let undo = match undo {
            0 => Undo::Action("undo_it".into()),
            1 => Undo::Declared,
            2 => Undo::Impossible,
            _ => Undo::Nothing,
        };
        let params = match params {
            Value::Object(fields) => fields,
            other => [("value".to_owned(), other)].into_iter().collect(),
        };
        let by = if is_person {
            By::Person { reason: title.clone() }
        } else {
            By::Agent(Box::new(Assigned {
                agent: agents[0].clone(), action: "mend it".into(), params,
                reason: title.clone(), confidence: 0.5, fallback: agents[1..].to_vec(), undo,
                estimate: Duration::from_millis(millis.into()),
            }))
        };
        let issue = format!("{before:02}{id}");
        let on = if before == 0 { vec![] } else { on };
        (Planned { issue, title, severity, priority, depends_on: vec![], stage, by }, on)
    }
}

fn any_draft() -> impl Strategy<Value = Draft> {
    (0_usize..12).prop_flat_map(|count| {
        let issues: Vec<_> = (0..=count).map(any_issue).collect();
        (issues, any::<bool>(), "[a-z0-9-]{0,12}").prop_map(|(issues, rollback_all, triage)| {
            let ids: Vec<String> = issues.iter().map(|(issue, _)| issue.issue.clone()).collect();
            let issues = issues.into_iter().map(|(mut issue, on)| {
                issue.depends_on = on.into_iter().map(|on| ids[on].clone()).collect();
                issue
            });
            Draft { triage, issues: issues.collect(), rollback_all }
        })
    })
}

proptest! {
    #[test]
    fn every_acyclic_triage_gives_a_plan_that_compiles_and_means_what_was_drafted(
        draft in any_draft(),
    ) {
        let written = match write(&draft) {
            Ok(written) => written,
            Err(error) => {
                prop_assert_eq!(error, Error::Nothing);
                return Ok(());
            }
        };
        let graph = compiled(&written);
        let nodes: Vec<_> =
            graph.list(Graph::ROOT).nodes.iter().map(|&node| graph.node(node)).collect();
        let order: Vec<usize> =
            (0..draft.issues.len()).filter(|&at| written.steps[at].is_some()).collect();
        prop_assert_eq!(nodes.len(), order.len());
        for (node, &at) in nodes.iter().zip(&order) {
            let issue = &draft.issues[at];
            prop_assert_eq!(Some(&*node.id), written.steps[at].as_deref());
            let on = |&on: &u32| &*draft.issues[order[on as usize]].issue;
            let on: BTreeSet<&str> = node.depends_on.iter().map(on).collect();
            let wanted: BTreeSet<&str> = issue.depends_on.iter().map(String::as_str).collect();
            prop_assert_eq!(on, wanted);
            if let (By::Agent(assigned), NodeKind::Action(action)) = (&issue.by, &node.kind) {
                prop_assert_eq!(action.agent.as_deref(), Some(assigned.agent.as_str()));
                prop_assert_eq!(&*action.action, assigned.action.as_str());
                prop_assert_eq!(action.fallback.len(), assigned.fallback.len());
                prop_assert!(action.timeout >= assigned.estimate.min(TIMEOUT_MAX));
                let is_change = assigned.undo != Undo::Nothing;
                prop_assert_eq!(node.checkpoint.is_some(), is_change);
            }
        }
        inputs_are_as_drafted(&draft, &written, graph)?;
    }
}

/// Starts a run of the text and looks at what the agents get.
fn inputs_are_as_drafted(
    draft: &Draft,
    written: &Written,
    graph: Graph,
) -> Result<(), TestCaseError> {
    let graph = std::sync::Arc::new(graph);
    let started = crate::runs::started(&graph, "{}".into(), 1);
    let id = RunId::at_instant(engine::Instant(0), "plan");
    let (_, transition) = engine::start(id, graph, started, engine::Instant(0)).unwrap();
    for effect in transition.effects {
        let engine::Effect::Dispatch(order) = effect else { continue };
        let at = written.steps.iter().position(|step| step.as_deref() == Some(&*order.path));
        let By::Agent(assigned) = &draft.issues[at.unwrap()].by else { panic!() };
        let input: Value = serde_json::from_str(&order.input).unwrap();
        prop_assert_eq!(input, Value::Object(assigned.params.clone()));
    }
    Ok(())
}
