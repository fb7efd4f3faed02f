//! Accuracy, calibration and sameness on 306 real issues of fifteen components, labelled by the
//! repository in which they were filed.

use std::collections::BTreeMap;

use serde_json::Value;
use triage::classifier::{self, Classifier};
use triage::decide::{Basis, Triage};
use triage::{
    Action, AgentDeclaration, Constraints, Example, Handles, History, Input, Issue, Model, decide,
};

fn read(name: &str) -> String {
    let path = format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap()
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()).collect()
}

fn agents() -> Vec<AgentDeclaration> {
    let agents: Vec<Value> = serde_json::from_str(&read("agents.json")).unwrap();
    agents
        .iter()
        .map(|agent| AgentDeclaration {
            agent_type: agent["agent"].as_str().unwrap().to_owned(),
            description: agent["description"].as_str().unwrap().to_owned(),
            actions: vec![Action {
                name: "mend".into(),
                handles: Handles {
                    components: strings(&agent["components"]),
                    keywords: strings(&agent["keywords"]),
                    ..Handles::default()
                },
                ..Action::default()
            }],
            slots: 1,
            availability: 1.0,
        })
        .collect()
}

fn examples() -> Vec<Example> {
    read("train.jsonl")
        .lines()
        .map(|line| {
            let row: Value = serde_json::from_str(line).unwrap();
            let text = |name: &str| row[name].as_str().unwrap().to_owned();
            Example {
                id: text("id"),
                title: text("title"),
                description: text("description"),
                agent_type: format!("{}-agent", text("component")),
                ..Example::default()
            }
        })
        .collect()
}

fn triage_of(issues: &[Issue], model: Option<&Model>, agents: &[AgentDeclaration]) -> Triage {
    decide(&Input {
        issues,
        system: &Default::default(),
        constraints: &Constraints::default(),
        agents,
        classifier: &Classifier::new(model, agents),
        history: &History::default(),
        now_ms: 0,
        threads: 2,
    })
    .unwrap()
}

fn issue(example: &Example) -> Issue {
    Issue {
        id: example.id.clone(),
        title: example.title.clone(),
        description: example.description.clone(),
        ..Issue::default()
    }
}

#[derive(Debug, Default)]
struct Figures {
    all: f64,
    escalated: f64,
    right: f64,
    bins: [(f64, f64, f64); 5],
}

impl Figures {
    fn add(&mut self, tried: &[&Example], triage: &Triage) {
        self.all += tried.len() as f64;
        self.escalated += triage.escalated.len() as f64;
        let wanted: BTreeMap<&str, &str> = tried
            .iter()
            .map(|example| (example.id.as_str(), example.agent_type.as_str()))
            .collect();
        for assignment in &triage.assignments {
            let right = f64::from(wanted[assignment.issue_id.as_str()] == assignment.agent_type);
            self.right += right;
            let bin = ((assignment.confidence - 0.5).max(0.0) * 10.0) as usize;
            let bin = &mut self.bins[bin.min(4)];
            bin.0 += 1.0;
            bin.1 += assignment.confidence;
            bin.2 += right;
        }
    }

    fn precision(&self) -> f64 {
        self.right / (self.all - self.escalated)
    }

    fn escalated_share(&self) -> f64 {
        self.escalated / self.all
    }

    /// Expected calibration error: how far confidence and share of right ones lie apart.
    fn calibration_error(&self) -> f64 {
        let placed: f64 = self.bins.iter().map(|bin| bin.0).sum();
        self.bins.iter().map(|(_, sure, right)| (sure - right).abs() / placed).sum()
    }
}

/// Learns from all folds but one and tries that, for each fold. Weights and the confidence to place
/// from are chosen within what is learned from.
fn cross_validate(folds: usize) -> Figures {
    cross_validate_on(&examples(), &agents(), |at| at % folds)
}

/// The same, where `fold_of` says to which fold a row belongs: the rows are sorted by component.
fn cross_validate_on(
    examples: &[Example],
    agents: &[AgentDeclaration],
    fold_of: impl Fn(usize) -> usize,
) -> Figures {
    let mut figures = Figures::default();
    let folds = (0..examples.len()).map(&fold_of).max().unwrap() + 1;
    for fold in 0..folds {
        let is_tried = |at: usize| fold_of(at) == fold;
        let known: Vec<Example> = (0..examples.len())
            .filter(|at| !is_tried(*at))
            .map(|at| examples[at].clone())
            .collect();
        let tried: Vec<&Example> =
            (0..examples.len()).filter(|at| is_tried(*at)).map(|at| &examples[at]).collect();
        let model = classifier::train(1, &known, agents);
        let issues: Vec<Issue> = tried.iter().map(|example| issue(example)).collect();
        let triage = triage_of(&issues, Some(&model), agents);
        assert!(triage.duplicates.is_empty(), "{:?}", triage.duplicates);
        figures.add(&tried, &triage);
        eprintln!(
            "weights {:?}, places from {:.2}",
            model.weights_micro.iter().map(|w| w / 10_000).collect::<Vec<_>>(),
            model.confidence_micro as f64 / 1e6
        );
    }
    eprintln!(
        "{folds} folds: {:.1} % escalated, of the rest {:.1} % right, calibration {:.3}; {:?}",
        figures.escalated_share() * 100.0,
        figures.precision() * 100.0,
        figures.calibration_error(),
        figures.bins
    );
    figures
}

#[test]
fn what_is_placed_after_learning_is_right_and_little_is_escalated() {
    let figures = cross_validate(10);
    assert!(figures.precision() >= 0.95, "{figures:?}");
    assert!(figures.escalated_share() <= 0.10, "{figures:?}");
}

/// Learned from the older issues of each component, tried on the newer: their wording drifts.
#[test]
fn what_is_newer_than_all_that_was_learned_is_placed_as_well() {
    let mut examples = examples();
    let number = |id: &str| id.rsplit('-').next().unwrap().parse::<u64>().unwrap();
    examples.sort_by_key(|example| (example.agent_type.clone(), number(&example.id)));
    let mut place = BTreeMap::new();
    let mut places = Vec::new();
    for example in &examples {
        let next = place.entry(example.agent_type.clone()).or_insert(0_usize);
        places.push(*next);
        *next += 1;
    }
    let fold = |at: usize| places[at] * 5 / place[&examples[at].agent_type];
    let figures = cross_validate_on(&examples, &agents(), fold);
    assert!(figures.precision() >= 0.95, "{figures:?}");
    assert!(figures.escalated_share() <= 0.10, "{figures:?}");
}

/// Every other keyword is gone, and all descriptions.
fn terse_agents() -> Vec<AgentDeclaration> {
    let mut agents = agents();
    for agent in &mut agents {
        agent.description.clear();
        let keywords = &mut agent.actions[0].handles.keywords;
        *keywords = keywords.iter().step_by(2).cloned().collect();
    }
    agents
}

/// No keywords, no components: agents that only say in a sentence what they are for. A category
/// makes them take issues at all.
fn agents_in_a_sentence() -> Vec<AgentDeclaration> {
    let mut agents = agents();
    for agent in &mut agents {
        let categories = std::mem::take(&mut agent.actions[0].handles.components);
        agent.actions[0].handles = Handles { categories, ..Handles::default() };
    }
    agents
}

#[test]
fn terse_declarations_are_made_up_for_by_learning() {
    for agents in [terse_agents(), agents_in_a_sentence()] {
        let figures = cross_validate_on(&examples(), &agents, |at| at % 5);
        assert!(figures.precision() >= 0.93, "{figures:?}");
        assert!(figures.escalated_share() <= 0.12, "{figures:?}");
    }
}

#[test]
fn terse_declarations_alone_place_most_and_escalate_what_they_do_not_know() {
    for agents in [terse_agents(), agents_in_a_sentence()] {
        let figures = declared_only(&examples(), &agents);
        assert!(figures.precision() >= 0.83, "{figures:?}");
        assert!(figures.escalated_share() <= 0.20, "{figures:?}");
    }
}

#[test]
fn half_of_the_outcomes_are_nearly_enough() {
    let figures = cross_validate(2);
    assert!(figures.precision() >= 0.93, "{figures:?}");
    assert!(figures.escalated_share() <= 0.12, "{figures:?}");
}

#[test]
fn confidence_is_what_it_says() {
    let figures = cross_validate(5);
    assert!(figures.calibration_error() <= 0.05, "{figures:?}");
}

/// Nothing learned.
fn declared_only(examples: &[Example], agents: &[AgentDeclaration]) -> Figures {
    let tried: Vec<&Example> = examples.iter().collect();
    let issues: Vec<Issue> = examples.iter().map(issue).collect();
    let mut figures = Figures::default();
    figures.add(&tried, &triage_of(&issues, None, agents));
    eprintln!(
        "declared: {:.1} % escalated, of the rest {:.1} % right, calibration {:.3}; {:?}",
        figures.escalated_share() * 100.0,
        figures.precision() * 100.0,
        figures.calibration_error(),
        figures.bins
    );
    figures
}

#[test]
fn declarations_alone_place_well_before_anything_is_learned() {
    let figures = declared_only(&examples(), &agents());
    assert!(figures.precision() >= 0.88, "{figures:?}");
    assert!(figures.escalated_share() <= 0.12, "{figures:?}");
    assert!(figures.calibration_error() <= 0.05, "{figures:?}");
}

#[test]
fn a_model_that_was_kept_and_read_back_decides_the_same_to_the_bit() {
    let (agents, examples) = (agents(), examples());
    let (known, tried) = examples.split_at(200);
    let model = classifier::train(7, known, &agents);
    assert_eq!(model, classifier::train(7, known, &agents));
    let kept = serde_json::to_vec(&model).unwrap();
    let read_back: Model = serde_json::from_slice(&kept).unwrap();
    let issues: Vec<Issue> = tried.iter().map(issue).collect();
    let first = triage_of(&issues, Some(&model), &agents);
    let again = triage_of(&issues, Some(&read_back), &agents);
    assert_eq!(serde_json::to_vec(&first).unwrap(), serde_json::to_vec(&again).unwrap());
    assert_eq!(first.model_version, 7);
    let learned = &first.assignments[0];
    assert_eq!(learned.basis, Basis::Learned);
    assert!(!learned.words.is_empty() && learned.reason.contains(&learned.words[0].0));
}

/// Run by hand: `cargo test --release -p triage -- --ignored --nocapture ten_thousand`.
#[test]
#[ignore = "a measurement, for a release build"]
fn ten_thousand_issues_are_decided() {
    let (agents, examples) = (agents(), examples());
    let started = std::time::Instant::now();
    let model = classifier::train(1, &examples, &agents);
    eprintln!("trained on {} in {:?}", examples.len(), started.elapsed());
    let issues: Vec<Issue> = (0..10_000)
        .map(|number| {
            let mut issue = issue(&examples[number % examples.len()]);
            issue.id = format!("{number}");
            issue.title.push_str(" w");
            // No digits: those are masked, and all would be duplicates.
            issue.title.extend(number.to_string().bytes().map(|b| char::from(b - b'0' + b'g')));
            issue
        })
        .collect();
    let started = std::time::Instant::now();
    let triage = triage_of(&issues, Some(&model), &agents);
    eprintln!("decided {} in {:?}", triage.assignments.len(), started.elapsed());
    assert_eq!(triage.assignments.len() + triage.escalated.len(), issues.len());
    let many: Vec<Example> = (0..4_000).map(|at| examples[at % 306].clone()).collect();
    let started = std::time::Instant::now();
    let model = classifier::train(1, &many, &agents);
    eprintln!("trained on {} in {:?}", model.examples.len(), started.elapsed());
}
