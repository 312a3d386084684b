//! The algorithms that look at the client, or at what the backends have to do.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use lab::{Connection, Daemon, Family, Lab, Layout, Nginx, Service, curl, test};

const CLIENTS: u8 = 40;

#[test]
fn source_hash_keeps_a_client_with_its_server() {
    for family in [Family::V4, Family::V6] {
        test(&Layout { webs: 3, ..Layout::default() }, |lab| {
            let _servers = Nginx::start_all(lab)?;
            let mut service = service(lab, family, "source-hash");
            service
                .backends
                .extend(lab.webs()[2..].iter().map(|web| (web.name().to_owned(), web.address(family, 80), 1)));
            let daemon = Daemon::start(lab, &[service])?;
            let clients: Vec<_> = (100..100 + CLIENTS).map(|host| address(family, host)).collect();
            for client in &clients {
                let prefix = if family == Family::V4 { "24" } else { "64 nodad" };
                lab.client().node().ip_batch(&format!("addr add {client}/{prefix} dev eth0\n"))?;
            }
            let before = servers(lab, family, &clients)?;
            assert!(count(&before).values().all(|of| *of >= 4) && count(&before).len() == 3, "{:?}", count(&before));

            let drained = daemon.lb(&["backend", "drain", "web/web-02"])?;
            assert_eq!(drained.code, Some(0), "{drained:?}");
            let after = servers(lab, family, &clients)?;
            for (client, server) in &before {
                let now = &after[client];
                assert!(now == server || server == "web-02", "{client} was with {server} and is with {now}");
                assert_ne!(now, "web-02");
            }
            Ok(())
        });
    }
}

#[test]
fn least_connections_evens_out_what_lasts() {
    test(&Layout::default(), |lab| {
        let _servers = Nginx::start_all(lab)?;
        let daemon = Daemon::start(lab, &[service(lab, Family::V4, "least-connections")])?;
        let drain =
            |verb: &str| daemon.lb(&["backend", verb, "web/web-02"]).map(|outcome| assert_eq!(outcome.code, Some(0)));
        drain("drain")?;
        let long = open(lab, 40)?;
        assert_eq!(shares(&long), [40, 0]);
        drain("enable")?;

        // What comes goes where there is less, until there is as much.
        let even = open(lab, 40)?;
        assert_eq!(shares(&even), [0, 40]);
        let both = open(lab, 20)?;
        assert!(shares(&both)[0].abs_diff(10) <= 1, "{:?}", shares(&both));

        // What ends makes room.
        close(even)?;
        let again = open(lab, 40)?;
        assert_eq!(shares(&again), [0, 40]);
        // Connections that end by a RST do as well.
        for (connection, _) in again {
            rustix::net::sockopt::set_socket_linger(connection.stream(), Some(std::time::Duration::ZERO))?;
        }
        let again = open(lab, 40)?;
        assert_eq!(shares(&again), [0, 40]);
        drop((long, both));
        Ok(())
    });
}

#[test]
fn least_connections_goes_by_weight() {
    test(&Layout::default(), |lab| {
        let _servers = Nginx::start_all(lab)?;
        let mut service = service(lab, Family::V4, "least-connections");
        service.backends[0].2 = 3;
        let _daemon = Daemon::start(lab, &[service])?;
        let [first, second] = shares(&open(lab, 80)?);
        assert!(first.abs_diff(60) <= 2, "{first} and {second} at weights of 3 to 1");
        Ok(())
    });
}

#[test]
fn random_two_keeps_the_difference_small() {
    test(&Layout::default(), |lab| {
        let _servers = Nginx::start_all(lab)?;
        let daemon = Daemon::start(lab, &[service(lab, Family::V4, "random-two")])?;
        // Half of the picks are two of a kind; of pure chance 400 would differ by 20 one time in three.
        let [first, second] = shares(&open(lab, 400)?);
        assert!(first.abs_diff(second) <= 20, "{first} and {second}");
        let stats = daemon.stats()?;
        assert_eq!(stats["services"][0]["connections_total"], 400, "{stats:#}");
        Ok(())
    });
}

fn service(lab: &Lab, family: Family, algorithm: &'static str) -> Service {
    Service { algorithm, ..Service::web(lab, family) }
}

/// Connections that stay open, each with the server that answers it.
fn open(lab: &Lab, count: usize) -> Result<Vec<(Connection, String)>> {
    let open = || {
        let mut connection = lab.client().connect(Lab::VIP.socket(Family::V4))?;
        let server = connection.get()?.body;
        Ok((connection, server))
    };
    (0..count).map(|_| open()).collect()
}

fn close(connections: Vec<(Connection, String)>) -> Result<()> {
    connections.into_iter().try_for_each(|(connection, server)| {
        let last = connection.last_get()?.body;
        ensure!(last == server, "{server} became {last}");
        Ok(())
    })
}

fn shares(connections: &[(Connection, String)]) -> [usize; 2] {
    ["web-01", "web-02"].map(|name| connections.iter().filter(|(_, server)| server == name).count())
}

/// Who serves each of the client's addresses, which is asked from five ports.
fn servers(lab: &Lab, family: Family, clients: &[String]) -> Result<BTreeMap<String, String>> {
    let url = Lab::VIP.url(family);
    let ask = |client: &String| {
        let server = curl(lab, &["--interface", client, &url])?;
        for _ in 1..5 {
            let other = curl(lab, &["--interface", client, &url])?;
            ensure!(other == server, "{client} is served by {server} and by {other}");
        }
        Ok((client.clone(), server.trim().to_owned()))
    };
    clients.iter().map(ask).collect()
}

fn count(servers: &BTreeMap<String, String>) -> BTreeMap<&str, usize> {
    let mut count = BTreeMap::new();
    for server in servers.values() {
        *count.entry(server.as_str()).or_default() += 1;
    }
    count
}

fn address(family: Family, host: u8) -> String {
    match family {
        Family::V4 => format!("10.0.1.{host}"),
        Family::V6 => format!("2001:db8:1::{host}"),
    }
}
