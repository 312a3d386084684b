//! Servers that may have only so many connections: what is beyond goes to others, to the backup, and then back at once.

use std::{net::TcpStream, time::Duration};

use anyhow::{Context as _, Result, ensure};
use lab::{Connection, Daemon, Family, Json, Lab, Layout, Nginx, Service, backend, configuration, eventually, test};

const MOST: usize = 50;

fn layout() -> Layout {
    Layout { webs: 3, ..Layout::default() }
}

/// `web` with a limit for each of its servers, the last of which is a backup.
fn limited(lab: &Lab, algorithm: &'static str) -> String {
    let backends = lab.webs().iter().map(|web| (web.name().to_owned(), web.address(Family::V4, 80), 1)).collect();
    let text = configuration(lab, &[Service { algorithm, backends, ..Service::web(lab, Family::V4) }]);
    let text = text.replace("weight = 1\n", &format!("weight = 1\nmax_connections = {MOST}\n"));
    text.replace("name = \"web-03\"\n", "name = \"web-03\"\nbackup = true\n")
}

/// An open connection, and whose it is.
fn connect(lab: &Lab) -> Result<(Connection, String)> {
    lab.client().visit(Lab::VIP.socket(Family::V4))
}

fn of<'a>(open: &'a [(Connection, String)], name: &'a str) -> usize {
    open.iter().filter(|(_, server)| server == name).count()
}

/// That a connection is refused, and at once.
fn is_refused(lab: &Lab) -> Result<()> {
    lab.client().ensure_refused(Lab::VIP.socket(Family::V4))
}

fn dropped(daemon: &Daemon) -> Result<u64> {
    let stats = daemon.stats()?;
    let full = stats["drops"]["backend_full"].as_u64();
    full.with_context(|| format!("no backend_full in {stats:#}"))
}

fn connections(status: &Json, name: &str) -> Result<usize> {
    Ok(backend(status, name)?["connections"].as_u64().context("a number")? as usize)
}

fn fills_up(algorithm: &'static str) {
    test(&layout(), |lab| {
        let _servers = Nginx::start_all(lab)?;
        let daemon = Daemon::start_with(lab, &limited(lab, algorithm))?;
        let mut open = (0..2 * MOST).map(|_| connect(lab)).collect::<Result<Vec<_>>>()?;
        ensure!((of(&open, "web-01"), of(&open, "web-02")) == (MOST, MOST), "{} is the last's", open[99].1);
        open.push(connect(lab)?);
        ensure!(open[2 * MOST].1 == "web-03", "the next is the backup's, not {}'s", open[2 * MOST].1);
        for _ in 1..MOST {
            open.push(connect(lab)?);
        }
        ensure!(of(&open, "web-03") == MOST);
        is_refused(lab)?;
        is_refused(lab)?;
        ensure!(dropped(&daemon)? == 2, "{}", dropped(&daemon)?);
        let status = daemon.status()?;
        for name in ["web-01", "web-02", "web-03"] {
            ensure!(connections(&status, name)? == MOST, "{name} in {status:#}");
        }
        // Those that are open go on.
        for (connection, server) in &mut open {
            ensure!(connection.get()?.body == *server);
        }

        // Each that goes makes room for one.
        let (gone, server) = open.swap_remove(0);
        drop(gone);
        let again = eventually("room for one", Duration::from_secs(5), || Ok(connect(lab).ok()))?;
        ensure!(again.1 == server, "{} instead of {server}", again.1);
        open.push(again);
        is_refused(lab)?;
        open.clear();
        eventually("everybody to be gone", Duration::from_secs(10), || {
            let status = daemon.status()?;
            let left = ["web-01", "web-02", "web-03"].map(|name| connections(&status, name).unwrap_or(usize::MAX));
            Ok((left == [0; 3]).then_some(()))
        })?;
        let open = (0..2 * MOST).map(|_| connect(lab)).collect::<Result<Vec<_>>>()?;
        ensure!((of(&open, "web-01"), of(&open, "web-02")) == (MOST, MOST), "the numbers have drifted");
        Ok(())
    });
}

#[test]
fn by_turns() {
    fills_up("round-robin");
}

#[test]
fn by_hash() {
    fills_up("maglev");
}

#[test]
fn by_fewest_connections() {
    fills_up("least-connections");
}

#[test]
fn a_limit_is_set_and_lifted_at_run_time_and_stays_over_a_restart() {
    test(&Layout::default(), |lab| {
        let _servers = Nginx::start_all(lab)?;
        let mut daemon = Daemon::start(lab, &[Service::web(lab, Family::V4)])?;
        let mut open = (0..20).map(|_| connect(lab)).collect::<Result<Vec<_>>>()?;
        let before = [of(&open, "web-01"), of(&open, "web-02")];
        let set = |daemon: &Daemon, name: &str, most: &str| {
            let outcome = daemon.lb(&["backend", "set", name, "--max-connections", most])?;
            ensure!(outcome.code == Some(0), "{outcome:?}");
            Ok(())
        };
        // Those that were there before count.
        set(&daemon, "web/web-01", &(before[0] + 2).to_string())?;
        set(&daemon, "web/web-02", &(before[1] + 1).to_string())?;
        open.extend((0..3).map(|_| connect(lab)).collect::<Result<Vec<_>>>()?);
        ensure!([of(&open, "web-01"), of(&open, "web-02")] == [before[0] + 2, before[1] + 1]);
        is_refused(lab)?;
        daemon.kill()?;
        is_refused(lab)?;
        daemon.start_again()?;
        is_refused(lab)?;
        let status = daemon.status()?;
        ensure!(backend(&status, "web-01")?["max_connections"] == before[0] + 2, "{status:#}");
        set(&daemon, "web/web-01", "0")?;
        let more = (0..10).map(|_| connect(lab)).collect::<Result<Vec<_>>>()?;
        ensure!(of(&more, "web-01") == 10);
        Ok(())
    });
}

#[test]
fn connections_that_never_came_to_be_take_no_room_for_long() {
    test(&Layout::default(), |lab| {
        let servers = Nginx::start_all(lab)?;
        let text = configuration(lab, &[Service::web(lab, Family::V4)]);
        let text = text.replace("weight = 1\n", "weight = 1\nmax_connections = 5\n");
        // Nobody notices that they are silent.
        let daemon = Daemon::start_with(lab, &text)?;
        for name in ["web/web-01", "web/web-02"] {
            ensure!(daemon.lb(&["health", "pause", name])?.code == Some(0));
        }
        // Connections that are answered by nobody: their SYNs hold a place.
        for server in &servers {
            server.node().ip_batch("link set eth0 down\n")?;
        }
        let vip = Lab::VIP.socket(Family::V4);
        lab.client().node().enter(|| {
            for _ in 0..10 {
                let _ = TcpStream::connect_timeout(&vip, Duration::from_millis(20));
            }
        });
        is_refused(lab)?;
        for server in &servers {
            server.node().ip_batch("link set eth0 up\n")?;
        }
        eventually("room", Duration::from_secs(20), || Ok(connect(lab).ok()))?;
        Ok(())
    });
}
