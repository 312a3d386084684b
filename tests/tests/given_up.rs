//! A server that is out of rotation for its own fault finishes what is under way; what its clients ask for next, others answer.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::TcpListener,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lab::{
    Connection, Daemon, Family, Front, Lab, Layout, Nginx, Node, Service, backend, configuration, eventually, test,
};

/// Kept connections.
const KEPT: usize = 20;

/// Where servers are checked that are not checked where they serve.
const CHECKED: u16 = 8080;

/// More than the buffers of both ends hold.
const DOWNLOAD: u64 = 32 << 20;

#[test]
fn connections_are_not_kept_to_a_server_whose_checks_fail() {
    test(&Layout::default(), |lab| check(lab, Service::web(lab, Family::V4), "health", "down"));
}

#[test]
fn connections_are_not_kept_to_an_ejected_server() {
    test(&Layout::default(), |lab| {
        let mut service = Service::web(lab, Family::V6);
        service.health.kind = "none";
        check(lab, service, "passive", "ejected")
    });
}

#[test]
fn connections_are_not_kept_to_a_server_that_answers_directly() {
    test(&Layout { front: Front::OneLeg, ..Layout::default() }, |lab| {
        lab.share_virtual_address()?;
        check(lab, Service { forward: "l2", ..Service::web(lab, Family::V4) }, "health", "down")
    });
}

#[test]
fn connections_are_kept_where_it_is_the_check_that_is_wrong() {
    test(&Layout::default(), |lab| {
        let servers = Nginx::start_all(lab)?;
        let listen = |web: &Node| web.enter(|| TcpListener::bind(("0.0.0.0", CHECKED)));
        let mut doors = lab.webs().iter().map(listen).collect::<Result<Vec<_>, _>>()?;
        let mut service = Service::web(lab, Family::V4);
        let vip = service.listen;
        service.health.kind = "tcp";
        let configuration = configuration(lab, &[service]).replace("rise =", &format!("port = {CHECKED}\nrise ="));
        let daemon = Daemon::start_with(lab, &configuration)?;
        let mut kept = (0..KEPT).map(|_| lab.client().visit(vip)).collect::<Result<Vec<(Connection, String)>>>()?;
        let mut ask = || kept.iter_mut().try_for_each(|(connection, _)| connection.get().map(drop));

        ask()?;
        drop(doors.swap_remove(0));
        eventually("web-01 is down", Duration::from_secs(10), || {
            ask()?;
            Ok((backend(&daemon.status()?, "web-01")?["health"] == "down").then_some(()))
        })?;
        let down = Instant::now();
        while down.elapsed() < Duration::from_secs(2) {
            ask()?;
        }
        servers[0].fail(true)?;
        eventually("those who are with web-01 go elsewhere", Duration::from_secs(5), || {
            Ok(ask().err().filter(|error| format!("{error:#}").contains("reset by peer")))
        })?;
        ensure!(lab.client().visit(vip)?.1 == "web-02");
        Ok(())
    });
}

/// Until web-01 fails and `key` of its status has become `value`.
fn check(lab: &Lab, service: Service, key: &str, value: &str) -> Result<()> {
    let servers = Nginx::start_all(lab)?;
    let vip = service.listen;
    let daemon = Daemon::start(lab, &[service])?;
    let client = lab.client();
    let kept = (0..KEPT).map(|_| client.visit(vip)).collect::<Result<Vec<(Connection, String)>>>()?;
    File::create(lab.dir().join("film"))?.set_len(DOWNLOAD)?;
    let mut film = kept.iter().find(|(_, server)| server == "web-01").context("web-01 has none")?.0.stream();
    film.write_all(b"GET /files/film HTTP/1.1\r\nHost: lab\r\n\r\n")?;

    servers[0].fail(true)?;
    eventually(&format!("web-01's {key} is {value}"), Duration::from_secs(20), || {
        // Whoever may be asked. Those who kept a connection are silent meanwhile.
        client.curl(format!("http://{vip}/"), 20)?;
        Ok((backend(&daemon.status()?, "web-01")?[key] == value).then_some(()))
    })?;

    let mut received = 0;
    let mut chunk = vec![0; 1 << 20];
    while received < DOWNLOAD {
        let read = film.read(&mut chunk).context("what was under way came to no end")?;
        ensure!(read > 0, "what was under way ended after {received} bytes");
        received += read as u64;
    }
    for (mut connection, server) in kept {
        let answer = connection.get();
        if server == "web-01" {
            let refused = answer.as_ref().is_err_and(|error| format!("{error:#}").contains("reset by peer"));
            ensure!(refused, "{answer:?}");
            ensure!(client.visit(vip)?.1 == "web-02");
        } else {
            ensure!(answer?.body == "web-02");
        }
    }
    let status = daemon.status()?;
    let left = &backend(&status, "web-01")?["connections"];
    ensure!(*left == 0, "{left} connections are open");
    Ok(())
}
