//! Notifications: posts messages to the configured webhooks.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

/// How long one post may take.
const POST_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a post is tried.
const POST_ATTEMPTS: u32 = 3;

/// Posts messages to channels. Cheap to clone.
#[derive(Clone)]
pub struct Notifier {
    client: reqwest::Client,
    /// Webhooks by channel; `slack` is Slack-compatible, as all others are.
    webhooks: BTreeMap<String, String>,
}

impl std::fmt::Debug for Notifier {
    /// Webhook addresses are secrets: only the channels are shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let channels: Vec<&String> = self.webhooks.keys().collect();
        f.debug_struct("Notifier").field("channels", &channels).finish_non_exhaustive()
    }
}

impl Notifier {
    /// A notifier with these webhooks by channel.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(webhooks: BTreeMap<String, String>) -> Result<Self, String> {
        // The first who asks installs it; a second installation is refused and not needed.
        drop(rustls::crypto::ring::default_provider().install_default());
        let client = reqwest::Client::builder()
            .timeout(POST_TIMEOUT)
            .build()
            .map_err(|error| format!("no HTTP client can be made: {error}"))?;
        Ok(Self { client, webhooks })
    }

    /// Posts a message to the channels that are configured.
    ///
    /// Gives the channels that it went to; `None` when none is configured.
    ///
    /// # Errors
    /// With the channel and the cause when a configured channel did not take it.
    pub(crate) async fn send(
        &self,
        channels: &[String],
        message: &str,
    ) -> Result<Option<Vec<String>>, String> {
        let mut sent = Vec::new();
        for channel in channels {
            let Some(webhook) = self.webhooks.get(channel) else {
                tracing::info!(
                    %channel, %message,
                    "a notification was not sent: no webhook is configured for the channel"
                );
                continue;
            };
            self.post(webhook, message)
                .await
                .map_err(|why| format!("channel `{channel}`: {why}"))?;
            sent.push(channel.clone());
        }
        Ok((!sent.is_empty()).then_some(sent))
    }

    async fn post(&self, webhook: &str, message: &str) -> Result<(), String> {
        let mut why = String::new();
        for attempt in 1..=POST_ATTEMPTS {
            let posted = self.client.post(webhook).json(&json!({ "text": message })).send().await;
            why = match posted {
                Ok(answer) if answer.status().is_success() => return Ok(()),
                Ok(answer) if answer.status().is_client_error() => {
                    return Err(format!("the webhook answered {}", answer.status()));
                }
                Ok(answer) => format!("the webhook answered {}", answer.status()),
                // The address is a secret and stands in the error's own text.
                Err(error) => format!("the webhook was not reached: {}", error.without_url()),
            };
            if attempt < POST_ATTEMPTS {
                tokio::time::sleep(Duration::from_millis(200) * attempt).await;
            }
        }
        Err(why)
    }
}
