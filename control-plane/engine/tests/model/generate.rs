//! Random definitions, all of them valid. What a definition comes to must not hang on the order
//! in which things begin that begin at once, so what fails as it begins does so only where nothing
//! stands beside it.

use std::collections::BTreeSet;

use serde_json::json;

use crate::expression::Expr;
use crate::language::{Fail, Key, Kind, Repeat, Retry, Step, Workflow};

const STEPS_MAX: usize = 18;
const NESTING_MAX: usize = 3;

pub(crate) fn workflow(bytes: &[u8]) -> Workflow {
    let mut generator = Generator { bytes, count: 0, safe: BTreeSet::new() };
    let place = Place { alone: true, ..Place::default() };
    let rollback = generator.one_of(&["none", "none", "to_start", "to_checkpoint"]);
    let branch = generator.once_in(4);
    let fail_fast = generator.once_in(3);
    let retry = generator.once_in(4).then(|| generator.retry());
    let deadline = generator.once_in(10).then(|| 20_000 + generator.odd(10));
    let (steps, groups) = generator.list(&place, 1);
    let mut outputs = Vec::new();
    for key in groups.into_iter().flatten() {
        if generator.once_in(3) {
            let field = generator.one_of(&["status", "success", "attempts", "output"]);
            outputs.push((format!("o{key}"), Expr::Of(key, field)));
        }
    }
    let on_failure = if generator.once_in(2) { generator.on_failure() } else { Vec::new() };
    let mut ids = vec![String::new(); generator.count];
    name(&steps, &on_failure, &mut ids);
    Workflow { steps, on_failure, rollback, branch, fail_fast, retry, deadline, outputs, ids }
}

/// Where a step stands.
#[derive(Clone, Default)]
struct Place {
    depth: usize,
    /// Nothing else begins when this does.
    alone: bool,
    in_loop: bool,
    /// Several of it run at once.
    multiple: bool,
    item: Option<&'static str>,
    iteration: bool,
    /// What has certainly settled.
    settled: Vec<Key>,
    /// The steps directly before.
    before: Vec<Key>,
}

struct Generator<'b> {
    bytes: &'b [u8],
    count: usize,
    /// Steps that have an output with a whole number `n`, if they were reached and went well.
    safe: BTreeSet<Key>,
}

impl Generator<'_> {
    fn below(&mut self, count: usize) -> usize {
        let Some((&byte, rest)) = self.bytes.split_first() else { return 0 };
        self.bytes = rest;
        usize::from(byte) % count
    }

    fn once_in(&mut self, count: usize) -> bool {
        self.below(count) == count - 1
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    fn key(&mut self) -> Key {
        self.count += 1;
        self.count - 1
    }

    /// Milliseconds that are hardly ever the sum of others.
    fn odd(&mut self, seconds: usize) -> i64 {
        let whole = 1 + self.below(seconds);
        i64::try_from(whole * 1000 + (self.count * 37) % 997).unwrap()
    }

    /// A list and the groups in it.
    fn list(&mut self, place: &Place, least: usize) -> (Vec<Step>, Vec<Vec<Key>>) {
        let sequential = self.below(3) < 2;
        let count = least + self.below(4);
        let mut steps: Vec<Step> = Vec::new();
        let mut groups: Vec<Vec<Key>> = Vec::new();
        let mut reach: Vec<BTreeSet<usize>> = Vec::new();
        for at in 0..count {
            if at > 0 && self.count >= STEPS_MAX {
                break;
            }
            let named = !sequential && at > 0 && self.once_in(2);
            let on: Vec<usize> = if named {
                (0..at).filter(|_| self.once_in(3)).collect()
            } else {
                at.checked_sub(1).into_iter().collect()
            };
            let mut reached: BTreeSet<usize> = on.iter().copied().collect();
            on.iter().for_each(|group| reached.extend(&reach[*group]));
            let keys = |of: &mut dyn Iterator<Item = usize>| -> Vec<Key> {
                of.flat_map(|group| groups[group].clone()).collect()
            };
            let mut inner = place.clone();
            inner.alone = place.alone && sequential;
            inner.settled.extend(keys(&mut reached.iter().copied()));
            if !on.is_empty() {
                inner.before = keys(&mut on.iter().copied());
            }
            let mut step = self.step(&inner);
            let mut group = vec![step.key];
            if !sequential && self.once_in(3) {
                for _ in 0..=self.below(2) {
                    let member = self.step(&inner);
                    group.push(member.key);
                    step.members.push(member);
                }
            }
            if named {
                // Any member of a group stands for it.
                let names = on.iter().map(|of| groups[*of][self.below(groups[*of].len())]);
                step.depends_on = Some(names.collect());
            }
            steps.push(step);
            groups.push(group);
            reach.push(reached);
        }
        (steps, groups)
    }

    fn step(&mut self, place: &Place) -> Step {
        let key = self.key();
        let condition = self.once_in(5).then(|| self.condition(place));
        let nested = place.depth < NESTING_MAX && self.count < STEPS_MAX;
        let mut step = Step {
            key,
            named: !self.once_in(4),
            kind: Kind::Append,
            condition,
            repeat: None,
            held: self.once_in(5),
            checkpoint: !place.multiple && self.once_in(8),
            deadline: None,
            depends_on: None,
            members: Vec::new(),
        };
        match self.below(if nested { 17 } else { 10 }) {
            0..4 => self.echo(&mut step, place),
            4 => {}
            5 | 6 => step.kind = Kind::Fail(self.fail()),
            7 => step.kind = Kind::Wait(self.odd(9)),
            8 if !place.in_loop => {
                let (timeout, arrives) = (self.odd(20), self.below(3) > 0);
                step.kind = Kind::WaitFor { timeout, arrives };
            }
            9 if !place.multiple => {
                let answer = self.one_of(&[Some(true), Some(true), Some(false), None]);
                step.kind = Kind::Approve { timeout: self.odd(20), answer };
            }
            8 | 9 => {}
            10 | 11 => {
                let inner = deeper(place);
                step.kind = Kind::Block(self.list(&inner, 1).0);
            }
            12 => {
                if step.condition.is_none() {
                    step.condition = Some(self.condition(place));
                }
                let inner = deeper(place);
                let then = self.list(&inner, 1).0;
                let otherwise = self.once_in(2).then(|| self.list(&inner, 1).0);
                step.kind = Kind::Choice { then, otherwise };
            }
            13 | 14 => self.each(&mut step, place),
            _ => self.repeat_while(&mut step, place),
        }
        let may = !matches!(step.kind, Kind::WaitFor { .. } | Kind::Approve { .. });
        if may && !place.multiple && self.once_in(8) {
            step.deadline = Some(self.odd(6));
        }
        step
    }

    fn echo(&mut self, step: &mut Step, place: &Place) {
        let (number, sure) = self.number(place);
        let mut params = vec![("n".to_owned(), number)];
        if let Some(value) = self.anything(place) {
            params.push(("v".to_owned(), value));
        }
        step.kind = Kind::Echo { params, compensate: self.once_in(4) };
        if sure && step.condition.is_none() {
            self.safe.insert(step.key);
        }
    }

    fn each(&mut self, step: &mut Step, place: &Place) {
        let items: Vec<i64> =
            (0..self.below(4)).map(|at| i64::try_from(at).unwrap() * 2 - 1).collect();
        let max_parallel = self.one_of(&[None, Some(1), Some(1), Some(2)]);
        let name = self.one_of(&["item", "item", "thing"]);
        let one_by_one = max_parallel == Some(1) || items.len() < 2;
        let mut inner = deeper(place);
        inner.alone = place.alone && one_by_one;
        inner.in_loop = true;
        inner.multiple = place.multiple || !one_by_one;
        inner.item = Some(name);
        step.repeat = Some(Repeat::Each { items, name, max_parallel });
        self.body(step, &inner);
    }

    fn repeat_while(&mut self, step: &mut Step, place: &Place) {
        let mut inner = deeper(place);
        inner.in_loop = true;
        inner.iteration = true;
        self.body(step, &inner);
        let times = i64::try_from(self.below(3)).unwrap();
        let mut condition = Expr::Below(Box::new(Expr::Iteration), times);
        let first = match &step.kind {
            Kind::Block(steps) => steps[0].key,
            _ => step.key,
        };
        let counts = match &step.kind {
            Kind::Block(steps) => steps[0].repeat.is_none() && counting(&steps[0].kind),
            kind => counting(kind),
        };
        if counts && (self.safe.contains(&first) || place.alone) {
            condition = Expr::Body(first, times);
        } else if place.alone && self.once_in(5) {
            condition = Expr::Broken;
        }
        let short = place.alone && self.once_in(4);
        let max_iterations = if short { 1 } else { 5 };
        step.repeat = Some(Repeat::While { condition, max_iterations });
        // What a loop gives is a list.
        self.safe.remove(&step.key);
    }

    /// The body of a loop: one action, or a block.
    fn body(&mut self, step: &mut Step, inner: &Place) {
        if self.once_in(2) {
            if self.once_in(3) {
                step.kind = Kind::Fail(self.fail());
            } else {
                let condition = step.condition.take();
                self.echo(step, inner);
                step.condition = condition;
            }
            if matches!(step.repeat, Some(Repeat::Each { .. })) {
                self.safe.remove(&step.key);
            }
        } else {
            step.kind = Kind::Block(self.list(inner, 1).0);
        }
    }

    fn fail(&mut self) -> Fail {
        Fail {
            succeed_after: self.one_of(&[None, Some(1), Some(2), Some(2), Some(3)]),
            permanent: self.once_in(6),
            code: self.one_of(&["", "busy", "other"]),
            retry: self.once_in(2).then(|| self.retry()),
        }
    }

    fn retry(&mut self) -> Retry {
        let codes: [&[&str]; 4] = [&[], &[], &["busy"], &["busy", "other"]];
        Retry {
            max_attempts: u32::try_from(1 + self.below(4)).unwrap(),
            backoff: self.one_of(&["exponential", "linear", "constant"]),
            delay: self.odd(3),
            max_delay: self.once_in(3).then(|| self.odd(4)),
            retry_on: self.one_of(&codes).to_vec(),
            no_retry_on: if self.once_in(5) { vec!["other"] } else { Vec::new() },
        }
    }

    /// A whole number, and whether it is sure to be one.
    fn number(&mut self, place: &Place) -> (Expr, bool) {
        let choice = self.below(8);
        let settled = &place.settled;
        match choice {
            0 if place.item.is_some() => (Expr::Item(place.item.unwrap()), true),
            1 if place.item.is_some() => (Expr::Index, true),
            0..4 if place.iteration => (Expr::Iteration, true),
            4 if !settled.is_empty() => {
                (Expr::Of(settled[self.below(settled.len())], "attempts"), true)
            }
            5 if !settled.is_empty() => {
                let key = settled[self.below(settled.len())];
                match (self.safe.contains(&key), place.alone) {
                    (true, _) => (Expr::Of(key, "n"), true),
                    (false, true) => (Expr::Of(key, "n"), false),
                    (false, false) => (Expr::Literal(json!(5)), true),
                }
            }
            6 if place.alone && !place.before.is_empty() => (Expr::Bare("n"), false),
            6 if self.one_before(place) => (Expr::Bare("n"), true),
            _ => (Expr::Literal(json!(self.below(4))), true),
        }
    }

    /// Just one step is directly before, and has a number.
    fn one_before(&self, place: &Place) -> bool {
        place.before.len() == 1 && self.safe.contains(&place.before[0])
    }

    fn anything(&mut self, place: &Place) -> Option<Expr> {
        if place.settled.is_empty() || self.once_in(2) {
            return None;
        }
        let key = place.settled[self.below(place.settled.len())];
        Some(Expr::Of(key, self.one_of(&["output", "status", "success", "output"])))
    }

    fn condition(&mut self, place: &Place) -> Expr {
        match self.below(8) {
            0 => Expr::Literal(json!(true)),
            1 => Expr::Literal(json!(false)),
            2 | 3 if !place.settled.is_empty() => {
                let key = place.settled[self.below(place.settled.len())];
                Expr::Of(key, "success")
            }
            4 if !place.settled.is_empty() => {
                let key = place.settled[self.below(place.settled.len())];
                let word = self.one_of(&["success", "failure", "skipped"]);
                Expr::Not(Box::new(Expr::Is(Box::new(Expr::Of(key, "status")), word)))
            }
            5 if place.alone => match self.below(4) {
                0 => Expr::Broken,
                // A number is no condition.
                1 => Expr::Literal(json!(1)),
                2 => Expr::Or(Box::new(Expr::Broken), Box::new(Expr::Literal(json!(true)))),
                _ => Expr::And(Box::new(Expr::Broken), Box::new(Expr::Literal(json!(false)))),
            },
            _ => {
                let number = self.number(place).0;
                Expr::Below(Box::new(number), i64::try_from(self.below(3)).unwrap())
            }
        }
    }

    fn on_failure(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        for at in 0..1 + self.below(3) {
            let params =
                vec![("s".to_owned(), Expr::FailureStep), ("e".to_owned(), Expr::FailureError)];
            let kind = match self.below(3) {
                1 if at > 0 => Kind::Fail(self.fail()),
                2 => Kind::Wait(self.odd(3)),
                _ => Kind::Echo { params, compensate: false },
            };
            steps.push(Step {
                key: self.key(),
                named: true,
                kind,
                condition: None,
                repeat: None,
                held: self.once_in(4),
                checkpoint: false,
                deadline: None,
                depends_on: None,
                members: Vec::new(),
            });
        }
        steps
    }
}

/// The place of what stands in a block here.
fn deeper(place: &Place) -> Place {
    Place { depth: place.depth + 1, ..place.clone() }
}

/// Whether its `n` is the number of the iteration.
fn counting(kind: &Kind) -> bool {
    let Kind::Echo { params, .. } = kind else { return false };
    matches!(params[0].1, Expr::Iteration)
}

/// Gives every step its id: explicit ones first, then defaults in the order of the file.
fn name(steps: &[Step], on_failure: &[Step], ids: &mut [String]) {
    let mut all = Vec::new();
    walk(steps, &mut all);
    walk(on_failure, &mut all);
    let mut taken = BTreeSet::new();
    for step in all.iter().filter(|step| step.named) {
        let dash = if step.key % 5 == 4 { "-" } else { "" };
        let id = format!("s{dash}{}", step.key);
        taken.insert(id.clone());
        ids[step.key] = id;
    }
    for step in all.iter().filter(|step| !step.named) {
        let base = default_id(step);
        let numbered = (2..).map(|number| format!("{base}_{number}"));
        let mut candidates = std::iter::once(base.to_owned()).chain(numbered);
        let id = candidates.find(|id| !taken.contains(id)).unwrap();
        taken.insert(id.clone());
        ids[step.key] = id;
    }
}

fn walk<'s>(steps: &'s [Step], into: &mut Vec<&'s Step>) {
    for step in steps {
        into.push(step);
        match &step.kind {
            Kind::Block(steps) => walk(steps, into),
            Kind::Choice { then, otherwise } => {
                walk(then, into);
                walk(otherwise.as_deref().unwrap_or_default(), into);
            }
            _ => {}
        }
        walk(&step.members, into);
    }
}

fn default_id(step: &Step) -> &'static str {
    match (&step.kind, &step.repeat) {
        (Kind::Echo { .. }, _) => "echo",
        (Kind::Append, _) => "append",
        (Kind::Fail(_), _) => "fail",
        (_, Some(Repeat::Each { .. })) => "foreach",
        (_, Some(Repeat::While { .. })) => "while",
        (Kind::Choice { .. }, _) => "if",
        (Kind::Block(_), _) if step.condition.is_some() => "if",
        (Kind::Block(_), _) => "block",
        (Kind::Wait(_), _) => "wait",
        (Kind::WaitFor { .. }, _) => "wait_for",
        (Kind::Approve { .. }, _) => "approve",
    }
}
