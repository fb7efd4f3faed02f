//! Handlers called in process: inputs, inheritance, panics, undo.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use agent_sdk::testing::Harness;
use agent_sdk::{
    Action, Agent, CancellationToken, Context, Failure, Handler, JsonSchema, Kind, Level, Undo,
    UndoInput, Usage,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
struct Place {
    project_dir: String,
    #[serde(default)]
    items: Vec<Item>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
struct Item {
    count: u32,
}

async fn place(_: Context, input: Place) -> Result<Place, Failure> {
    Ok(input)
}

async fn unplace(context: Context, input: UndoInput<Place, Place>) -> Result<Value, Failure> {
    Ok(json!({
        "dir": input.params.project_dir,
        "had_output": input.output.is_some(),
        "key": context.idempotency_key(),
        "is_undo": context.is_undo(),
    }))
}

async fn crash(_: Context, _: Value) -> Result<Value, Failure> {
    panic!("out of {}", "cheese")
}

async fn tell(context: Context, _: Value) -> Result<u32, Failure> {
    context.progress(0.5, "half way");
    context.log(Level::Info, "a line");
    context.output_chunk(&json!("part"))?;
    context.checkpoint(&json!({"at": 3}))?;
    context.emit("news", &json!([1]), None)?;
    context.usage(Usage { input_tokens: 2, output_tokens: 3, cost: 0.5 });
    context.usage(Usage { input_tokens: 1, ..Usage::default() });
    context.confidence(0.9);
    Ok(context.last_checkpoint::<u32>()?.unwrap_or(0))
}

async fn wait(context: Context, _: Value) -> Result<Value, Failure> {
    context.cancelled().cancelled().await;
    Err(Failure::cancelled("nothing is left behind"))
}

async fn fail_with_anyhow(_: Context, kind: String) -> Result<Value, Failure> {
    fn inner(kind: &str) -> anyhow::Result<Value> {
        match kind {
            "failure" => Err(Failure::permanent("it is so").code("so"))?,
            _ => anyhow::bail!("something went wrong"),
        }
    }
    Ok(inner(&kind)?)
}

struct Counter(AtomicU32);

impl Handler<Value, u32> for Counter {
    async fn handle(&self, _: Context, _: Value) -> Result<u32, Failure> {
        Ok(self.0.fetch_add(1, Ordering::SeqCst) + 1)
    }
}

fn harness() -> Harness {
    Harness::new(
        Agent::new("tester", "0")
            .action(
                Action::new("place", "Says where.", place)
                    .inherits(["project_dir"])
                    .undo(Undo::action("unplace")),
            )
            .action(Action::new("unplace", "Takes it back.", unplace))
            .action(Action::new("crash", "Panics.", crash))
            .action(Action::new("tell", "Tells.", tell))
            .action(Action::new("wait", "Waits.", wait))
            .action(Action::new("fail", "Fails.", fail_with_anyhow))
            .action(Action::new("count", "Counts.", Counter(AtomicU32::new(0))))
            .action(Action::new("double", "Doubles.", |_: Context, number: i64| async move {
                Ok(number * 2)
            })),
    )
}

#[tokio::test]
async fn a_field_that_is_left_out_is_inherited() {
    let call = harness();
    let call =
        call.task("place").inherited(json!({"project_dir": "/there", "items": [{"count": 1}]}));
    let output = call.run().await.result.unwrap();
    assert_eq!(output, json!({"project_dir": "/there", "items": []}), "and no other field");
}

#[tokio::test]
async fn a_field_that_is_given_is_not_inherited() {
    let harness = harness();
    let call = harness.task("place").params(json!({"project_dir": "/here"}));
    let output = call.inherited(json!({"project_dir": "/there"})).run().await.result.unwrap();
    assert_eq!(output["project_dir"], "/here");
}

#[tokio::test]
async fn a_missing_field_is_named() {
    let failure = harness().call("place", json!({})).await.unwrap_err();
    assert_eq!(failure.kind(), Kind::Rejected);
    assert_eq!(failure.message(), "the input is wrong: missing field `project_dir`");
    assert!(failure.had_no_effect());
}

#[tokio::test]
async fn a_wrong_field_deep_inside_is_named_by_its_path() {
    let params = json!({"project_dir": "/", "items": [{"count": 1}, {"count": -1}]});
    let failure = harness().call("place", params).await.unwrap_err();
    assert_eq!(
        failure.message(),
        "the input is wrong at `items[1].count`: invalid value: integer `-1`, expected u32"
    );
}

#[tokio::test]
async fn an_undo_gets_params_output_and_the_same_key() {
    let harness = harness();
    let params = json!({"project_dir": "/here"});
    let output = harness.call("place", &params).await.unwrap();
    let undone = harness.call_undo("place", &params, &output).await.unwrap();
    assert_eq!(
        undone,
        json!({"dir": "/here", "had_output": true, "key": "key-1", "is_undo": true})
    );
}

#[tokio::test]
async fn the_params_of_an_undo_inherit_as_those_of_the_do_did() {
    let harness = harness();
    let from_output = json!({"project_dir": "/from-output"});
    let undone = harness.call_undo("place", json!({}), from_output).await.unwrap();
    assert_eq!(undone["dir"], "/from-output");
    let call = harness.undo_task("place", json!({}), Value::Null);
    let undone = call.inherited(json!({"project_dir": "/before"})).run().await.result.unwrap();
    assert_eq!(undone["dir"], "/before");
    assert_eq!(undone["had_output"], false);
}

#[tokio::test]
async fn a_panic_is_a_permanent_failure_with_its_text() {
    let failure = harness().call("crash", json!(null)).await.unwrap_err();
    assert_eq!(failure.kind(), Kind::Permanent);
    assert_eq!(failure.message(), "the handler panicked: out of cheese");
    assert_eq!(failure.code_text(), "panic");
}

#[tokio::test]
async fn what_a_handler_tells_is_heard() {
    let harness = harness();
    let outcome = harness.task("tell").last_checkpoint(7).run().await;
    assert_eq!(outcome.result.unwrap(), json!(7));
    assert_eq!(outcome.progress, [(0.5, "half way".to_owned())]);
    assert_eq!(outcome.logs, [("info".to_owned(), "a line".to_owned())]);
    assert_eq!(outcome.chunks, [json!("part")]);
    assert_eq!(outcome.checkpoint, Some(json!({"at": 3})));
    assert_eq!(outcome.emitted, [("news".to_owned(), json!([1]))]);
    let usage = outcome.usage.unwrap();
    assert_eq!((usage.input_tokens, usage.output_tokens), (3, 3));
    assert_eq!(outcome.confidence, Some(0.9));
}

#[tokio::test]
async fn a_handler_hears_that_it_is_cancelled() {
    let harness = harness();
    let token = CancellationToken::new();
    token.cancel();
    let failure = harness.task("wait").cancelled_by(token).run().await.result.unwrap_err();
    assert_eq!(failure.kind(), Kind::Cancelled);
}

#[tokio::test]
async fn a_failure_comes_out_of_anyhow_as_it_went_in() {
    let harness = harness();
    let failure = harness.call("fail", "failure").await.unwrap_err();
    assert_eq!((failure.kind(), failure.code_text()), (Kind::Permanent, "so"));
    let failure = harness.call("fail", "other").await.unwrap_err();
    assert_eq!((failure.kind(), failure.message()), (Kind::Retryable, "something went wrong"));
}

#[tokio::test]
async fn handlers_keep_state_and_closures_are_handlers() {
    let harness = harness();
    assert_eq!(harness.call("count", json!({})).await.unwrap(), json!(1));
    assert_eq!(harness.call("count", json!({})).await.unwrap(), json!(2));
    assert_eq!(harness.call("double", json!(21)).await.unwrap(), json!(42));
}

#[tokio::test]
async fn an_action_that_is_not_there_is_rejected() {
    let failure = harness().call("nothing", json!({})).await.unwrap_err();
    assert_eq!(failure.message(), "agent `tester` has no action `nothing`");
}

#[test]
fn a_card_says_what_an_undo_inherits_from_what_it_undoes() {
    let agent = Agent::new("a", "0")
        .action(Action::new("place", "", place).inherits(["project_dir"]).undo(Undo::action("un")))
        .action(Action::new("un", "", unplace).expected_duration(Duration::from_secs(1)));
    assert_eq!(agent.card().actions[1].inherits, ["project_dir"]);
}

#[test]
fn an_agent_that_is_put_together_wrongly_says_so() {
    let wrong = |agent: Agent| agent.check().unwrap_err().to_string();
    assert!(wrong(Agent::new("Bad Name", "0")).contains("`Bad Name` is no agent type"));
    assert!(wrong(Agent::new("a", "0").slots(0)).contains("no slots"));
    let twice = Agent::new("a", "0")
        .action(Action::new("x", "", crash))
        .action(Action::new("x", "", crash));
    assert!(wrong(twice).contains("two actions `x`"));
    let undone = Agent::new("a", "0").action(Action::new("x", "", crash).undo(Undo::action("y")));
    assert!(wrong(undone).contains("undone by `y`, which it does not have"));
}
