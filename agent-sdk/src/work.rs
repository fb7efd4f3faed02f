//! Does one task: finds the action, fills in what is inherited, calls the handler and catches
//! its panic. It knows nothing of streams.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;

use crate::context::Context;
use crate::{Agent, Failure, input};

/// The code of a failure that was a panic.
pub(crate) const PANIC_CODE: &str = "panic";

/// Calls the handler of the context's action; gives the output as JSON text.
pub(crate) async fn perform(
    agent: &Agent,
    context: Context,
    input: String,
    inherited: Option<String>,
) -> Result<String, Failure> {
    let Some(action) = agent.find(context.action()) else {
        return Err(Failure::rejected(format!(
            "agent `{}` has no action `{}`",
            agent.agent_type(),
            context.action()
        ))
        .code("unknown_action")
        .no_effect());
    };
    let fields = agent.inherited_fields(action);
    let input = if fields.is_empty() {
        input
    } else {
        input::inherit(&input, &fields, inherited.as_deref(), context.is_undo())?
    };
    // The handler's own function may panic before it gives a future, so that is inside as well.
    let work = AssertUnwindSafe(async { (action.handler)(context, input).await });
    match work.catch_unwind().await {
        Ok(result) => result,
        Err(panic) => {
            Err(Failure::permanent(format!("the handler panicked: {}", text(&*panic)))
                .code(PANIC_CODE))
        }
    }
}

fn text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("with something that is no text")
}
