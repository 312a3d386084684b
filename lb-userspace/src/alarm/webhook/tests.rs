use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;
use crate::alarm::{Kind, Severity, Status, Subject};

fn webhook(url: &str) -> Webhook {
    Webhook { url: url.parse().unwrap(), secret: None, ca_file: None }
}

fn notice() -> Notice {
    let (at, subject) = (Timestamp::UNIX_EPOCH, Subject::of_daemon(Kind::MapDrift));
    let (status, severity, summary) = (Status::Firing, Severity::Warning, String::new());
    Notice { status, subject, severity, summary, since: at, at, repeated: false }
}

/// Against Python's `hmac.new(b"key", b"1700000000." + b'{"a":1}', "sha256")`.
#[test]
fn a_signature_is_hmac_sha256_of_time_and_body() {
    let signed = sign(b"key", Timestamp::from_second(1_700_000_000).unwrap(), br#"{"a":1}"#);
    assert_eq!(signed, "t=1700000000,v1=a438e398bfafc57e4396bb7fc2304422f0f768e965d073ca313cb52e22e6ad03");
}

#[test]
fn a_secret_of_a_file_ends_before_its_line_break() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    fs::write(&path, "s3cret\n").unwrap();
    assert_eq!(key(&Secret::File(path.clone())), Ok(b"s3cret".to_vec()));
    fs::write(&path, "\n").unwrap();
    assert!(key(&Secret::File(path)).unwrap_err().contains("no secret"));
}

/// A server that answers whatever comes with this; nothing, when that is empty.
async fn server(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            if answer.is_empty() {
                // Until the client has had enough.
                let _ = stream.read(&mut request).await;
            }
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    format!("http://{address}/")
}

#[tokio::test]
async fn what_may_fare_better_later_is_tried_again_and_nothing_else() {
    for (answer, expected) in [
        ("HTTP/1.1 204 No Content\r\n\r\n", None),
        ("HTTP/1.1 503 -\r\nContent-Length: 0\r\n\r\n", Some(("HTTP 503", true))),
        ("HTTP/1.1 429 -\r\nContent-Length: 0\r\n\r\n", Some(("HTTP 429", true))),
        ("HTTP/1.1 404 -\r\nContent-Length: 0\r\n\r\n", Some(("HTTP 404", false))),
        ("HTTP/1.1 301 -\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", Some(("HTTP 301", false))),
        ("SSH-2.0-x\r\n", Some(("no answer", true))),
        ("", Some(("no answer within 300ms", true))),
    ] {
        let url = server(answer).await;
        let result = post(&webhook(&url), Duration::from_millis(300), 1, &notice()).await;
        match (result, expected) {
            (Ok(()), None) => {}
            (Err(failure), Some((says, again))) => {
                assert!(failure.reason.contains(says) && failure.again == again, "{answer}: {failure:?}");
            }
            (result, _) => panic!("{answer}: {result:?}"),
        }
    }
    let nobody = post(&webhook("http://127.0.0.1:1/"), Duration::from_secs(5), 1, &notice()).await.unwrap_err();
    assert!(nobody.again && nobody.reason.contains("127.0.0.1:1: Connection refused"), "{nobody:?}");
}

#[tokio::test]
async fn over_tls_a_server_is_who_its_certificate_says() {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
    let file = |name: &str| format!("{}/src/probe/tests/{name}", env!("CARGO_MANIFEST_DIR"));
    let certificates = vec![CertificateDer::from_pem_file(file("server.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(file("server.key.pem")).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = builder.with_no_client_auth().with_single_cert(certificates, key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            // A client that mistrusts us hangs up.
            let _ = acceptor.accept(listener.accept().await.unwrap().0).await;
        }
    });
    let trusting = Webhook { ca_file: Some(file("ca.pem").into()), ..webhook("https://web.example/") };
    for (host, webhook, says) in [
        ("web.example", &trusting, None),
        ("other.example", &trusting, Some("not valid for name \"other.example\"")),
        ("web.example", &webhook("https://web.example/"), Some("TLS: ")),
    ] {
        let stream = TcpStream::connect(address).await.unwrap();
        let error = secured(stream, host, webhook).await.err();
        match (&error, says) {
            (None, None) => {}
            (Some(error), Some(says)) => assert!(error.contains(says), "{host}: {error}"),
            _ => panic!("{host}: {error:?}"),
        }
    }
}
