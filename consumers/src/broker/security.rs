//! How a connection is encrypted and authenticated: the same librdkafka properties that every process takes, read for
//! connections that librdkafka does not make.
//!
//! Supported: PLAINTEXT, SSL, SASL_PLAINTEXT and SASL_SSL, with SASL PLAIN. What is not is refused at the start and never
//! left out in silence.

use std::pin::Pin;

use anyhow::{Context, bail, ensure};
use kafka_protocol::messages::{SaslAuthenticateRequest, SaslHandshakeRequest};
use kafka_protocol::protocol::StrBytes;
use openssl::pkey::PKey;
use openssl::ssl::{SslConnector, SslFiletype, SslMethod, SslVerifyMode};
use rdkafka::ClientConfig;
use telemetry::Secret;
use tokio::net::TcpStream;

use super::wire::{Connection, Duplex, error_of};

/// Connection settings.
#[derive(Clone)]
pub(crate) struct Security {
    client_id: String,
    tls: Option<Tls>,
    sasl: Option<Plain>,
}

#[derive(Clone)]
struct Tls {
    connector: SslConnector,
    verify_host: bool,
}

#[derive(Clone, Debug)]
struct Plain {
    user: String,
    password: Secret,
}

/// Properties that have no meaning for these connections and leave none less secure.
const UNUSED_TLS: [&str; 2] = ["ssl.key.password", "ssl.ca.certificate.stores"];

impl Security {
    /// Reads librdkafka's properties; one by one, because a configuration as a whole shows no secrets.
    pub(crate) fn from_config(config: &ClientConfig) -> anyhow::Result<Self> {
        let get = |name: &str| config.get(name).filter(|value| !value.is_empty());
        let protocol = get("security.protocol").unwrap_or("plaintext").to_ascii_lowercase();
        let (tls, sasl) = match protocol.as_str() {
            "plaintext" => (false, false),
            "ssl" => (true, false),
            "sasl_plaintext" => (false, true),
            "sasl_ssl" => (true, true),
            other => bail!("security.protocol={other} is not known"),
        };
        Ok(Self {
            client_id: get("client.id").unwrap_or("order-consumer").to_owned(),
            tls: if tls { Some(Tls::from(&get)?) } else { None },
            sasl: if sasl { Some(Plain::from(&get)?) } else { None },
        })
    }

    /// What brokers call this client in their logs and quotas.
    pub(crate) fn client_id(&self) -> &str {
        &self.client_id
    }

    pub(crate) async fn connect(&self, address: &str) -> anyhow::Result<Box<dyn Duplex>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        let (host, _) = address.rsplit_once(':').context("an address without a port")?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let configuration = tls.connector.configure()?.verify_hostname(tls.verify_host);
        let mut stream = tokio_openssl::SslStream::new(configuration.into_ssl(host)?, stream)?;
        Pin::new(&mut stream).connect().await.context("the TLS handshake")?;
        Ok(Box::new(stream))
    }

    pub(crate) async fn authenticate(&self, connection: &mut Connection) -> anyhow::Result<()> {
        let Some(plain) = &self.sasl else { return Ok(()) };
        let mechanism = StrBytes::from_static_str("PLAIN");
        let offered =
            connection.call(&SaslHandshakeRequest::default().with_mechanism(mechanism)).await?;
        if let Some(error) = error_of(offered.error_code) {
            bail!(
                "the broker does not take SASL PLAIN: {error}; it takes {:?}",
                offered.mechanisms
            );
        }
        let token = format!("\0{}\0{}", plain.user, plain.password.expose());
        let request = SaslAuthenticateRequest::default().with_auth_bytes(token.into_bytes().into());
        let answer = connection.call(&request).await?;
        if let Some(error) = error_of(answer.error_code) {
            bail!("the broker did not authenticate user {}: {error}", plain.user);
        }
        Ok(())
    }
}

impl Tls {
    fn from<'a>(get: &impl Fn(&str) -> Option<&'a str>) -> anyhow::Result<Self> {
        for name in ["ssl.keystore.location", "ssl.ca.pem", "ssl.certificate.pem", "ssl.key.pem"] {
            ensure!(
                get(name).is_none(),
                "{name} is not supported here; use ssl.ca.location, ssl.certificate.location and ssl.key.location"
            );
        }
        ensure!(get(UNUSED_TLS[1]).is_none(), "{} is not supported here", UNUSED_TLS[1]);
        let mut connector = SslConnector::builder(SslMethod::tls_client())?;
        match get("ssl.ca.location") {
            None | Some("probe") => {}
            Some(path) => connector
                .set_ca_file(path)
                .with_context(|| format!("reading the certificates in ssl.ca.location={path}"))?,
        }
        if let Some(path) = get("ssl.certificate.location") {
            connector
                .set_certificate_chain_file(path)
                .with_context(|| format!("reading ssl.certificate.location={path}"))?;
        }
        if let Some(path) = get("ssl.key.location") {
            let read = || format!("reading ssl.key.location={path}");
            match get(UNUSED_TLS[0]) {
                None => {
                    connector.set_private_key_file(path, SslFiletype::PEM).with_context(read)?
                }
                Some(password) => {
                    let pem = std::fs::read(path).with_context(read)?;
                    let key = PKey::private_key_from_pem_passphrase(&pem, password.as_bytes());
                    connector.set_private_key(&*key.with_context(read)?).with_context(read)?;
                }
            }
        }
        if get("enable.ssl.certificate.verification") == Some("false") {
            connector.set_verify(SslVerifyMode::NONE);
        }
        let verify_host = get("ssl.endpoint.identification.algorithm") != Some("none");
        Ok(Self { connector: connector.build(), verify_host })
    }
}

impl Plain {
    fn from<'a>(get: &impl Fn(&str) -> Option<&'a str>) -> anyhow::Result<Self> {
        let mechanism = get("sasl.mechanism").or_else(|| get("sasl.mechanisms"));
        let mechanism = mechanism.unwrap_or("GSSAPI");
        ensure!(mechanism == "PLAIN", "only SASL PLAIN is supported here, not {mechanism}");
        Ok(Self {
            user: get("sasl.username").context("sasl.username is not set")?.to_owned(),
            password: Secret::new(get("sasl.password").context("sasl.password is not set")?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(properties: &[(&str, &str)]) -> anyhow::Result<Security> {
        let mut config = ClientConfig::new();
        for (name, value) in properties {
            config.set(*name, *value);
        }
        Security::from_config(&config)
    }

    #[test]
    fn nothing_said_means_plain_text() {
        let security = of(&[]).unwrap();

        assert!(security.tls.is_none() && security.sasl.is_none());
    }

    #[test]
    fn a_password_is_taken_and_not_shown() {
        let properties = [
            ("security.protocol", "SASL_PLAINTEXT"),
            ("sasl.mechanism", "PLAIN"),
            ("sasl.username", "lag"),
            ("sasl.password", "hush"),
        ];

        let plain = of(&properties).unwrap().sasl.unwrap();

        assert_eq!(plain.password.expose(), "hush");
        assert!(!format!("{plain:?}").contains("hush"));
    }

    #[test]
    fn what_is_not_supported_is_refused_and_not_left_out() {
        let scram = [("security.protocol", "sasl_plaintext"), ("sasl.mechanism", "SCRAM-SHA-512")];
        let keystore = [("security.protocol", "ssl"), ("ssl.keystore.location", "/k.p12")];
        let typo = [("security.protocol", "tls")];

        for (properties, word) in [
            (&scram[..], "SCRAM-SHA-512"),
            (&keystore[..], "ssl.keystore.location"),
            (&typo[..], "security.protocol=tls"),
        ] {
            let error = format!("{:#}", of(properties).err().unwrap());
            assert!(error.contains(word), "{error}");
        }
    }
}
