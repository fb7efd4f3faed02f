//! All together: issues in, assignments, order, estimates and escalated issues out.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::classifier::{Classifier, tokens_of};
use crate::declaration::{AgentDeclaration, Class};
use crate::estimate::{self, Estimate, Work};
use crate::fingerprint;
use crate::history::History;
use crate::issue::{self, Issue, Problem};
use crate::limits;
use crate::priority::{self, System};
use crate::rules;
use crate::scoring::{self, Candidate, Score};
use crate::stages::{self, Item};
use crate::words::{self, Tokens};

/// How sure a declared rule is: rules are written by people.
const RULE_CONFIDENCE: f64 = 0.98;
/// Issues that one thread takes at least: below, threads cost more than they bring.
const THREAD_ISSUES_MIN: usize = 64;

/// What limits the choice.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Constraints {
    /// If any: only these agent types.
    pub agent_types: Vec<String>,
    /// Never these.
    pub excluded_agent_types: Vec<String>,
    /// The most issues of one stage; 0 for no limit.
    pub parallel_max: u32,
    /// The most that one action may cost, where its cost is known; 0 for no limit.
    pub cost_max: f64,
    /// The confidence from which on issues are placed; 0 for the model's own.
    pub confidence_min: f64,
}

/// What a triage is decided from.
#[derive(Debug)]
pub struct Input<'a> {
    /// The issues.
    pub issues: &'a [Issue],
    /// What is broken.
    pub system: &'a System,
    /// What limits the choice.
    pub constraints: &'a Constraints,
    /// What agents declare; the classifier must have been made from the same.
    pub agents: &'a [AgentDeclaration],
    /// What kind of issue it is.
    pub classifier: &'a Classifier,
    /// How agents did.
    pub history: &'a History,
    /// The time, in milliseconds since 1970.
    pub now_ms: i64,
    /// Threads to decide with; changes nothing but the time it takes.
    pub threads: usize,
}

/// How an issue's class was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Basis {
    /// By a rule that an agent declared.
    #[default]
    Rule,
    /// By likeness to what agents declare.
    Declaration,
    /// By what was learned from confirmed outcomes.
    Learned,
    /// A person said so.
    Person,
}

/// Another that could have had an issue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunnerUp {
    /// The agent type.
    pub agent_type: String,
    /// The action.
    pub action: String,
    /// Its score.
    pub score: Score,
}

/// Who takes an issue, and why.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Assignment {
    /// The issue.
    pub issue_id: String,
    /// The agent type that takes it.
    pub agent_type: String,
    /// The action.
    pub action: String,
    /// The action's input.
    pub params: Map<String, Value>,
    /// The class of the issue.
    pub category: String,
    /// The score of agent and action.
    pub score: Score,
    /// How sure it is, 0 to 1: of all placed at 0.8 some 80 % are right.
    pub confidence: f64,
    /// How its class was found.
    pub basis: Basis,
    /// Why, in a sentence.
    pub reason: String,
    /// The words that weighed most, each with its weight; empty where a rule placed it.
    pub words: Vec<(String, f64)>,
    /// The next best.
    pub runners_up: Vec<RunnerUp>,
    /// The higher, the sooner.
    pub priority: f64,
    /// How long it is thought to take.
    pub duration_ms: u64,
    /// What the action declares to cost; 0 when unknown.
    pub cost: f64,
    /// How many issues it stands for: 1 and its duplicates.
    pub count: u32,
    /// Escalated issues that it waits for, directly or through others.
    pub blocked_by: Vec<String>,
    /// The agent type that had it before a person gave it to another; empty where none did.
    #[serde(default)]
    pub instead_of: String,
}

/// Whom an escalated issue would have gone to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Proposal {
    /// The agent type.
    pub agent_type: String,
    /// The action.
    pub action: String,
    /// The action's input.
    pub params: Map<String, Value>,
    /// What the input lacks to be one; empty: nothing.
    pub lacks: String,
}

/// An issue that nobody takes; a person must look.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Escalated {
    /// The issue.
    pub issue_id: String,
    /// Why, in a sentence.
    pub reason: String,
    /// The likeliest class, empty where there is none.
    pub category: String,
    /// How sure that was.
    pub confidence: f64,
    /// The higher, the sooner.
    pub priority: f64,
    /// How many issues it stands for: 1 and its duplicates.
    pub count: u32,
    /// Whom it would have gone to, were that sure.
    #[serde(default)]
    pub proposal: Option<Box<Proposal>>,
}

/// An issue that is the same as one before it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Duplicate {
    /// The issue.
    pub issue_id: String,
    /// The first of its kind.
    pub of: String,
}

/// What was decided.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Triage {
    /// In the order of the issues.
    pub assignments: Vec<Assignment>,
    /// In the order of the issues.
    pub escalated: Vec<Escalated>,
    /// In the order of the issues.
    pub duplicates: Vec<Duplicate>,
    /// Ids of assigned issues by stage.
    pub stages: Vec<Vec<String>>,
    /// How long, and what is needed.
    pub estimate: Estimate,
    /// The version of the model; 0 when nothing was learned.
    pub model_version: u64,
}

/// Decides who takes what.
///
/// # Errors
/// What is wrong with the issues.
pub fn decide(input: &Input<'_>) -> Result<Triage, Problem> {
    issue::check(input.issues)?;
    let fingerprints: Vec<String> = input.issues.iter().map(fingerprint::fingerprint).collect();
    let first_of = fingerprint::groups(&fingerprints);
    let mut counts = vec![0_u32; input.issues.len()];
    for first in &first_of {
        counts[*first] += 1;
    }
    let priorities = priority::priorities(input.issues, input.system, input.now_ms);
    let firsts: Vec<usize> = (0..input.issues.len()).filter(|at| first_of[*at] == *at).collect();
    let placed = place_all(input, &firsts);
    let mut triage = Triage { model_version: input.classifier.version(), ..Triage::default() };
    for (at, placed) in firsts.iter().zip(placed) {
        match placed {
            Ok(assignment) => triage.assignments.push(Assignment {
                priority: priorities[*at],
                count: counts[*at],
                ..assignment
            }),
            Err(escalated) => triage.escalated.push(Escalated {
                priority: priorities[*at],
                count: counts[*at],
                ..escalated
            }),
        }
    }
    triage.duplicates = (0..input.issues.len())
        .filter(|at| first_of[*at] != *at)
        .map(|at| Duplicate {
            issue_id: input.issues[at].id.clone(),
            of: input.issues[first_of[at]].id.clone(),
        })
        .collect();
    let Input { issues, constraints, agents, .. } = input;
    arrange(&Scene { issues, constraints, agents }, &first_of, &mut triage);
    Ok(triage)
}

/// Places issues, several threads side by side; the result does not depend on how many.
fn place_all(input: &Input<'_>, firsts: &[usize]) -> Vec<Result<Assignment, Escalated>> {
    let chooser = Chooser::new(input);
    let place = |at: &usize| chooser.place(&input.issues[*at]);
    let size = firsts.len().div_ceil(input.threads.max(1)).max(THREAD_ISSUES_MIN);
    if firsts.len() <= size {
        return firsts.iter().map(place).collect();
    }
    std::thread::scope(|scope| {
        let parts: Vec<_> = firsts
            .chunks(size)
            .map(|part| scope.spawn(move || part.iter().map(place).collect::<Vec<_>>()))
            .collect();
        parts
            .into_iter()
            .flat_map(|part| match part.join() {
                Ok(placed) => placed,
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .collect()
    })
}

/// What a triage is about, without how it was decided.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// The issues.
    pub issues: &'a [Issue],
    /// What limits the choice.
    pub constraints: &'a Constraints,
    /// What agents declare.
    pub agents: &'a [AgentDeclaration],
}

/// Stages, estimates, and what waits for escalated issues.
pub(crate) fn arrange(input: &Scene<'_>, first_of: &[usize], triage: &mut Triage) {
    let index: BTreeMap<&str, usize> =
        input.issues.iter().enumerate().map(|(at, issue)| (issue.id.as_str(), at)).collect();
    // What depends on a duplicate depends on its first, and the first on what its duplicates do.
    let mut needs: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); input.issues.len()];
    for (at, issue) in input.issues.iter().enumerate() {
        for id in &issue.depends_on {
            let need = first_of[index[id.as_str()]];
            if need != first_of[at] {
                needs[first_of[at]].insert(need);
            }
        }
    }
    let lists: Vec<Vec<usize>> = needs.iter().map(|set| set.iter().copied().collect()).collect();
    if issue::cycle(&lists).is_some() {
        // Joining duplicates closed a circle: then firsts wait for what they name themselves alone.
        for (at, issue) in input.issues.iter().enumerate() {
            let own = issue.depends_on.iter().map(|id| index[id.as_str()]);
            needs[at] = own.filter(|need| first_of[*need] == *need).collect();
        }
    }
    let escalated: BTreeSet<usize> =
        triage.escalated.iter().map(|one| index[one.issue_id.as_str()]).collect();
    for assignment in &mut triage.assignments {
        let mut seen = BTreeSet::new();
        let mut open = vec![index[assignment.issue_id.as_str()]];
        while let Some(at) = open.pop() {
            open.extend(needs[at].iter().copied().filter(|need| seen.insert(*need)));
        }
        assignment.blocked_by =
            seen.intersection(&escalated).map(|at| input.issues[*at].id.clone()).collect();
    }
    let edges: Vec<Vec<String>> = triage
        .assignments
        .iter()
        .map(|assignment| {
            let needs = &needs[index[assignment.issue_id.as_str()]];
            needs.iter().map(|at| input.issues[*at].id.clone()).collect()
        })
        .collect();
    let items: Vec<Item<'_>> = triage
        .assignments
        .iter()
        .zip(&edges)
        .map(|(assignment, depends_on)| Item {
            id: &assignment.issue_id,
            depends_on,
            priority: assignment.priority,
        })
        .collect();
    let parallel_max = (input.constraints.parallel_max > 0)
        .then(|| usize::try_from(input.constraints.parallel_max).unwrap_or(usize::MAX));
    triage.stages = stages::stages(&items, parallel_max);
    let by_id: BTreeMap<&str, &Assignment> =
        triage.assignments.iter().map(|one| (one.issue_id.as_str(), one)).collect();
    let work: Vec<Vec<Work<'_>>> = triage
        .stages
        .iter()
        .map(|stage| stage.iter().map(|id| work_of(by_id[id.as_str()])).collect())
        .collect();
    let slots = input.agents.iter().map(|agent| (agent.agent_type.as_str(), agent.slots)).collect();
    triage.estimate = estimate::estimate(&work, &slots);
}

fn work_of(assignment: &Assignment) -> Work<'_> {
    Work {
        id: &assignment.issue_id,
        agent_type: &assignment.agent_type,
        duration_ms: assignment.duration_ms,
        cost: assignment.cost,
    }
}

/// Chooses class, agent and action of one issue.
struct Chooser<'a> {
    input: &'a Input<'a>,
    classes: &'a [Class],
    schemas: BTreeMap<(usize, usize), jsonschema::Validator>,
    /// The keys of each action's keywords, both spellings of one together.
    keywords: Vec<Vec<Vec<[u64; 2]>>>,
    /// The agents that take each class, each once.
    takers: Vec<Vec<usize>>,
}

/// What kind of issue it is, and how sure that is.
struct Kind {
    class: usize,
    confidence: f64,
    basis: Basis,
    reason: String,
    words: Vec<(String, f64)>,
    shares: Vec<f64>,
}

impl<'a> Chooser<'a> {
    fn new(input: &'a Input<'a>) -> Chooser<'a> {
        let mut schemas = BTreeMap::new();
        for (at, agent) in input.agents.iter().enumerate() {
            for (number, action) in agent.actions.iter().enumerate() {
                // A schema that is none was refused when the agent registered.
                if let Some(schema) = &action.input_schema
                    && let Ok(validator) = jsonschema::validator_for(schema)
                {
                    schemas.insert((at, number), validator);
                }
            }
        }
        let classes = input.classifier.classes();
        let keywords = input
            .agents
            .iter()
            .map(|agent| agent.actions.iter().map(keyword_keys).collect())
            .collect();
        let takers = classes
            .iter()
            .map(|class| {
                let takers: BTreeSet<usize> = class.handlers.iter().map(|(at, _)| *at).collect();
                takers.into_iter().collect()
            })
            .collect();
        Chooser { input, classes, schemas, keywords, takers }
    }

    fn place(&self, issue: &Issue) -> Result<Assignment, Escalated> {
        let escalate = |reason: String, kind: Option<&Kind>| {
            Err(Escalated {
                issue_id: issue.id.clone(),
                reason,
                category: kind
                    .map_or_else(String::new, |kind| self.classes[kind.class].name.clone()),
                confidence: kind.map_or(0.0, |kind| kind.confidence),
                ..Escalated::default()
            })
        };
        let tokens = tokens_of(issue);
        let Some(kind) = self.kind(issue, &tokens) else {
            return escalate("no agent declares which issues it takes".to_owned(), None);
        };
        let own = self.input.constraints.confidence_min;
        let least = if own > 0.0 { own } else { self.input.classifier.confidence() };
        let ranked = self.ranked(issue, &tokens, &kind);
        if kind.confidence < least {
            let reason = format!(
                "not sure enough: {:.2} is below {least:.2}; {}",
                kind.confidence, kind.reason
            );
            let first = ranked.first().filter(|_| kind.confidence > 0.0);
            let proposal = first.map(|((_, at, number), _)| self.proposal(issue, *at, *number));
            return escalate(reason, Some(&kind))
                .map_err(|escalated| Escalated { proposal, ..escalated });
        }
        let Some(&((_, at, number), score)) = ranked.first() else {
            let class = &self.classes[kind.class].name;
            let reason = if self.classes[kind.class].handlers.is_empty() {
                format!("it looks like `{class}`, which no agent takes; {}", kind.reason)
            } else {
                format!("the constraints leave no agent that takes `{class}`; {}", kind.reason)
            };
            return escalate(reason, Some(&kind));
        };
        let (agent, action) = (&self.input.agents[at], &self.input.agents[at].actions[number]);
        let params = params_of(issue, action.input_schema.as_ref());
        if let Some(wrong) = self.schema_error(at, number, &params) {
            let reason = format!(
                "`{}` of {} cannot be called: {wrong}; give what is missing in the issue's params",
                action.name, agent.agent_type
            );
            let proposal = Some(self.proposal(issue, at, number));
            return escalate(reason, Some(&kind))
                .map_err(|escalated| Escalated { proposal, ..escalated });
        }
        let runners_up = self.runners_up(issue, &tokens, &kind, &ranked);
        let category = self.classes[kind.class].name.clone();
        let known_ms = self.input.history.duration_ms(&agent.agent_type, &category);
        Ok(Assignment {
            issue_id: issue.id.clone(),
            agent_type: agent.agent_type.clone(),
            action: action.name.clone(),
            params,
            score,
            confidence: kind.confidence,
            basis: kind.basis,
            reason: kind.reason,
            words: kind.words,
            runners_up,
            duration_ms: known_ms.or(action.duration_ms).unwrap_or(estimate::DURATION_UNKNOWN_MS),
            cost: action.cost.unwrap_or(0.0),
            category,
            ..Assignment::default()
        })
    }

    fn proposal(&self, issue: &Issue, at: usize, number: usize) -> Box<Proposal> {
        let agent = &self.input.agents[at];
        let action = &agent.actions[number];
        let params = params_of(issue, action.input_schema.as_ref());
        let lacks = self.schema_error(at, number, &params).unwrap_or_default();
        let (agent_type, action) = (agent.agent_type.clone(), action.name.clone());
        Box::new(Proposal { agent_type, action, params, lacks })
    }

    fn kind(&self, issue: &Issue, tokens: &Tokens) -> Option<Kind> {
        if self.classes.is_empty() {
            return None;
        }
        let look = self.input.classifier.look(tokens);
        let shares = look.shares.clone();
        if let Some(hit) = rules::find(issue, self.input.agents, self.classes) {
            return Some(Kind {
                class: hit.class,
                confidence: RULE_CONFIDENCE,
                basis: Basis::Rule,
                reason: hit.rule,
                words: Vec::new(),
                shares,
            });
        }
        let (class, confidence) = self.likeliest(&shares);
        if !look.has_words[class] {
            return Some(Kind {
                class,
                confidence: 0.0,
                basis: Basis::Declaration,
                reason: "none of its words is known".to_owned(),
                words: Vec::new(),
                shares,
            });
        }
        let next = (0..shares.len())
            .filter(|at| *at != class)
            .reduce(|best, at| if shares[at] > shares[best] { at } else { best })
            .unwrap_or(class);
        let why = self.input.classifier.why(tokens, &look, class, next);
        let learned = self.input.classifier.version() > 0;
        let name = &self.classes[class].name;
        let mut reason = if learned {
            format!("like confirmed issues of `{name}`")
        } else {
            format!("like what is declared for `{name}`")
        };
        if !why.words.is_empty() {
            let words: Vec<String> =
                why.words.iter().map(|(word, _)| format!("`{word}`")).collect();
            reason.push_str(", for its words ");
            reason.push_str(&words.join(", "));
        }
        if let Some(like) = why.like {
            reason.push_str(&format!("; nearest to issue {like}"));
        }
        Some(Kind {
            class,
            confidence: (confidence * 1e4).round() / 1e4,
            basis: if learned { Basis::Learned } else { Basis::Declaration },
            reason,
            words: why.words,
            shares,
        })
    }

    /// The class to go by, and how sure it is that an agent that takes this class is right: an
    /// agent
    /// that takes several likely classes is right if any of them is.
    fn likeliest(&self, shares: &[f64]) -> (usize, f64) {
        let mut by_agent = vec![0.0; self.input.agents.len()];
        for (takers, share) in self.takers.iter().zip(shares) {
            for at in takers {
                by_agent[*at] += share;
            }
        }
        let sure = |class: usize| {
            let agents = self.takers[class].iter().map(|at| by_agent[*at]);
            agents.fold(shares[class], f64::max)
        };
        let class = (0..shares.len())
            .reduce(|best, at| {
                let (new, old) = (sure(at), sure(best));
                let better = new > old + 1e-12 || (new > old - 1e-12 && shares[at] > shares[best]);
                if better { at } else { best }
            })
            .unwrap_or(0);
        (class, sure(class).min(1.0))
    }

    /// Who takes the class, the best first: by agent type, then the action that fits best.
    fn ranked(
        &self,
        issue: &Issue,
        tokens: &Tokens,
        kind: &Kind,
    ) -> Vec<((&'a str, usize, usize), Score)> {
        let handlers = self.classes[kind.class].handlers.iter().copied();
        let best = self.best_actions(issue, tokens, handlers);
        scoring::rank(best.into_iter().map(|at| self.candidate(at, kind)).collect())
    }

    fn runners_up(
        &self,
        issue: &Issue,
        tokens: &Tokens,
        kind: &Kind,
        ranked: &[((&'a str, usize, usize), Score)],
    ) -> Vec<RunnerUp> {
        let taken: BTreeSet<usize> = ranked.iter().map(|((_, at, _), _)| *at).collect();
        let mut likely: Vec<usize> =
            (0..self.classes.len()).filter(|class| *class != kind.class).collect();
        likely.sort_by(|left, right| {
            kind.shares[*right].total_cmp(&kind.shares[*left]).then(left.cmp(right))
        });
        let others = likely
            .into_iter()
            .take(limits::RUNNERS_UP_MAX)
            .flat_map(|class| self.classes[class].handlers.iter().copied())
            .filter(|(at, _)| !taken.contains(at));
        let others = self.best_actions(issue, tokens, others);
        let others = scoring::rank(others.into_iter().map(|at| self.candidate(at, kind)).collect());
        ranked
            .iter()
            .skip(1)
            .chain(&others)
            .take(limits::RUNNERS_UP_MAX)
            .map(|((agent_type, at, number), score)| RunnerUp {
                agent_type: (*agent_type).to_owned(),
                action: self.input.agents[*at].actions[*number].name.clone(),
                score: *score,
            })
            .collect()
    }

    /// Of each agent the action that fits an issue best: by rules, then keywords, then name.
    fn best_actions(
        &self,
        issue: &Issue,
        tokens: &Tokens,
        handlers: impl Iterator<Item = (usize, usize)>,
    ) -> Vec<(usize, usize)> {
        let mut best: BTreeMap<usize, (usize, (usize, usize))> = BTreeMap::new();
        for (at, number) in handlers.filter(|at| self.allows(*at)) {
            let action = &self.input.agents[at].actions[number];
            let keywords = &self.keywords[at][number];
            let has = |key: &u64| tokens.phrases.binary_search(key).is_ok();
            let found = keywords.iter().filter(|keys| keys.iter().any(has)).count();
            let fit = (rules::count(issue, action), found);
            best.entry(at)
                .and_modify(|found| {
                    if fit > found.1 {
                        *found = (number, fit);
                    }
                })
                .or_insert((number, fit));
        }
        best.into_iter().map(|(at, (number, _))| (at, number)).collect()
    }

    fn allows(&self, (at, number): (usize, usize)) -> bool {
        let constraints = self.input.constraints;
        let agent = &self.input.agents[at];
        let named = |list: &[String]| list.contains(&agent.agent_type);
        (constraints.agent_types.is_empty() || named(&constraints.agent_types))
            && !named(&constraints.excluded_agent_types)
            && (constraints.cost_max <= 0.0
                || agent.actions[number].cost.is_none_or(|cost| cost <= constraints.cost_max))
    }

    fn candidate(
        &self,
        (at, number): (usize, usize),
        kind: &Kind,
    ) -> Candidate<(&'a str, usize, usize)> {
        let agent = &self.input.agents[at];
        let class = &self.classes[kind.class];
        let by_rule = kind.basis == Basis::Rule && self.takers[kind.class].contains(&at);
        let capability = if by_rule {
            kind.confidence
        } else {
            let shares = self.takers.iter().zip(&kind.shares);
            shares.filter(|(takers, _)| takers.contains(&at)).map(|(_, share)| share).sum()
        };
        Candidate {
            who: (agent.agent_type.as_str(), at, number),
            capability,
            history: self.input.history.rate(&agent.agent_type, &class.name, self.input.now_ms),
            cost: agent.actions[number].cost,
            availability: agent.availability,
        }
    }

    fn schema_error(
        &self,
        at: usize,
        number: usize,
        params: &Map<String, Value>,
    ) -> Option<String> {
        schema_error(self.schemas.get(&(at, number))?, params)
    }
}

/// What is wrong with an action's input.
pub(crate) fn schema_error(
    validator: &jsonschema::Validator,
    params: &Map<String, Value>,
) -> Option<String> {
    let value = Value::Object(params.clone());
    let error = validator.iter_errors(&value).next()?;
    // The path and the rule; the value itself may be a secret.
    let place = error.instance_path().to_string();
    let place = if place.is_empty() { "its input".to_owned() } else { place };
    Some(format!("{place} does not hold to {}", error.schema_path()))
}

fn keyword_keys(action: &crate::declaration::Action) -> Vec<[u64; 2]> {
    let spellings = |keyword: &String| {
        let key = |words: Vec<String>| words::key(&words.join(" "));
        [key(words::split(keyword)), key(words::whole(keyword))]
    };
    action.handles.keywords.iter().map(spellings).collect()
}

/// An action's input: what the issue gives, and of what the schema names besides, the issue itself.
pub(crate) fn params_of(issue: &Issue, schema: Option<&Value>) -> Map<String, Value> {
    let mut params = issue.params.clone().unwrap_or_default();
    let names = schema.and_then(|schema| schema.get("properties")).and_then(Value::as_object);
    for name in names.into_iter().flat_map(Map::keys) {
        let value = match name.as_str() {
            "issue_id" => Value::from(issue.id.as_str()),
            "title" => Value::from(issue.title.as_str()),
            "description" => Value::from(issue.description.as_str()),
            "component" if !issue.component.is_empty() => Value::from(issue.component.as_str()),
            "evidence" => Value::from(issue.evidence.clone()),
            _ => continue,
        };
        params.entry(name.clone()).or_insert(value);
    }
    params
}
