//! An address to measure, and whether it may be. It must not send anything.

use std::net::SocketAddr;

use http::Uri;

/// A server and a path on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Host and port as they go into the `Host` header.
    pub authority: String,
    /// Where to connect.
    pub address: SocketAddr,
    /// Path and query.
    pub path: String,
}

impl Target {
    /// Reads and resolves a URL. Only this machine may be measured unless others are allowed:
    /// a load test of somebody else's server is an attack.
    pub async fn resolve(url: &str, allow_remote: bool) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|error| format!("url: `{url}` is no URL: {error}"))?;
        if uri.scheme_str() != Some("http") {
            return Err(format!(
                "url: `{url}` does not begin with `http://`, which alone can be measured"
            ));
        }
        let authority = uri.authority().ok_or_else(|| format!("url: `{url}` names no host"))?;
        if authority.as_str().contains('@') {
            return Err("url: it must not hold a user or a password".to_owned());
        }
        let host = authority.host().trim_matches(['[', ']']);
        let port = authority.port_u16().unwrap_or(80);
        let found = tokio::net::lookup_host((host, port)).await;
        let addresses: Vec<SocketAddr> = found
            .map_err(|error| format!("url: the host `{host}` cannot be found: {error}"))?
            .collect();
        let is_local = addresses.iter().all(|address| address.ip().is_loopback());
        if !is_local && !allow_remote {
            return Err(format!(
                "url: `{host}` is not this machine; set `allow_remote: true` if its owner agrees"
            ));
        }
        // Most servers for this machine alone listen on IPv4.
        let address = addresses.iter().find(|address| address.is_ipv4());
        let address = address.or(addresses.first());
        let address = address.ok_or_else(|| format!("url: the host `{host}` has no address"))?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self { authority: authority.to_string(), address: *address, path: path.to_owned() })
    }

    /// The same server with another path.
    pub fn with_path(mut self, path: &str) -> Result<Self, String> {
        let parsed: Result<Uri, _> = path.parse();
        let is_path = parsed.is_ok_and(|uri| uri.authority().is_none());
        if !is_path || !path.starts_with('/') {
            return Err(format!("path: `{path}` is no path that begins with `/`"));
        }
        path.clone_into(&mut self.path);
        Ok(self)
    }

    /// The whole URL.
    pub fn url(&self) -> String {
        format!("http://{}{}", self.authority, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn this_machine_may_be_measured() {
        let target = Target::resolve("http://127.0.0.1:81/a?b=1", false).await.unwrap();
        assert_eq!(target.address, "127.0.0.1:81".parse().unwrap());
        assert_eq!(target.url(), "http://127.0.0.1:81/a?b=1");
        let other = target.with_path("/c").unwrap();
        assert_eq!(other.url(), "http://127.0.0.1:81/c");
        assert!(other.with_path("c").is_err());
        let local = Target::resolve("http://localhost", false).await.unwrap();
        assert_eq!((local.path.as_str(), local.address.port()), ("/", 80));
        assert!(Target::resolve("http://[::1]:82", false).await.is_ok());
    }

    #[tokio::test]
    async fn what_may_not_be_measured_is_refused_by_name() {
        for url in [
            "http://192.0.2.1/",
            "https://127.0.0.1/",
            "http://a:b@127.0.0.1/",
            "/only/a/path",
            "no url",
        ] {
            let error = Target::resolve(url, false).await.unwrap_err();
            assert!(error.starts_with("url: "), "{error}");
        }
        assert!(Target::resolve("http://192.0.2.1/", true).await.is_ok());
    }
}
