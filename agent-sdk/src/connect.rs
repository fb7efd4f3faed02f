//! Ways to the control plane: addresses, or a function that gives a channel.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tonic::transport::{Channel, Endpoint};

use crate::Error;
use crate::limits::CONNECT_TIMEOUT;

/// The window of a stream and of a connection: a payload of the largest size fits at once.
const WINDOW_BYTES: u32 = 8 * 1024 * 1024;

type Opened = BoxFuture<'static, Result<Channel, String>>;

/// One way to the control plane.
#[derive(Clone)]
pub(crate) struct Way {
    pub(crate) name: String,
    open: Arc<dyn Fn() -> Opened + Send + Sync>,
}

impl Way {
    pub(crate) fn by_address(address: &str) -> Result<Self, Error> {
        let endpoint = endpoint(address)?;
        let open = move || -> Opened {
            let endpoint = endpoint.clone();
            Box::pin(async move { endpoint.connect().await.map_err(|error| innermost(&error)) })
        };
        Ok(Self { name: address.to_owned(), open: Arc::new(open) })
    }

    pub(crate) fn by_factory<Factory, Opening, E>(factory: Factory) -> Self
    where
        Factory: Fn() -> Opening + Send + Sync + 'static,
        Opening: Future<Output = Result<Channel, E>> + Send + 'static,
        E: Display,
    {
        let open = move || -> Opened {
            let opening = factory();
            Box::pin(async move { opening.await.map_err(|error| error.to_string()) })
        };
        Self { name: "in process".to_owned(), open: Arc::new(open) }
    }

    pub(crate) async fn open(&self, within: Duration) -> Result<Channel, String> {
        match tokio::time::timeout(within, (self.open)()).await {
            Ok(opened) => opened,
            Err(_) => Err(format!("no connection within {within:?}")),
        }
    }
}

/// Checks an address.
pub(crate) fn endpoint(address: &str) -> Result<Endpoint, Error> {
    let wrong = |reason: String| Error::Address { address: address.to_owned(), reason };
    let url =
        if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    if !url.starts_with("http://") {
        return Err(wrong("only http is spoken".to_owned()));
    }
    let endpoint = Endpoint::from_shared(url).map_err(|error| wrong(error.to_string()))?;
    if endpoint.uri().host().is_none_or(str::is_empty) {
        return Err(wrong("it names no host".to_owned()));
    }
    Ok(endpoint
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_TIMEOUT)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES))
}

/// The innermost cause says what happened; those around it say that something did.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
