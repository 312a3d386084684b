use std::future::pending;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;
use crate::config::{HttpCheck, TlsCheck};

/// What a server does with a connection.
#[derive(Clone, Copy)]
enum Server {
    /// Reads the request and says this.
    Says(&'static str),
    /// Accepts and closes.
    HangsUp,
    /// Accepts and says nothing.
    IsSilent,
    /// Is not there.
    IsGone,
}

async fn start(server: Server) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    if matches!(server, Server::IsGone) {
        return address;
    }
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            match server {
                Server::Says(answer) => {
                    let mut request = [0; 1024];
                    let length = stream.read(&mut request).await.unwrap();
                    assert!(request[..length].starts_with(b"GET /health?x=1 HTTP/1.1\r\n"));
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
                Server::HangsUp => {}
                Server::IsSilent => {
                    tokio::spawn(async move {
                        let _stream = stream;
                        pending::<()>().await;
                    });
                }
                Server::IsGone => unreachable!("it returned"),
            }
        }
    });
    address
}

fn check_of(probe: Probe) -> HealthCheck {
    let (interval, timeout) = (Duration::from_millis(10), Duration::from_millis(200));
    HealthCheck { probe, interval, timeout, rise: 1, fall: 1, port: None, fast_interval: None, jitter: 0 }
}

fn target(address: SocketAddr, probe: Probe) -> Target {
    let tls = match &probe {
        Probe::Https(_, tls) => Some(tls::Settings::default().of(tls)),
        _ => None,
    };
    Target { subject: Subject::Health, address, check: check_of(probe), tls }
}

fn http_check() -> HttpCheck {
    HttpCheck { path: "/health?x=1".into(), ..HttpCheck::default() }
}

fn http() -> Probe {
    Probe::Http(http_check())
}

/// Asks for a text in the answer.
fn with_body(text: &str) -> Probe {
    Probe::Http(HttpCheck { body: Some(text.into()), ..http_check() })
}

#[tokio::test]
async fn a_probe_passes_only_on_a_wanted_answer() {
    for (server, probe, passes, says) in [
        (Server::Says("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), http(), true, "HTTP 200 in "),
        (Server::Says("HTTP/1.0 302 Found\r\nLocation: /x\r\n\r\n"), http(), true, "HTTP 302 in "),
        (Server::Says("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nno"), http(), true, "HTTP 200 in "),
        (Server::Says("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"), http(), false, "HTTP 500, expected 200-399"),
        (Server::Says("SSH-2.0-OpenSSH_9.2\r\n"), http(), false, "not HTTP"),
        (Server::Says("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nall's o"), with_body("all's o"), true, "HTTP 200"),
        (
            Server::Says("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno"),
            with_body("yes"),
            false,
            "no \"yes\" in the answer",
        ),
        (
            Server::Says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nye \r\n2\r\nes\r\n0\r\n\r\n"),
            with_body("ye es"),
            true,
            "HTTP 200",
        ),
        (Server::HangsUp, http(), false, "connection "),
        (Server::IsSilent, http(), false, "no answer within 200ms"),
        (Server::IsGone, http(), false, "connection refused"),
        (Server::IsSilent, Probe::Tcp, true, "connected in "),
        (Server::IsGone, Probe::Tcp, false, "connection refused"),
    ] {
        let address = start(server).await;
        let (result, _) = target(address, probe.clone()).check().await;
        let (Ok(seen) | Err(seen)) = &result;
        assert!(result.is_ok() == passes && seen.contains(says), "{probe:?}: {result:?}");
    }
}

/// A service whose backends are all at one address. Its own is of the documentation; the checks go where the server is.
fn model(address: SocketAddr, probe: Probe, backends: &[&str]) -> Model {
    let service = crate::config::Service {
        health: check_of(probe),
        backends: backends.iter().map(|name| crate::config::Backend::new(*name, address, 1)).collect(),
        ..crate::config::Service::new("web", "203.0.113.10:80".parse().unwrap())
    };
    Model::new(&[service], &crate::model::Overrides::default(), jiff::Timestamp::UNIX_EPOCH)
}

#[tokio::test]
async fn checks_follow_the_model() {
    let address = start(Server::IsSilent).await;
    let model = |backends: &[&str]| model(address, Probe::Tcp, backends);
    let (sender, mut reports) = mpsc::channel(64);
    let mut probes = Probes::new(Subject::Health, sender);
    probes.follow(&Model::default(), &model(&["a"]));
    let report = reports.recv().await.unwrap();
    assert_eq!((report.key.1.as_str(), report.result.is_ok()), ("a", true));
    assert!(probes.hear(&report));
    let first = report.generation;
    probes.follow(&model(&["a"]), &model(&["a", "b"]));
    assert!(probes.hear(&report), "a goes on undisturbed");
    while reports.recv().await.unwrap().key.1 != "b" {}
    probes.follow(&model(&["a", "b"]), &model(&["b"]));
    assert!(!probes.hear(&report), "a is not checked any more");
    while reports.try_recv().is_ok() {}
    for _ in 0..5 {
        assert_eq!(reports.recv().await.unwrap().key.1, "b");
    }
    probes.follow(&model(&["b"]), &model(&["a", "b"]));
    let again = loop {
        let report = reports.recv().await.unwrap();
        if report.key.1 == "a" && probes.hear(&report) {
            break report;
        }
    };
    assert_ne!(again.generation, first);
}

#[tokio::test]
async fn the_host_header_is_the_configured_one() {
    for (host, expected) in [(Some("web.example"), "web.example".to_owned()), (None, String::new())] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let probe = Probe::Http(HttpCheck { host: host.map(str::to_owned), ..http_check() });
        let target = target(address, probe);
        let (_, request) = tokio::join!(target.check(), async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 1024];
            let length = stream.read(&mut request).await.unwrap();
            String::from_utf8(request[..length].to_vec()).unwrap()
        });
        let expected = if expected.is_empty() { address.to_string() } else { expected };
        assert!(request.contains(&format!("host: {expected}\r\n")), "{request}");
    }
}

#[tokio::test]
async fn an_agent_is_asked_and_believed() {
    let check = async |said: &'static str| {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let target = target(address, Probe::Agent { send: "hi\n".into() });
        let (answer, ()) = tokio::join!(target.check(), async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut greeting = [0; 3];
            stream.read_exact(&mut greeting).await.unwrap();
            assert_eq!(&greeting, b"hi\n");
            stream.write_all(said.as_bytes()).await.unwrap();
        });
        answer
    };
    let (result, agent) = check("up drain 40%\n").await;
    assert!(result.unwrap().contains("the agent says \"up drain 40%\""));
    let said = agent.unwrap();
    assert_eq!((said.mode, said.percent), (Some(crate::model::AgentMode::Drain), Some(40)));
    let (result, agent) = check("down # disk full\r\n").await;
    assert!(result.unwrap_err().contains("the agent says down: disk full"));
    assert_eq!(agent.unwrap().down, Some(true));
    assert!(check("").await.0.unwrap_err().contains("the agent says nothing"));
}

#[tokio::test]
async fn agents_are_asked_where_they_are_and_only_where_there_are_some() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let model = model(SocketAddr::new(address.ip(), 80), Probe::None, &["a", "b"]);
    let (sender, mut reports) = mpsc::channel(8);
    let mut agents = Probes::new(Subject::Agent, sender);
    agents.follow(&Model::default(), &model);
    assert_eq!(agents.keys().count(), 0);

    let mut asked = model.clone();
    let web = Arc::make_mut(asked.services.get_mut("web").unwrap());
    let (interval, timeout) = (Duration::from_secs(10), Duration::from_secs(1));
    web.spec.agent = Some(AgentCheck { port: address.port(), interval, timeout, send: "hi\n".into() });
    web.backends[1].agent_port = Some(1);
    agents.follow(&model, &asked);
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut greeting = [0; 3];
    stream.read_exact(&mut greeting).await.unwrap();
    stream.write_all(b"down 40% # disk full\n").await.unwrap();
    let mut heard = [reports.recv().await.unwrap(), reports.recv().await.unwrap()];
    heard.sort_by(|a, b| a.key.cmp(&b.key));
    assert!(heard.iter().all(|report| agents.hear(report)));
    let said = heard[0].agent.as_ref().unwrap();
    assert_eq!((said.down, said.percent, said.words.as_str()), (Some(true), Some(40), "down 40% # disk full"));
    assert_eq!((&heard[1].agent, &heard[1].result), (&None, &Err("connection refused".into())));
}

#[tokio::test]
async fn a_udp_server_passes_unless_it_is_gone_or_answers_otherwise() {
    let server = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    tokio::spawn(async move {
        let mut asked = [0; 64];
        loop {
            let (length, client) = server.recv_from(&mut asked).await.unwrap();
            // It has no answer to what it does not know.
            if &asked[..length] == b"version" {
                server.send_to(b"VERSION 1.6", client).await.unwrap();
            }
        }
    });
    let gone = std::net::UdpSocket::bind("[::1]:0").unwrap().local_addr().unwrap();
    for (address, send, body, passes, says) in [
        (address, "", None, true, "no error"),
        (address, "version", None, true, "11 bytes in answer"),
        (address, "version", Some("VERSION"), true, "\"VERSION\" in the answer"),
        (address, "version", Some("VERSION 2"), false, "no \"VERSION 2\" in the answer of 11 bytes"),
        (address, "", Some("VERSION"), false, "no answer within 200ms"),
        (gone, "", None, false, "connection refused"),
    ] {
        let probe = Probe::Udp { send: send.into(), body: body.map(str::to_owned) };
        let (result, _) = target(address, probe).check().await;
        let (Ok(seen) | Err(seen)) = &result;
        assert!(result.is_ok() == passes && seen.contains(says), "{send} {body:?}: {result:?}");
    }
}

/// A server that shows the certificate of web.example, signed by the test authority, and answers 200.
async fn tls_server() -> SocketAddr {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
    let certificates = vec![CertificateDer::from_pem_slice(include_bytes!("tests/server.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("tests/server.key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = builder.with_no_client_auth().with_single_cert(certificates, key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // A client that mistrusts us hangs up.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = [0; 1024];
            let length = stream.read(&mut request).await.unwrap();
            assert!(request[..length].starts_with(b"GET /health"));
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
            let _ = stream.shutdown().await;
        }
    });
    address
}

#[tokio::test]
async fn a_server_is_who_its_certificate_says_unless_that_is_waived() {
    let address = tls_server().await;
    let authority = || Some(concat!(env!("CARGO_MANIFEST_DIR"), "/src/probe/tests/ca.pem").into());
    let named = |name: &str| Some(name.to_owned());
    let good = TlsCheck { server_name: named("web.example"), ca_file: authority(), insecure_skip_verify: false };
    let other = TlsCheck { server_name: named("other.example"), ..good.clone() };
    let by_address = TlsCheck { server_name: None, ..good.clone() };
    let unknown = TlsCheck { ca_file: Some("/nonexistent/ca.pem".into()), ..good.clone() };
    let waived = TlsCheck { insecure_skip_verify: true, ca_file: None, ..other.clone() };
    let by_host = HttpCheck { host: Some("web.example:443".into()), body: Some("ok".into()), ..http_check() };
    for (http, tls, passes, says) in [
        (http_check(), good, true, "HTTP 200"),
        (by_host, by_address.clone(), true, "HTTP 200"),
        (http_check(), other, false, "not valid for name \"other.example\""),
        (http_check(), by_address, false, "not valid for"),
        (http_check(), unknown, false, "/nonexistent/ca.pem"),
        (http_check(), waived, true, "HTTP 200"),
    ] {
        let (result, _) = target(address, Probe::Https(http, tls.clone())).check().await;
        let (Ok(seen) | Err(seen)) = &result;
        assert!(result.is_ok() == passes && seen.contains(says), "{tls:?}: {result:?}");
    }
    let (result, _) =
        target(start(Server::IsSilent).await, Probe::Https(http_check(), TlsCheck::default())).check().await;
    assert!(result.unwrap_err().contains("within 200ms"));
}

#[tokio::test]
async fn an_authority_of_the_system_is_needed_when_no_other_is_named() {
    let address = tls_server().await;
    let stranger = TlsCheck { server_name: Some("web.example".into()), ..TlsCheck::default() };
    let (result, _) = target(address, Probe::Https(http_check(), stranger)).check().await;
    assert!(result.is_err(), "the test authority is not of the system: {result:?}");
}

#[tokio::test]
async fn authorities_that_changed_are_read_again_and_others_leave_the_checks_alone() {
    const WRONG: &[u8] = include_bytes!("tests/server.pem");
    const RIGHT: &[u8] = include_bytes!("tests/ca.pem");
    let directory = tempfile::tempdir().unwrap();
    let ca_file = directory.path().join("ca.pem");
    std::fs::write(&ca_file, WRONG).unwrap();
    let check =
        TlsCheck { server_name: Some("web.example".into()), ca_file: Some(ca_file.clone()), ..TlsCheck::default() };
    let model = model(tls_server().await, Probe::Https(http_check(), check), &["a"]);
    let (sender, mut reports) = mpsc::channel(64);
    let mut probes = Probes::new(Subject::Health, sender);
    probes.follow(&Model::default(), &model);
    let mut next = async |probes: &mut Probes| loop {
        let report = reports.recv().await.unwrap();
        if probes.hear(&report) {
            break (report.generation, report.result.is_ok());
        }
    };
    let (first, passed) = next(&mut probes).await;
    assert!(!passed);
    probes.refresh();
    assert_eq!(next(&mut probes).await, (first, false));

    std::fs::write(&ca_file, RIGHT).unwrap();
    probes.refresh();
    let (second, passed) = next(&mut probes).await;
    assert!(second > first && passed);
    std::fs::remove_file(&ca_file).unwrap();
    probes.refresh();
    assert!(!next(&mut probes).await.1);
}

#[test]
fn intervals_are_spread_around_their_length() {
    let second = Duration::from_secs(1);
    assert_eq!(spread(second, 0), second);
    let lengths: Vec<f64> = (0..1000).map(|_| spread(second, 10).as_secs_f64()).collect();
    assert!(lengths.iter().all(|length| (0.9..=1.1).contains(length)));
    assert!(lengths.iter().any(|length| *length < 0.95) && lengths.iter().any(|length| *length > 1.05));
}

#[tokio::test]
async fn checks_that_have_stopped_are_started_again() {
    let address = start(Server::IsSilent).await;
    let (sender, mut reports) = mpsc::channel(64);
    let mut probes = Probes::new(Subject::Health, sender);
    let key = Arc::new(("web".to_owned(), "a".to_owned()));
    probes.start(Arc::clone(&key), target(address, Probe::Tcp), Machine::default());
    let report = reports.recv().await.unwrap();
    assert!(probes.hear(&report));
    probes.running[&key].task.abort();
    while reports.try_recv().is_ok() {}
    let later = Instant::now() + GRACE + Duration::from_secs(1);
    assert_eq!(probes.pulse(Instant::now()), Pulse { running: 1, overdue: 0, restarted: 0 });
    assert_eq!(probes.pulse(later), Pulse { running: 1, overdue: 1, restarted: 0 });
    assert_eq!(probes.revive(later), [Arc::clone(&key)]);
    assert_eq!(probes.pulse(Instant::now()), Pulse { running: 1, overdue: 0, restarted: 1 });
    while !probes.hear(&reports.recv().await.unwrap()) {}
}

#[tokio::test]
async fn who_is_not_known_to_be_well_is_checked_faster() {
    let checks = async |server, passes, expected| {
        let mut target = target(start(server).await, Probe::Tcp);
        target.check.fall = 3;
        target.check.interval = Duration::from_secs(3600);
        target.check.fast_interval = Some(Duration::from_millis(1));
        let (sender, mut reports) = mpsc::channel(64);
        let mut probes = Probes::new(Subject::Health, sender);
        probes.start(Arc::new(("web".into(), "a".into())), target, Machine::new(crate::health::Health::Up));
        for _ in 0..expected {
            let report =
                time::timeout(Duration::from_secs(10), reports.recv()).await.expect("it does not wait an hour");
            assert_eq!(report.unwrap().result.is_ok(), passes);
        }
        time::timeout(Duration::from_millis(100), reports.recv()).await.is_ok()
    };
    // Until it is down, and then.
    assert!(checks(Server::IsGone, false, 5).await);
    assert!(!checks(Server::Says("HTTP/1.1 200 OK\r\n\r\n"), true, 1).await);
}
