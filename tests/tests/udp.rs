//! UDP services: answers come back, small and in fragments; a client's socket stays with its server.

use std::{
    collections::BTreeSet,
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lab::{Daemon, Family, Front, Health, Lab, Layout, Service, UdpEcho, configuration, test};

const PATIENCE: Duration = Duration::from_secs(3);

#[test]
fn datagrams_of_any_size_are_answered() {
    for forward in ["nat", "dnat", "l2"] {
        for family in [Family::V4, Family::V6] {
            let front = if forward == "l2" { Front::OneLeg } else { Front::TwoLegs };
            test(&Layout { front, ..Layout::default() }, |lab| {
                let vip = Lab::VIP.with_port(5353).socket(family);
                if forward == "l2" {
                    lab.share_virtual_address()?;
                } else if forward == "dnat" {
                    lab.route_webs_by_front()?;
                }
                let _servers = lab
                    .webs()
                    .iter()
                    .map(|web| UdpEcho::start_in(web, if forward == "l2" { vip } else { web.address(family, 5353) }))
                    .collect::<Result<Vec<_>>>()?;
                let daemon = Daemon::start(lab, &[service(lab, vip, forward)])?;
                let servers = check(lab, vip).with_context(|| format!("{forward}, {family:?}"))?;
                assert_eq!(servers.len(), 2, "{servers:?}");
                let stats = daemon.stats()?;
                let drops = stats["drops"].as_object().context("there are drops")?;
                assert!(drops.values().all(|number| *number == 0), "{forward}, {family:?}: {stats:#}");
                assert_eq!(stats["services"][0]["connections_total"], SOCKETS, "{stats:#}");
                Ok(())
            });
        }
    }
}

#[test]
fn a_port_where_nobody_listens_is_refused() {
    for forward in ["nat", "dnat"] {
        for family in [Family::V4, Family::V6] {
            test(&Layout::default(), |lab| {
                let vip = Lab::VIP.with_port(5353).socket(family);
                lab.route_webs_by_front()?;
                let _daemon = Daemon::start(lab, &[service(lab, vip, forward)])?;
                let socket = socket(lab, vip)?;
                socket.send(b"anybody?")?;
                let refused = socket.recv(&mut [0; 64]).expect_err("nobody answers").kind();
                assert_eq!(refused, std::io::ErrorKind::ConnectionRefused, "{forward}, {family:?}");
                Ok(())
            });
        }
    }
}

#[test]
fn a_server_that_is_gone_is_noticed_without_a_word_on_health() {
    for family in [Family::V4, Family::V6] {
        test(&Layout::default(), |lab| {
            let vip = Lab::VIP.with_port(5353).socket(family);
            let start = |web: usize| UdpEcho::start_in(&lab.webs()[web], lab.webs()[web].address(family, 5353));
            let (first, _second) = (start(0)?, start(1)?);
            let text = configuration(lab, &[service(lab, vip, "nat")]);
            let text = text.replace("type = \"none\"\n", "interval = \"1s\"\ntimeout = \"500ms\"\nfall = 2\n");
            let daemon = Daemon::start_with(lab, &text)?;
            assert_eq!(daemon.status()?["services"][0]["verdict"], "ok");
            drop(first);
            let out = daemon.await_rotation("web-01", false)?;
            assert!(out["cause"].as_str().is_some_and(|cause| cause.contains("connection refused")), "{out}");
            for _ in 0..8 {
                let socket = socket(lab, vip)?;
                socket.send(b"anybody?")?;
                socket.recv(&mut [0; 64]).context("web-02 answers")?;
            }
            let _first = start(0)?;
            daemon.await_rotation("web-01", true)?;
            Ok(())
        });
    }
}

const SOCKETS: u64 = 20;

/// Has sockets of the client talk to the service; returns who answered.
fn check(lab: &Lab, vip: SocketAddr) -> Result<BTreeSet<String>> {
    let mut servers = BTreeSet::new();
    for _ in 0..SOCKETS {
        let socket = socket(lab, vip)?;
        let mut server = None;
        // In the last ones the answer is longer than the question, by the name.
        for size in [0, 1, 512, 1472, 1473, 9_000, 60_000] {
            let question: Vec<u8> = (0..size).map(|at: usize| (at * 31 + size) as u8).collect();
            socket.send(&question)?;
            let mut answer = vec![0; 65_536];
            let length = socket.recv(&mut answer).with_context(|| format!("no answer to {size} bytes"))?;
            let name = answer[..length].split(|byte| *byte == b' ').next().unwrap_or_default();
            let name = String::from_utf8_lossy(name).into_owned();
            ensure!(answer[name.len() + 1..length] == question, "{size} bytes came back otherwise");
            ensure!(*server.get_or_insert_with(|| name.clone()) == name, "from {server:?} to {name}");
        }
        servers.extend(server);
    }
    Ok(servers)
}

fn socket(lab: &Lab, to: SocketAddr) -> Result<UdpSocket> {
    let any: SocketAddr = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse()?;
    let socket =
        lab.client().node().enter(|| UdpSocket::bind(any).and_then(|socket| socket.connect(to).map(|()| socket)))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn service(lab: &Lab, listen: SocketAddr, forward: &'static str) -> Service {
    let family = if listen.is_ipv4() { Family::V4 } else { Family::V6 };
    let backends = lab.webs().iter().map(|web| (web.name().to_owned(), web.address(family, 5353), 1)).collect();
    let health = Health { kind: "none", ..Health::default() };
    Service { protocol: "udp", forward, listen, health, backends, ..Service::web(lab, family) }
}
