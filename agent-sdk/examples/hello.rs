//! An agent that greets. Start a control plane, then `cargo run -p agent-sdk --example hello`.
use agent_sdk::{Action, Agent, Context, Failure, JsonSchema, Undo};
use serde::{Deserialize, Serialize};

#[derive(Deserialize, JsonSchema)]
struct Greet {
    name: String,
}
#[derive(Serialize, JsonSchema)]
struct Greeting {
    text: String,
}

async fn greet(_: Context, input: Greet) -> Result<Greeting, Failure> {
    Ok(Greeting { text: format!("Hello, {}!", input.name) })
}

pub(crate) fn agent() -> Agent {
    let greet = Action::new("greet", "Greets someone by name.", greet).undo(Undo::Nothing);
    Agent::new("greeter", "1.0.0").describe("Greets people.").action(greet)
}
#[tokio::main]
async fn main() -> anyhow::Result<()> {
    agent().run_from_env().await
}
