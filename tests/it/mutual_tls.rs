//! Targets that ask for a client certificate, or whose own certificate comes from a private authority.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::harness::{Server, event_1_0};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Returns a certificate that an authority has issued, and its key.
fn certificate(name: &str, of: &Authority) -> (rcgen::Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    (params.signed_by(&key, of).unwrap(), key)
}

fn client(of: &Authority) -> String {
    let (certificate, key) = certificate("client.example", of);
    format!("{}{}", certificate.pem(), key.serialize_pem())
}

/// A TLS target that asks for a certificate issued by `clients`, and counts connections and requests.
struct TlsTarget {
    address: SocketAddr,
    counts: Arc<Mutex<(usize, usize)>>,
    _tasks: JoinSet<()>,
}

impl TlsTarget {
    async fn start(of: &Authority, clients: Option<&Authority>) -> Self {
        let (certificate, key) = certificate("localhost", of);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let mut roots = RootCertStore::empty();
                roots.add(clients.der().clone()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build();
                builder.with_client_cert_verifier(verifier.unwrap())
            }
        };
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = builder.with_single_cert(vec![certificate.der().clone()], key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let counts = Arc::<Mutex<(usize, usize)>>::default();
        let (shared, mut tasks) = (Arc::clone(&counts), JoinSet::new());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
                connections.spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    shared.lock().unwrap().0 += 1;
                    let service = service_fn(move |_| {
                        shared.lock().unwrap().1 += 1;
                        async { Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::new()))) }
                    });
                    let http = hyper::server::conn::http1::Builder::new();
                    drop(http.serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
        Self { address, counts, _tasks: tasks }
    }

    fn url(&self) -> String {
        format!("https://localhost:{}/t", self.address.port())
    }

    fn counts(&self) -> (usize, usize) {
        *self.counts.lock().unwrap()
    }
}

async fn delivered(server: &Server, fields: Value, state: &str) -> Value {
    let uuid = server.subscribe(fields).await;
    let id = server.receive(&event_1_0("a")).await;
    let delivery = server.delivery_in(&id, &uuid, state).await;
    server.delete(&format!("/eventmatch/{uuid}")).await.ok();
    delivery
}

#[tokio::test]
async fn a_target_with_an_authority_of_its_own_gets_events_from_those_who_have_a_certificate() {
    let (ours, theirs) = (authority(), authority());
    let server = Server::with(&["--admin-users", "nobody"]).await;
    let target = TlsTarget::start(&ours, Some(&theirs)).await;
    let url = target.url();
    let (pem, ca) = (client(&theirs), ours.pem());
    for (fields, words) in [
        (json!({"target_url": url, "retry": "none"}), "certificate"),
        (json!({"target_url": url, "retry": "none", "client_certificate": pem}), "certificate"),
        (
            json!({"target_url": url, "retry": "none", "client_certificate": pem, "target_ca": theirs.pem()}),
            "certificate",
        ),
        (json!({"target_url": url, "retry": "none", "target_ca": ca}), ""),
        (
            json!({"target_url": url, "retry": "none", "target_ca": ca, "client_certificate": client(&ours)}),
            "",
        ),
    ] {
        let delivery = delivered(&server, fields, "dead").await;
        assert!(delivery["reason"].as_str().unwrap().contains(words), "{delivery}");
    }
    assert_eq!(target.counts().1, 0);
    // Subscriptions with the same certificate share their connections.
    let fields = json!({"target_url": url, "target_ca": ca, "client_certificate": pem});
    for n in 1..=3 {
        delivered(&server, fields.clone(), "delivered").await;
        assert_eq!(target.counts().1, n);
    }
    assert_eq!(target.counts().0, 1, "one connection");
    let uuid = server.subscribe(fields).await;
    let shown = server.subscription(&uuid).await;
    assert_eq!(shown["target_ca"], ca.as_str());
    let fingerprint = shown["client_certificate"]["sha256"].as_str().unwrap();
    assert_eq!(fingerprint.len(), 64);
    assert_eq!(server.update(&uuid, &shown).await["client_certificate"], shown["client_certificate"]);
    let id = server.receive(&event_1_0("b")).await;
    let delivery = server.delivery_in(&id, &uuid, "delivered").await;
    let all = [shown.to_string(), delivery.to_string(), server.log()].concat();
    assert!(!all.contains("PRIVATE KEY"), "{all}");
    for secret in pem.lines().filter(|line| line.len() > 40) {
        assert!(!server.log().contains(secret));
    }
    let gone = server.update(&uuid, &json!({"client_certificate": null, "target_ca": null})).await;
    assert_eq!((&gone["client_certificate"], &gone["target_ca"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn an_invalid_certificate_is_refused() {
    let server = Server::start().await;
    let own = authority();
    let (certificate, key) = certificate("x.example", &own);
    let (pem, key) = (certificate.pem(), key.serialize_pem());
    let other_key = KeyPair::generate().unwrap().serialize_pem();
    let https = "https://127.0.0.1:9/";
    for (target_url, name, value) in [
        (https, "client_certificate", json!("rubbish")),
        (https, "client_certificate", json!(pem)),
        (https, "client_certificate", json!(key)),
        (https, "client_certificate", json!(format!("{pem}{other_key}"))),
        (https, "client_certificate", json!(7)),
        (https, "client_certificate", json!("x".repeat(70_000))),
        (https, "target_ca", json!("rubbish")),
        (https, "target_ca", json!(format!("{pem}{key}"))),
        ("http://127.0.0.1:9/", "target_ca", json!(own.pem())),
        ("http://127.0.0.1:9/", "client_certificate", json!(format!("{pem}{key}"))),
    ] {
        let body = json!({"name": "n", "jsonpath": "$", "target_url": target_url, name: value});
        let problem = server.post("/eventmatch", &body).await.refused(422);
        assert_eq!(problem.pointer.as_deref(), Some(&*format!("/{name}")), "{}", problem.detail);
        assert!(!problem.detail.contains("PRIVATE"), "{}", problem.detail);
    }
    let body = json!({
        "name": "n", "jsonpath": "$", "target_url": https, "client_certificate": {"sha256": "00"},
    });
    let problem = server.post("/eventmatch", &body).await.refused(422);
    assert_eq!(problem.pointer.as_deref(), Some("/client_certificate/sha256"));
}
