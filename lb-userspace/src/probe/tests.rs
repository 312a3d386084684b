use std::future::pending;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;
use crate::config::StatusRanges;

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
    HealthCheck { probe, interval, timeout, rise: 1, fall: 1, port: None }
}

fn http() -> Probe {
    Probe::Http { path: "/health?x=1".into(), expect: StatusRanges::default() }
}

#[tokio::test]
async fn a_probe_passes_only_on_a_wanted_answer() {
    for (server, probe, passes, says) in [
        (Server::Says("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), http(), true, "HTTP 200 in "),
        (Server::Says("HTTP/1.0 302 Found\r\nLocation: /x\r\n\r\n"), http(), true, "HTTP 302 in "),
        (Server::Says("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nno"), http(), true, "HTTP 200 in "),
        (Server::Says("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"), http(), false, "HTTP 500, expected 200-399"),
        (Server::Says("SSH-2.0-OpenSSH_9.2\r\n"), http(), false, "not HTTP"),
        (Server::HangsUp, http(), false, "connection "),
        (Server::IsSilent, http(), false, "no answer within 200ms"),
        (Server::IsGone, http(), false, "connection refused"),
        (Server::IsSilent, Probe::Tcp, true, "connected in "),
        (Server::IsGone, Probe::Tcp, false, "connection refused"),
    ] {
        let address = start(server).await;
        let result = check(address, &check_of(probe.clone())).await;
        let (Ok(seen) | Err(seen)) = &result;
        assert!(result.is_ok() == passes && seen.contains(says), "{probe:?}: {result:?}");
    }
}

#[tokio::test]
async fn checks_follow_the_model() {
    let address = start(Server::IsSilent).await;
    let service = |backends: &[&str]| crate::config::Service {
        name: "web".into(),
        listen: "203.0.113.10:80".parse().unwrap(),
        protocol: Default::default(),
        algorithm: Default::default(),
        forward: Default::default(),
        min_healthy: 1,
        // The addresses are of the documentation; the checks go where the server is.
        health: check_of(Probe::Tcp),
        backends: backends
            .iter()
            .map(|name| crate::config::Backend { name: (*name).into(), address, weight: 1 })
            .collect(),
    };
    let model = |backends: &[&str]| {
        Model::new(&[service(backends)], &crate::model::Overrides::default(), jiff::Timestamp::UNIX_EPOCH)
    };
    let (sender, mut reports) = mpsc::channel(64);
    let mut probes = Probes::new(sender);
    probes.follow(&model(&["a"]));
    let report = reports.recv().await.unwrap();
    assert_eq!((report.key.1.as_str(), report.result.is_ok()), ("a", true));
    assert!(probes.is_current(&report));
    let first = report.generation;
    probes.follow(&model(&["a", "b"]));
    assert!(probes.is_current(&report), "a goes on undisturbed");
    while reports.recv().await.unwrap().key.1 != "b" {}
    probes.follow(&model(&["b"]));
    assert!(!probes.is_current(&report), "a is not checked any more");
    while reports.try_recv().is_ok() {}
    for _ in 0..5 {
        assert_eq!(reports.recv().await.unwrap().key.1, "b");
    }
    probes.follow(&model(&["a", "b"]));
    let again = loop {
        let report = reports.recv().await.unwrap();
        if report.key.1 == "a" && probes.is_current(&report) {
            break report;
        }
    };
    assert_ne!(again.generation, first);
}
