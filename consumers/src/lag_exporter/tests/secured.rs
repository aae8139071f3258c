//! A broker that takes only who shows a certificate and knows a password: with both it is read, without one it says what
//! is wrong.

use std::path::Path;
use std::process::Command;

use stack::StackOptions;
use tempfile::TempDir;

use super::*;

/// A broker of its own, and the properties of a client that it lets in.
struct Guarded {
    brokers: String,
    folder: TempDir,
    // Goes down before its folder is removed.
    _stack: Stack,
}

impl Guarded {
    async fn up() -> Self {
        let folder = tempfile::tempdir().unwrap();
        certificates(folder.path());
        let options = StackOptions {
            only: vec!["kafka".to_owned()],
            kafka_secure: Some(folder.path().to_owned()),
            ..StackOptions::for_tests(folder.path().join("stack"))
        };
        let stack =
            tokio::task::spawn_blocking(move || Stack::up(&options).unwrap()).await.unwrap();
        let environment = stack.env().unwrap().into_iter();
        let (_, brokers) =
            environment.into_iter().find(|(name, _)| *name == "KAFKA_SECURE_BROKERS").unwrap();
        Self { brokers, folder, _stack: stack }
    }

    /// A client whose properties differ in one; without a certificate it has no key either, or the library refuses it.
    fn client(&self, name: &str, value: Option<&str>) -> World {
        let path = |file: &str| self.folder.path().join(file).display().to_string();
        let mut properties = BTreeMap::from([
            ("security.protocol", "sasl_ssl".to_owned()),
            ("ssl.ca.location", path("ca.pem")),
            ("ssl.certificate.location", path("client-certificate.pem")),
            ("ssl.key.location", path("client-key.pem")),
            ("sasl.mechanism", "PLAIN".to_owned()),
            ("sasl.username", "client".to_owned()),
            ("sasl.password", "hush".to_owned()),
        ]);
        match value {
            Some(value) => drop(properties.insert(name, value.to_owned())),
            None => drop(properties.remove(name)),
        }
        if !properties.contains_key("ssl.certificate.location") {
            properties.remove("ssl.key.location");
        }
        let lines: String =
            properties.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        let file = self.folder.path().join("client.properties");
        std::fs::write(&file, lines).unwrap();
        World::on(&self.brokers, &["--kafka-config", file.to_str().unwrap()], None)
    }
}

#[tokio::test]
async fn a_broker_is_read_with_a_certificate_and_a_password_and_not_without() {
    let guarded = Guarded::up().await;
    let mut world = guarded.client("", None);
    let (topic, group) = (world.topic("t", 1).await, world.named("g"));
    world.write(&topic, 0, 10).await;
    world.commit(&group, &topic, 4).await;

    assert_eq!(lag_of(&world.look().await, &group, &topic), (6, Some(5.0)));

    let other = guarded.folder.path().join("stranger-certificate.pem").display().to_string();
    for (property, value, complaint) in [
        ("sasl.password", Some("guessed"), "did not authenticate user client"),
        // The library of the broker ends the connection in the handshake or behind it.
        ("ssl.certificate.location", None, "broker"),
        ("ssl.ca.location", Some(other.as_str()), "TLS handshake"),
        ("security.protocol", Some("plaintext"), "broker"),
    ] {
        let mut refused = guarded.client(property, value);
        let refreshed = refused.observer.refresh(refused.now).await;
        let said = refreshed.cluster_failures.join("; ");
        assert!(refreshed.picture.is_none(), "{property}={value:?} was let in");
        assert!(said.contains(complaint) && !said.contains("guessed"), "{property}: {said}");
    }
    tokio::task::spawn_blocking(move || drop(guarded)).await.unwrap();
}

/// An authority with what it signed for broker and client, and somebody whom nobody knows.
fn certificates(folder: &Path) {
    std::fs::write(folder.join("password"), "hush").unwrap();
    std::fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    let openssl = |arguments: &str| {
        let mut command = Command::new("openssl");
        let output = command.current_dir(folder).args(arguments.split(' ')).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {arguments}: {said}");
    };
    let key = "-newkey rsa:2048 -nodes -keyout";
    for (name, file) in [("ca", "ca.pem"), ("stranger", "stranger-certificate.pem")] {
        openssl(&format!("req -x509 -days 2 -subj /CN={name} {key} {name}-key.pem -out {file}"));
    }
    for name in ["broker", "client"] {
        openssl(&format!("req -subj /CN={name} {key} {name}-key.pem -out {name}-request.pem"));
        openssl(&format!(
            "x509 -req -days 2 -CA ca.pem -CAkey ca-key.pem -CAcreateserial -extfile names -in {name}-request.pem -out {name}-certificate.pem"
        ));
    }
    let [key, certificate] = ["broker-key.pem", "broker-certificate.pem"]
        .map(|file| std::fs::read_to_string(folder.join(file)).unwrap());
    std::fs::write(folder.join("broker.pem"), key + &certificate).unwrap();
}
