//! What does the work of an action: an async function, a closure, or a type of one's own that
//! keeps state. Here typed handlers become ones that take and give JSON text.

use std::sync::Arc;

use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Context, Failure, input};

/// Does the work of one action.
///
/// Every `async fn(Context, Input) -> Result<Output, Failure>` is a handler, and so is a closure
/// of that form. Implement it on a type of your own when the handler keeps state.
pub trait Handler<Input, Output>: Send + Sync + 'static {
    /// Does one task.
    fn handle(
        &self,
        context: Context,
        input: Input,
    ) -> impl Future<Output = Result<Output, Failure>> + Send;
}

impl<Function, Work, Input, Output> Handler<Input, Output> for Function
where
    Function: Fn(Context, Input) -> Work + Send + Sync + 'static,
    Work: Future<Output = Result<Output, Failure>> + Send,
    Input: Send,
{
    fn handle(
        &self,
        context: Context,
        input: Input,
    ) -> impl Future<Output = Result<Output, Failure>> + Send {
        self(context, input)
    }
}

/// A handler from JSON text to JSON text.
pub(crate) type Erased =
    Arc<dyn Fn(Context, String) -> BoxFuture<'static, Result<String, Failure>> + Send + Sync>;

pub(crate) fn erase<Input, Output, H>(handler: H) -> Erased
where
    H: Handler<Input, Output>,
    Input: DeserializeOwned + JsonSchema + Send + 'static,
    Output: Serialize + JsonSchema + Send + 'static,
{
    let handler = Arc::new(handler);
    Arc::new(move |context, text| {
        let handler = Arc::clone(&handler);
        Box::pin(async move {
            let input = input::parse::<Input>(&text)?;
            let output = handler.handle(context, input).await?;
            serde_json::to_string(&output).map_err(|error| {
                Failure::permanent(format!("the output cannot be written as JSON: {error}"))
            })
        })
    })
}
