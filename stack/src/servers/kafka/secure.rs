//! A second listener of each broker: TLS with certificates on both sides, and SASL PLAIN on top. Only for who asks for it:
//! what brokers say to each other, and to this stack, stays on the first one.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Whom brokers know on this listener.
pub(super) const USER: &str = "client";

/// What the listener needs; `folder` is as [`crate::StackOptions::kafka_secure`] says.
pub(super) struct Secure<'a> {
    pub(super) port: u16,
    pub(super) client_port: u16,
    pub(super) controller_port: u16,
    pub(super) folder: &'a Path,
}

impl Secure<'_> {
    /// Lines for the end of `server.properties`, where they win over those before.
    pub(super) fn render(&self) -> Result<String> {
        let Self { port, client_port, controller_port, folder } = self;
        let password = folder.join("password");
        let password = fs::read_to_string(&password)
            .with_context(|| format!("read {}", password.display()))?;
        let password = password.trim();
        let [broker, authority] = ["broker.pem", "ca.pem"].map(|file| folder.join(file));
        let (broker, authority) = (broker.display(), authority.display());
        Ok(format!(
            "
listener.security.protocol.map=CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL
listeners=CLIENT://127.0.0.1:{client_port},CONTROLLER://127.0.0.1:{controller_port},SECURE://127.0.0.1:{port}
advertised.listeners=CLIENT://127.0.0.1:{client_port},CONTROLLER://127.0.0.1:{controller_port},SECURE://127.0.0.1:{port}
listener.name.secure.ssl.keystore.type=PEM
listener.name.secure.ssl.keystore.location={broker}
listener.name.secure.ssl.truststore.type=PEM
listener.name.secure.ssl.truststore.location={authority}
listener.name.secure.ssl.client.auth=required
listener.name.secure.sasl.enabled.mechanisms=PLAIN
listener.name.secure.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}=\"{password}\";
"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_listener_wants_a_certificate_and_a_password() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("password"), "hush\n").unwrap();
        let secure = Secure { port: 3, client_port: 1, controller_port: 2, folder: folder.path() };

        let text = secure.render().unwrap();

        assert!(
            text.contains(
                "listeners=CLIENT://127.0.0.1:1,CONTROLLER://127.0.0.1:2,SECURE://127.0.0.1:3\n"
            ),
            "{text}"
        );
        assert!(text.contains("\nlistener.name.secure.ssl.client.auth=required\n"), "{text}");
        assert!(text.contains(" user_client=\"hush\";\n"), "{text}");
    }

    #[test]
    fn without_a_password_no_broker_starts() {
        let folder = tempfile::tempdir().unwrap();
        let secure = Secure { port: 3, client_port: 1, controller_port: 2, folder: folder.path() };

        assert!(secure.render().is_err());
    }
}
