//! Bytes to definitions: a small grammar of everything that a run can do. Any bytes give one.

use serde_json::{Map, Value, json};

/// The bytes that choices are made by; when they are used up, every choice is the first.
pub(crate) struct Choices<'b> {
    bytes: &'b [u8],
}

impl<'b> Choices<'b> {
    pub(crate) fn new(bytes: &'b [u8]) -> Self {
        Self { bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// A number below `count`.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        let Some((&byte, rest)) = self.bytes.split_first() else { return 0 };
        self.bytes = rest;
        usize::from(byte) % count.max(1)
    }

    /// True once in `count` times.
    fn once_in(&mut self, count: usize) -> bool {
        self.below(count) == count - 1
    }

    pub(crate) fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// Steps of one definition, so that lives stay short.
const STEPS_MAX: usize = 24;
const NESTING_MAX: usize = 3;

/// A definition; JSON, which is YAML.
pub(crate) fn definition(choices: &mut Choices<'_>) -> String {
    let mut writer = Writer { choices, count: 0 };
    let mut whole = Map::new();
    whole.insert("name".to_owned(), json!("fuzz"));
    writer.whole(&mut whole);
    let steps = writer.steps(0);
    whole.insert("steps".to_owned(), steps);
    Value::Object(whole).to_string()
}

struct Writer<'c, 'b> {
    choices: &'c mut Choices<'b>,
    count: usize,
}

impl Writer<'_, '_> {
    fn whole(&mut self, whole: &mut Map<String, Value>) {
        let mut handling = Map::new();
        let rollback = self.choices.one_of(&["none", "to_start", "to_checkpoint"]);
        handling.insert("rollback".to_owned(), json!(rollback));
        handling.insert("scope".to_owned(), json!(self.choices.one_of(&["run", "branch"])));
        if self.choices.once_in(2) {
            let message = "${{ failure.step }}: ${{ failure.error }}";
            let log = json!({"id": "log", "action": "echo", "params": {"why": message}});
            let steps = match self.choices.below(3) {
                0 => json!([log]),
                1 => json!([log, {"id": "tell", "notify": {"channel": "ops", "message": message}}]),
                _ => json!([log, {"id": "sub", "steps": [{"id": "try", "action": "fail"}]}]),
            };
            handling.insert("on_failure".to_owned(), steps);
        }
        if self.choices.once_in(4) {
            handling.insert("retry".to_owned(), json!({"max_attempts": 2, "delay": "3s"}));
        }
        whole.insert("error_handling".to_owned(), Value::Object(handling));
        whole.insert("fail_fast".to_owned(), json!(self.choices.once_in(3)));
        if self.choices.once_in(6) {
            whole.insert("deadline".to_owned(), json!("40s"));
        }
        if self.choices.once_in(8) {
            let conflict = self.choices.one_of(&["queue", "cancel_running", "reject"]);
            let key = json!({"key": "whole", "limit": 1, "on_conflict": conflict});
            whole.insert("concurrency".to_owned(), key);
        }
        if self.choices.once_in(8) {
            whole.insert("rate_limit".to_owned(), json!({"key": "w", "limit": 1, "per": "1s"}));
        }
        if self.choices.once_in(4) {
            whole.insert("outputs".to_owned(), json!({"id": "run.id", "sum": "1 + 2"}));
        }
    }

    fn steps(&mut self, depth: usize) -> Value {
        let count = 1 + self.choices.below(4);
        let mut ids: Vec<String> = Vec::new();
        let mut steps = Vec::new();
        for _ in 0..count {
            let (id, mut step) = self.step(depth);
            if self.choices.once_in(3) {
                let wanted: Vec<&String> = ids.iter().filter(|_| self.choices.once_in(2)).collect();
                step.insert("depends_on".to_owned(), json!(wanted));
            }
            if self.choices.once_in(5) {
                let members: Vec<Value> = (0..=self.choices.below(2))
                    .map(|_| Value::Object(self.step(depth).1))
                    .collect();
                step.insert("parallel".to_owned(), json!(members));
            }
            ids.push(id);
            steps.push(Value::Object(step));
            if self.count >= STEPS_MAX {
                break;
            }
        }
        Value::Array(steps)
    }

    fn step(&mut self, depth: usize) -> (String, Map<String, Value>) {
        let id = format!("s{}", self.count);
        self.count += 1;
        let kinds = if depth < NESTING_MAX && self.count < STEPS_MAX { 14 } else { 8 };
        let mut step = match self.choices.below(kinds) {
            0..4 => self.action(),
            4 => json!({"wait": self.choices.one_of(&["7s", "1m", "${{ 3 }}"])}),
            5 => json!({"wait_for": {"signal": "go", "timeout": "20s"}}),
            6 => json!({"approve": {"message": "sure?", "timeout": "20s"}}),
            7 => match self.choices.one_of(&[0, 1]) {
                0 => json!({"notify": "ops"}),
                _ => json!({"workflow": "other", "params": {"a": 1}}),
            },
            8 => json!({"steps": self.steps(depth + 1)}),
            9 => json!({"foreach": self.items(), "max_parallel": 2,
                "steps": self.steps(depth + 1)}),
            10 => {
                let items = self.items();
                self.inline(json!({"foreach": items, "max_parallel": 1}))
            }
            11 => json!({"while": "iteration < 2", "max_iterations": 2,
                "steps": self.steps(depth + 1)}),
            12 => self.inline(json!({"while": "iteration < 2", "max_iterations": 3})),
            _ => {
                let then = self.steps(depth + 1);
                json!({"condition": self.condition(), "then": then,
                    "else": self.steps(depth + 1)})
            }
        };
        let fields = step.as_object_mut().unwrap();
        fields.insert("id".to_owned(), json!(id));
        self.common(fields);
        (id.clone(), fields.clone())
    }

    fn items(&mut self) -> &'static str {
        self.choices.one_of(&["[1, 2, 3]", "[]", "[[], {}]", "params", "[1, 2].map(x, x / 0)"])
    }

    fn condition(&mut self) -> &'static str {
        self.choices.one_of(&["true", "false", "run.id != ''", "1 / 0 > 1", "'text'"])
    }

    fn inline(&mut self, repeated: Value) -> Value {
        let mut step = self.action();
        let fields = step.as_object_mut().unwrap();
        fields.extend(repeated.as_object().unwrap().clone());
        step
    }

    fn action(&mut self) -> Value {
        let action = self.choices.one_of(&["echo", "append", "fail", "stay"]);
        let mut step = json!({"agent": "echo", "action": action, "params": {"a": 1}});
        let fields = step.as_object_mut().unwrap();
        if self.choices.once_in(4) {
            let policy = match self.choices.below(3) {
                0 => json!({"max_attempts": 3, "backoff": "linear", "delay": "2s"}),
                1 => json!({"max_attempts": 2, "no_retry_on": ["busy"]}),
                _ => json!({"max_attempts": 2, "retry_on": ["busy", "timeout"]}),
            };
            fields.insert("retry".to_owned(), policy);
        }
        if self.choices.once_in(6) {
            fields.insert("fallback".to_owned(), json!(["second", "third"]));
        }
        if self.choices.once_in(6) {
            fields.insert("delivery".to_owned(), json!("at_most_once"));
        }
        if self.choices.once_in(6) {
            let undo = json!({"action": "sweep", "params": {"broken": "${{ 1 / 0 }}"}});
            let undo = if self.choices.once_in(3) { undo } else { json!("sweep") };
            fields.insert("compensate".to_owned(), undo);
        }
        if self.choices.once_in(8) {
            fields.insert("params".to_owned(), json!({"v": "${{ run.started_at }}"}));
        }
        step
    }

    /// What may stand on every step.
    fn common(&mut self, fields: &mut Map<String, Value>) {
        if self.choices.once_in(6) && !fields.contains_key("condition") {
            fields.insert("condition".to_owned(), json!(self.condition()));
        }
        if self.choices.once_in(5) {
            fields.insert("continue_on_error".to_owned(), json!(true));
        }
        if self.choices.once_in(8) {
            fields.insert("deadline".to_owned(), json!("15s"));
        }
        if self.choices.once_in(8) {
            let conflict = self.choices.one_of(&["queue", "cancel_running", "reject"]);
            let key = json!({"key": "k", "limit": 1, "on_conflict": conflict});
            fields.insert("concurrency".to_owned(), key);
        }
        if self.choices.once_in(8) {
            fields.insert("rate_limit".to_owned(), json!({"key": "r", "limit": 1, "per": "1s"}));
        }
        if self.choices.once_in(6) {
            let name = format!("after-{}", fields["id"].as_str().unwrap());
            fields.insert("checkpoint".to_owned(), json!(name));
        }
    }
}
