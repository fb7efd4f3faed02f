//! Text that must not be shown: it prints itself masked, whoever prints it.

use std::fmt;

/// A secret text, an address as a rule.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text secret.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one who needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A database's address without its password.
pub(super) fn mask_database(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    // Options may hold a password too.
    let rest = match rest.split_once('?') {
        Some((rest, _)) => format!("{rest}?***"),
        None => rest.to_owned(),
    };
    match rest.rsplit_once('@') {
        Some((user, host)) => {
            let user = match user.split_once(':') {
                Some((name, _)) => format!("{name}:***"),
                None => user.to_owned(),
            };
            format!("{scheme}://{user}@{host}")
        }
        None => format!("{scheme}://{rest}"),
    }
}

/// A webhook's address up to its host: the rest is what only its owner knows.
pub(super) fn mask_webhook(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return "***".to_owned() };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = host.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}/***")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_and_tokens_are_masked() {
        for (url, shown) in [
            ("postgres://me:pa:ss@host/db", "postgres://me:***@host/db"),
            ("postgres://me:p@ss@host/db", "postgres://me:***@host/db"),
            ("postgres://me@host/db", "postgres://me@host/db"),
            ("postgres://host/db?password=x", "postgres://host/db?***"),
            ("sqlite:/tmp/a.db", "sqlite:/tmp/a.db"),
        ] {
            assert_eq!(mask_database(url), shown);
        }
        assert_eq!(mask_webhook("https://h.example/T0/B1/xyz"), "https://h.example/***");
        assert_eq!(mask_webhook("https://u:p@h.example?token=1"), "https://h.example/***");
        assert_eq!(mask_webhook("nonsense"), "***");
        assert_eq!(format!("{:?}", Secret::new("x")), "***");
    }
}
