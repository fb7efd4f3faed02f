//! What kind of issue it is: from what agents declare, and, once outcomes are confirmed, from
//! those.
//!
//! Evidence for each class (see [`crate::likeness`]) is weighed by a conditional logit model whose
//! few weights all classes share, so that a class that was never seen can be found by its
//! declaration, and a few hundred outcomes are enough. The weights are fitted on each example as
//! if it alone had not been seen, which is what makes the shares honest confidences.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::declaration::{AgentDeclaration, Class, classes, short_name};
use crate::fit;
use crate::issue::Issue;
use crate::likeness::{Evidence, KINDS, KINDS_DECLARED, Knowledge, Study};
use crate::limits;
use crate::words::{self, Tokens};

/// Weights where nothing was learned.
const DECLARED: Evidence = [2.0, 10.5, 8.0, 0.0, 0.0, 0.0, 0.0, 0.0];
/// Weights from which learning starts.
const LEARNED: Evidence = [2.5, 8.0, 8.0, 5.0, 7.0, 5.0, 7.0, 4.0];
/// Examples at which evidence of examples begins with half its weight.
const LEARNED_HALF: f64 = 50.0;
/// The confidence from which an issue is placed where nothing was learned.
const CONFIDENCE_DECLARED: f64 = 0.42;
/// The share of confirmed outcomes, the least sure, below whose confidence a model does not place.
const LEAST_SURE: f64 = 0.09;
/// Between these a model's own confidence to place lies.
const CONFIDENCE_LEARNED: (f64, f64) = (0.45, 0.85);
const MICRO: f64 = 1e6;
/// The way of learning, by number: a model that was learned in another way is learned anew.
pub const LEARNER: u32 = 2;

/// An issue whose right agent is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Example {
    /// The issue's id.
    pub id: String,
    /// The issue's text.
    pub title: String,
    /// The issue's text at length.
    pub description: String,
    /// Its component, where known.
    pub component: String,
    /// The agent type that was right.
    pub agent_type: String,
    /// Its category, where known.
    pub category: String,
}

/// What was learned: the examples and the weights fitted to them. Everything else follows from
/// these and the declarations, so that a model read back places exactly as it did before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// Counts up from 1 with each training.
    pub version: u64,
    /// The examples, in the order in which they were confirmed.
    pub examples: Vec<Example>,
    /// The weights in millionths: whole numbers are read back as they were written.
    pub weights_micro: Vec<i64>,
    /// The confidence from which on it places, in millionths.
    pub confidence_micro: i64,
}

impl Model {
    /// Whether there is enough to place by; before, declarations alone do.
    pub fn is_enough(&self) -> bool {
        self.examples.len() >= limits::EXAMPLES_MIN
    }

    /// The confidence from which on issues are placed.
    pub fn confidence(&self) -> f64 {
        let own = self.confidence_micro as f64 / MICRO;
        if self.is_enough() { own } else { CONFIDENCE_DECLARED }
    }
}

/// Places issues into classes.
#[derive(Debug)]
pub struct Classifier {
    classes: Vec<Class>,
    knowledge: Knowledge,
    weights: Evidence,
    confidence: f64,
    version: u64,
    example_ids: Vec<String>,
}

/// What the classifier thinks of an issue, class by class.
#[derive(Debug, Default)]
pub struct Look {
    /// How sure it is; the sum is 1.
    pub shares: Vec<f64>,
    /// Whether any word speaks for it. Where none does, likeness of letters is chance.
    pub has_words: Vec<bool>,
    study: Study,
}

/// Why an issue is thought to be of a class.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Why {
    /// The words that weighed most against the next class, the heaviest first.
    pub words: Vec<(String, f64)>,
    /// The known issue of the class that is most like it.
    pub like: Option<String>,
}

/// Learns from examples, the oldest first. Only the newest that a model may keep are used.
pub fn train(version: u64, examples: &[Example], agents: &[AgentDeclaration]) -> Model {
    let examples = &examples[examples.len().saturating_sub(limits::EXAMPLES_MAX)..];
    let (classifier, known) = Classifier::build(examples, agents);
    let evidence: Vec<(Vec<Evidence>, usize)> = known
        .iter()
        .enumerate()
        .map(|(at, (tokens, class))| {
            (classifier.knowledge.study(tokens, Some(at)).evidence, *class)
        })
        .collect();
    let mut start = LEARNED;
    let count = examples.len() as f64;
    for weight in &mut start[KINDS_DECLARED..] {
        *weight *= count / (count + LEARNED_HALF);
    }
    let fitted = fit::fit(&evidence, &start);
    let weights_micro: Vec<i64> = fitted.iter().map(|weight| (weight * MICRO) as i64).collect();
    let weights = weights_of(&weights_micro);
    let mut sure: Vec<f64> = evidence
        .iter()
        .map(|(evidence, _)| fit::shares(evidence, &weights).into_iter().fold(0.0, f64::max))
        .collect();
    sure.sort_by(f64::total_cmp);
    let least = sure.get((count * LEAST_SURE) as usize).copied().unwrap_or(CONFIDENCE_DECLARED);
    let confidence = least.clamp(CONFIDENCE_LEARNED.0, CONFIDENCE_LEARNED.1);
    Model {
        version,
        examples: examples.to_vec(),
        weights_micro,
        confidence_micro: (confidence * MICRO) as i64,
    }
}

impl Classifier {
    /// For agents, with what was learned if that is enough to place by.
    pub fn new(model: Option<&Model>, agents: &[AgentDeclaration]) -> Classifier {
        match model.filter(|model| model.is_enough()) {
            Some(model) => Classifier {
                weights: weights_of(&model.weights_micro),
                confidence: model.confidence(),
                version: model.version,
                ..Classifier::build(&model.examples, agents).0
            },
            None => Classifier::build(&[], agents).0,
        }
    }

    fn build(
        examples: &[Example],
        agents: &[AgentDeclaration],
    ) -> (Classifier, Vec<(Tokens, usize)>) {
        let mut classes = classes(agents);
        let known = resolve(examples, &mut classes, agents);
        let classifier = Classifier {
            knowledge: Knowledge::new(&classes, &known),
            classes,
            weights: DECLARED,
            confidence: CONFIDENCE_DECLARED,
            version: 0,
            example_ids: examples.iter().map(|example| example.id.clone()).collect(),
        };
        (classifier, known)
    }

    /// The classes, by name.
    pub fn classes(&self) -> &[Class] {
        &self.classes
    }

    /// The version of the model; 0 when declarations alone place.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The confidence from which on issues are placed.
    pub fn confidence(&self) -> f64 {
        self.confidence
    }

    /// What it thinks of an issue.
    pub fn look(&self, tokens: &Tokens) -> Look {
        let study = self.knowledge.study(tokens, None);
        let has_words = study.evidence.iter().map(|of| of[0] + of[1] + of[3] > 0.0).collect();
        Look { shares: fit::shares(&study.evidence, &self.weights), has_words, study }
    }

    /// What speaks for one class against another.
    pub fn why(&self, tokens: &Tokens, look: &Look, class: usize, next: usize) -> Why {
        let place = &look.study.place;
        let mut words: Vec<(&String, f64)> = tokens
            .names
            .iter()
            .map(|(key, name)| {
                let pair = (class, next);
                let weight = self.knowledge.word_weight(place, *key, pair, &self.weights);
                (name, (weight * 1e3).round() / 1e3)
            })
            .filter(|(_, weight)| *weight > 0.0)
            .collect();
        words.sort_by(|left, right| right.1.total_cmp(&left.1).then_with(|| left.0.cmp(right.0)));
        words.truncate(limits::WORDS_NAMED_MAX);
        let words = words.into_iter().map(|(word, weight)| (word.clone(), weight)).collect();
        let nearest = self.knowledge.nearest(&look.study, class);
        Why { words, like: nearest.map(|at| self.example_ids[at].clone()) }
    }
}

/// The words of an issue.
pub fn tokens_of(issue: &Issue) -> Tokens {
    words::tokens(&[&issue.title, &issue.description, &issue.component])
}

fn weights_of(micro: &[i64]) -> Evidence {
    let mut weights = [0.0; KINDS];
    for (weight, micro) in weights.iter_mut().zip(micro) {
        *weight = *micro as f64 / MICRO;
    }
    weights
}

/// Each example's words and class. Classes that only examples know are added.
fn resolve(
    examples: &[Example],
    classes: &mut Vec<Class>,
    agents: &[AgentDeclaration],
) -> Vec<(Tokens, usize)> {
    let declared = Knowledge::new(classes, &[]);
    let mut known = Vec::with_capacity(examples.len());
    let mut unknown = BTreeSet::new();
    for example in examples {
        let tokens = words::tokens(&[&example.title, &example.description, &example.component]);
        let found = class_of(example, &tokens, classes, agents, &declared);
        if let Err(name) = &found {
            unknown.insert(name.clone());
        }
        known.push((tokens, found));
    }
    let first = classes.len();
    let unknown: Vec<String> = unknown.into_iter().collect();
    classes.extend(unknown.iter().map(|name| learned_class(name, agents)));
    known
        .into_iter()
        .map(|(tokens, found)| {
            let class = found
                .unwrap_or_else(|name| first + unknown.binary_search(&name).unwrap_or_default());
            (tokens, class)
        })
        .collect()
}

/// The class of an example: its category if there is such a class, else the only one that its agent
/// takes, else of several the likeliest by declaration, else one named after the agent.
fn class_of(
    example: &Example,
    tokens: &Tokens,
    classes: &[Class],
    agents: &[AgentDeclaration],
    declared: &Knowledge,
) -> Result<usize, String> {
    let takes = |class: &Class| {
        class.handlers.iter().any(|(at, _)| agents[*at].agent_type == example.agent_type)
    };
    let own: Vec<usize> = (0..classes.len()).filter(|at| takes(&classes[*at])).collect();
    for name in [&example.category, &example.component] {
        let name = name.trim().to_lowercase();
        if let Some(at) = own.iter().find(|at| classes[**at].name == name) {
            return Ok(*at);
        }
    }
    match own.as_slice() {
        [] => {
            let name = example.agent_type.to_lowercase();
            classes.iter().position(|class| class.name == name).ok_or(name)
        }
        [only] => Ok(*only),
        several => {
            let shares = fit::shares(&declared.study(tokens, None).evidence, &DECLARED);
            let better = |left: usize, right: usize| {
                if shares[right] > shares[left] { right } else { left }
            };
            several.iter().copied().reduce(better).ok_or_else(String::new)
        }
    }
}

/// A class of an agent that declares nothing, or is not there any more.
fn learned_class(name: &str, agents: &[AgentDeclaration]) -> Class {
    let handlers = agents
        .iter()
        .enumerate()
        .filter(|(_, agent)| agent.agent_type.to_lowercase() == name)
        .flat_map(|(at, agent)| (0..agent.actions.len()).map(move |number| (at, number)))
        .collect();
    Class {
        name: name.to_owned(),
        handlers,
        text: short_name(name).to_owned(),
        phrases: BTreeSet::from([words::whole(short_name(name)).join(" ")]),
    }
}
