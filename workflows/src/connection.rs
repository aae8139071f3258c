//! How a process reaches Temporal: by the variables and the file that every Temporal tool understands
//! (`TEMPORAL_ADDRESS`, `TEMPORAL_NAMESPACE`, `TEMPORAL_API_KEY`, `TEMPORAL_TLS*`, `TEMPORAL_CONFIG_FILE`,
//! `TEMPORAL_PROFILE`, `temporal.toml`). Never shows a key or a certificate.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, anyhow};
use temporalio_client::envconfig::{
    ConfigError, DataSource, LoadClientConfigProfileOptions as Sources,
};
use temporalio_client::{Client, ClientOptions, ConnectionOptions};
use temporalio_common::telemetry::metrics::TemporalMeter;

/// A server that accepts no connection in this time is as good as away.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Where Temporal is and who we are there.
#[derive(Clone)]
pub struct Settings {
    connection: ConnectionOptions,
    client: ClientOptions,
}

impl Settings {
    /// From the environment and the configuration file.
    pub fn load() -> anyhow::Result<Self> {
        Self::from_sources(Sources::default())
    }

    /// From the text of a `temporal.toml` alone, its default profile: for processes with a configuration of their own.
    pub fn from_toml(text: &str) -> anyhow::Result<Self> {
        let source = DataSource::Data(text.as_bytes().to_vec());
        Self::from_sources(
            Sources::builder()
                .config_source(source)
                .config_file_strict(true)
                .disable_env(true)
                .build(),
        )
    }

    fn from_sources(sources: Sources) -> anyhow::Result<Self> {
        let (mut connection, client) = ClientOptions::load_from_config(sources)
            .map_err(without_secrets)
            .context("reading Temporal's settings (TEMPORAL_* variables, temporal.toml)")?;
        connection.connect_timeout = Some(CONNECT_LIMIT);
        Ok(Self { connection, client })
    }

    /// For messages.
    pub fn address(&self) -> String {
        let target = &self.connection.target;
        let port = target.port_or_known_default().unwrap_or_default();
        format!("{}:{port}", target.host_str().unwrap_or_default())
    }

    /// Everything of ours is in this namespace.
    pub fn namespace(&self) -> &str {
        &self.client.namespace
    }

    /// Whether the connection is encrypted.
    pub fn tls(&self) -> bool {
        self.connection.tls_options.is_some() || self.connection.target.scheme() == "https"
    }

    /// Requests of clients connected by these settings are counted by `meter`.
    pub(crate) fn counted_by(mut self, meter: Option<TemporalMeter>) -> Self {
        self.connection.metrics_meter = meter;
        self
    }

    /// Connects; an error when the server does not answer.
    pub async fn connect(&self) -> anyhow::Result<Client> {
        let connecting = Client::connect(self.connection.clone(), self.client.clone());
        let connected = tokio::time::timeout(CONNECT_LIMIT, connecting).await;
        let why = match connected {
            Ok(Ok(client)) => return Ok(client),
            Ok(Err(error)) => anyhow!("{error}"),
            Err(_) => anyhow!("no answer in {} s", CONNECT_LIMIT.as_secs()),
        };
        let tls = if self.tls() { "with" } else { "without" };
        Err(why.context(format!(
            "cannot reach Temporal at {} {tls} TLS (TEMPORAL_ADDRESS, TEMPORAL_TLS)",
            self.address()
        )))
    }
}

/// A parser quotes the line that it stumbles over, and that line may be the key.
fn without_secrets(error: ConfigError) -> anyhow::Error {
    match error {
        ConfigError::ProfileNotFound(profile) => anyhow!("there is no profile {profile}"),
        ConfigError::InvalidConfig(why) => anyhow!("{why}"),
        ConfigError::LoadError(error) => match error.downcast_ref::<std::io::Error>() {
            Some(error) => anyhow!("a file cannot be read: {error}"),
            None => anyhow!("the file is not the TOML of a temporal.toml"),
        },
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("address", &self.address())
            .field("namespace", &self.namespace())
            .field("tls", &self.tls())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_key_turns_tls_on_and_is_never_shown() {
        let text = "[profile.default]\naddress = \"a.example:7233\"\nnamespace = \"shop\"\napi_key = \"s3cret\"";

        let settings = Settings::from_toml(text).unwrap();

        let shown = format!("{settings:?}");
        assert!(settings.tls(), "{shown}");
        assert_eq!((settings.address().as_str(), settings.namespace()), ("a.example:7233", "shop"));
        assert!(!shown.contains("s3cret"), "{shown}");
    }

    #[test]
    fn a_broken_file_is_reported_without_its_text() {
        let error = Settings::from_toml("[profile.default]\napi_key = s3cret").unwrap_err();

        let said = format!("{error:#} {error:?}");
        assert!(said.contains("temporal.toml") && !said.contains("s3cret"), "{said}");
    }

    #[test]
    fn a_certificate_without_its_key_is_refused() {
        let text = "[profile.default.tls]\nclient_cert_data = \"x\"";

        assert!(Settings::from_toml(text).is_err());
    }

    #[tokio::test]
    async fn a_server_that_is_away_is_named() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let text =
            format!("[profile.default]\naddress = \"127.0.0.1:{port}\"\napi_key = \"s3cret\"");
        let settings = Settings::from_toml(&text).unwrap();

        let error = settings.connect().await.map(drop).unwrap_err();

        let said = format!("{error:#}");
        assert!(said.contains(&format!("127.0.0.1:{port} with TLS")), "{said}");
        assert!(!said.contains("s3cret"), "{said}");
    }
}
