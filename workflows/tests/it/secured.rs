//! The connection through TLS: with the right certificates on both sides it works, with others it says what is wrong.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use workflows::{FactKind, Settings, Supervisor, SupervisorOptions, Told};

use crate::bench::{Bench, PATIENT, fact, temporal_address};

const KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

/// An authority, and what it signed: `ca`, `server` and `client`, each a `.pem` and a `.key`.
struct Certificates(TempDir);

impl Certificates {
    fn new() -> Self {
        let made = Self(TempDir::new().unwrap());
        let folder = made.0.path();
        openssl(folder, &["req", "-x509", "-days", "2", "-subj", "/CN=authority"], "ca", &KEY);
        std::fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1\n").unwrap();
        for name in ["server", "client"] {
            let subject = format!("/CN={name}");
            openssl(folder, &["req", "-subj", &subject], name, &KEY);
            let (request, signed) = (format!("{name}.pem"), format!("{name}-signed.pem"));
            let sign = ["x509", "-req", "-days", "2", "-CA", "ca.pem", "-CAkey", "ca.key"];
            let mut command = Command::new("openssl");
            command.current_dir(folder).args(sign).args(["-CAcreateserial", "-extfile", "names"]);
            run(command.args(["-in", &request, "-out", &signed]));
            std::fs::rename(folder.join(&signed), folder.join(&request)).unwrap();
        }
        made
    }

    fn path(&self, file: &str) -> String {
        self.0.path().join(file).display().to_string()
    }

    fn read(&self, name: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let certificate = CertificateDer::from_pem_file(self.path(&format!("{name}.pem")));
        let key = PrivateKeyDer::from_pem_file(self.path(&format!("{name}.key")));
        (certificate.unwrap(), key.unwrap())
    }
}

/// A new key, and a certificate or the request for one.
fn openssl(folder: &Path, what: &[&str], name: &str, key: &[&str]) {
    let (out, secret) = (format!("{name}.pem"), format!("{name}.key"));
    let mut command = Command::new("openssl");
    command.current_dir(folder).args(what).args(key);
    run(command.args(["-keyout", &secret, "-out", &out]));
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// In front of Temporal: takes only who shows a certificate of `certificates`.
async fn front(certificates: &Certificates) -> String {
    let (authority, _) = certificates.read("ca");
    let mut roots = RootCertStore::empty();
    roots.add(authority).unwrap();
    let provider = Arc::new(ring::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let (certificate, key) = certificates.read("server");
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients.build().unwrap())
        .with_single_cert(vec![certificate], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // Whoever is not let in hears of it from the handshake.
                let Ok(mut client) = acceptor.accept(client).await else { return };
                let mut server = TcpStream::connect(temporal_address()).await.unwrap();
                tokio::io::copy_bidirectional(&mut client, &mut server).await.ok();
            });
        }
    });
    address
}

fn supervisor(queue: &str, address: &str, tls: &str) -> Supervisor {
    let text = format!("[profile.default]\naddress = \"{address}\"\n[profile.default.tls]\n{tls}");
    let mut options = SupervisorOptions::new(PATIENT);
    queue.clone_into(&mut options.task_queue);
    Supervisor::new(Settings::from_toml(&text).unwrap(), options).unwrap()
}

#[tokio::test]
async fn who_shows_the_right_certificates_gets_through_and_nobody_else() {
    let bench = Bench::new(PATIENT);
    let (ours, theirs) = (Certificates::new(), Certificates::new());
    let address = front(&ours).await;
    let server = format!("server_ca_cert_path = \"{}\"\n", ours.path("ca.pem"));
    let client = |of: &Certificates| {
        let (certificate, key) = (of.path("client.pem"), of.path("client.key"));
        format!("client_cert_path = \"{certificate}\"\nclient_key_path = \"{key}\"\n")
    };
    let placed = [fact(FactKind::OrderPlaced)];

    let good = supervisor(&bench.queue, &address, &(server.clone() + &client(&ours)));
    assert_eq!(good.tell(bench.order, &placed).await.unwrap(), Told::Applied);

    let elsewhere = format!("server_ca_cert_path = \"{}\"\n", theirs.path("ca.pem"));
    for (tls, why) in [
        (server.clone(), "no certificate of its own"),
        (server + &client(&theirs), "a certificate that somebody else signed"),
        (elsewhere + &client(&ours), "trust in another authority"),
    ] {
        let refused = supervisor(&bench.queue, &address, &tls).tell(bench.order, &placed).await;
        let said = refused.expect_err(why).to_string();
        assert!(said.contains("with TLS") && said.contains(&address), "{why}: {said}");
    }
}
