//! Agents on the servers: a server that runs short of memory gets less, at the red line nothing new, and nobody is left to
//! hang.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::{
    Agent, Cgroup, Connection, Daemon, Eater, Family, Json, Lab, Layout, Nginx, Node, Service, backend, configuration,
    eventually, test,
};

/// What each server may have.
const MEMORY: u64 = 100 << 20;
const PATIENCE: Duration = Duration::from_secs(20);
/// A server's memory, and its agent.
struct Machine<'a> {
    lab: &'a Lab,
    node: &'a Node,
    memory: Cgroup,
    agent: Agent,
}

impl<'a> Machine<'a> {
    fn start_all(lab: &'a Lab) -> Result<Vec<Self>> {
        let start = |node: &'a Node| {
            let memory = lab.limit_memory(node, MEMORY)?;
            let agent = Agent::start(lab, node, &memory)?;
            Ok(Self { lab, node, memory, agent })
        };
        lab.webs().iter().map(start).collect()
    }

    /// Has so many percent of the memory taken, by a program that is started for it.
    fn eat_to(&self, percent: u64) -> Result<Eater> {
        let mut eater = Eater::start(self.lab, self.node, &self.memory)?;
        eater.eat_to(percent)?;
        Ok(eater)
    }
}

fn daemon(lab: &Lab) -> Result<Daemon> {
    let text = configuration(lab, &[Service::web(lab, Family::V4)]);
    Daemon::start_with(lab, &format!("{text}\n[service.web.agent]\ninterval = \"200ms\"\nsend = \"json\\n\"\n"))
}

/// Waits until the status of a backend is as wanted.
fn await_status(daemon: &Daemon, name: &str, what: &str, mut wanted: impl FnMut(&Json) -> bool) -> Result<Json> {
    eventually(&format!("{name} {what}"), PATIENCE, || {
        let status = backend(&daemon.status()?, name)?.clone();
        Ok(wanted(&status).then_some(status))
    })
}

/// Of so many new connections, those that a server got; none may fail.
fn new_ones(lab: &Lab, name: &str, count: u32) -> Result<u64> {
    let tally = lab.client().curl(Lab::VIP.url(Family::V4), count)?;
    ensure!(tally.failures.is_empty() && tally.total() == u64::from(count), "{tally:?}");
    Ok(tally.of(name))
}

/// That a server gets so many percent of what the other gets.
fn ensure_share(lab: &Lab, name: &str, percent: u64) -> Result<()> {
    const COUNT: u32 = 400;
    let (got, expected) = (new_ones(lab, name, COUNT)?, u64::from(COUNT) * percent / (100 + percent));
    ensure!(got.abs_diff(expected) <= 20, "{name} got {got} of {COUNT}, not {expected}");
    Ok(())
}

#[test]
fn a_server_that_runs_short_of_memory_gets_less_then_nothing_and_comes_back() {
    test(&Layout::default(), |lab| {
        let _servers = Nginx::start_all(lab)?;
        let machines = Machine::start_all(lab)?;
        let daemon = daemon(lab)?;
        let status = await_status(&daemon, "web-01", "to be heard", |web| web["agent"]["state"] == "known")?;
        ensure!(status["agent"]["percent"] == 100, "{status:#}");
        ensure_share(lab, "web-01", 100)?;

        let mut eater = machines[0].eat_to(85)?;
        // What was heard while it was being taken is not it yet.
        let status = await_status(&daemon, "web-01", "with less", |web| {
            (10..=15).contains(&web["agent"]["memory_available_percent"].as_u64().unwrap_or(100))
        })?;
        let percent = status["agent"]["percent"].as_u64().context("a number")?;
        ensure!((40..=80).contains(&percent), "{status:#}");
        ensure!(status["in_rotation"] == true && status["share"] == percent, "{status:#}");
        ensure_share(lab, "web-01", percent)?;
        let said = machines[0].agent.json(lab.front())?;
        ensure!(said["schema_version"] == 1 && said["state"] == "short", "{said:#}");
        ensure!(said["cgroup"]["limit_bytes"] == MEMORY, "{said:#}");

        let mut open = (0..40).map(|_| connect(lab)).collect::<Result<Vec<_>>>()?;
        let had = open.iter().filter(|(_, server)| server == "web-01").count();
        eater.eat_to(97)?;
        let status = daemon.await_rotation("web-01", false)?;
        let cause = status["cause"].as_str().unwrap_or_default();
        ensure!(cause.starts_with("the agent says ready 0%: at the red line: memory"), "{status:#}");
        // Of those before, the very last may not have been over.
        let learned = status["limit"]["connections"].as_u64().context("a number")? as usize;
        ensure!(status["limit"]["source"] == "learned" && (had..=had + 1).contains(&learned), "{had} in {status:#}");
        ensure!(new_ones(lab, "web-01", 100)? == 0, "it got something new at its red line");
        ensure!(daemon.status()?["services"][0]["verdict"] == "degraded");
        // What it has goes on.
        for (connection, server) in &mut open {
            ensure!(connection.get()?.body == *server);
        }

        drop(eater);
        daemon.await_rotation("web-01", true)?;
        await_status(&daemon, "web-01", "without a limit", |web| web["limit"].is_null())?;
        ensure_share(lab, "web-01", 100)
    });
}

#[test]
fn a_server_whose_agent_is_not_heard_counts_as_unknown_until_it_is() {
    test(&Layout::default(), |lab| {
        let _servers = Nginx::start_all(lab)?;
        let mut machines = Machine::start_all(lab)?;
        let daemon = daemon(lab)?;
        await_status(&daemon, "web-01", "to be heard", |web| web["agent"]["state"] == "known")?;
        let Machine { node, memory, agent, .. } = machines.remove(0);
        drop(agent);
        let status = await_status(&daemon, "web-01", "unknown", |web| web["agent"]["state"] == "unknown")?;
        ensure!(status["in_rotation"] == true && status["health"] == "up" && status["share"] == 50, "{status:#}");
        ensure!(status["agent"]["failure"] == "connection refused", "{status:#}");
        ensure_share(lab, "web-01", 50)?;
        let table = daemon.lb(&["status"])?.stdout;
        ensure!(table.contains("unknown for ") && table.contains("connection refused"), "{table}");
        let events = daemon.lb(&["events"])?.stdout;
        ensure!(events.contains("the agent is not heard: connection refused"), "{events}");

        let _agent = Agent::start(lab, node, &memory)?;
        await_status(&daemon, "web-01", "to be heard again", |web| web["agent"]["state"] == "known")?;
        ensure_share(lab, "web-01", 100)
    });
}

#[test]
fn a_server_that_was_taken_out_is_called_back_before_the_other_is_at_its_red_line() {
    test(&Layout::default(), |lab| {
        let _servers = Nginx::start_all(lab)?;
        let machines = Machine::start_all(lab)?;
        let daemon = daemon(lab)?;
        await_status(&daemon, "web-01", "to be heard", |web| web["agent"]["state"] == "known")?;
        let disabled = daemon.lb(&["backend", "disable", "web/web-02", "--reason", "kernel test"])?;
        ensure!(disabled.code == Some(0), "{disabled:?}");
        ensure!(new_ones(lab, "web-01", 20)? == 20, "it is alone");
        let _eater = machines[0].eat_to(90)?;
        let back = daemon.await_rotation("web-02", true)?;
        let cause = back["cause"].as_str().unwrap_or_default();
        ensure!(cause.starts_with("called back: web-01 is under pressure: the agent says ready "), "{cause}");
        ensure!(backend(&daemon.status()?, "web-01")?["in_rotation"] == true, "it is not at its red line");
        ensure!(new_ones(lab, "web-02", 100)? > 50, "it takes more than the one that is short of memory");
        Ok(())
    });
}

#[test]
fn when_all_are_at_their_red_lines_they_keep_what_they_had_and_others_are_refused_at_once() {
    test(&Layout::default(), |lab| {
        let _servers = Nginx::start_all(lab)?;
        let machines = Machine::start_all(lab)?;
        let daemon = daemon(lab)?;
        await_status(&daemon, "web-02", "to be heard", |web| web["agent"]["state"] == "known")?;
        let mut open = (0..40).map(|_| connect(lab)).collect::<Result<Vec<_>>>()?;
        let mut eaters = machines.iter().map(|machine| machine.eat_to(97)).collect::<Result<Vec<_>>>()?;
        eventually("the last resort", PATIENCE, || {
            Ok((daemon.status()?["services"][0]["last_resort"] == true).then_some(()))
        })?;
        is_refused(lab)?;
        is_refused(lab)?;
        for (connection, server) in &mut open {
            ensure!(connection.get()?.body == *server);
        }
        // Each that goes makes room for one.
        let (_, server) = open.swap_remove(0);
        let again = eventually("room for one", PATIENCE, || Ok(connect(lab).ok()))?;
        ensure!(again.1 == server, "{} instead of {server}", again.1);
        open.push(again);
        is_refused(lab)?;

        drop(eaters.remove(0));
        daemon.await_rotation("web-01", true)?;
        let more = eventually("room at web-01", PATIENCE, || Ok(connect(lab).ok()))?;
        ensure!(more.1 == "web-01", "{} is at its red line", more.1);
        Ok(())
    });
}

/// An open connection, and whose it is.
fn connect(lab: &Lab) -> Result<(Connection, String)> {
    lab.client().visit(Lab::VIP.socket(Family::V4))
}

/// That a connection is refused, and at once.
fn is_refused(lab: &Lab) -> Result<()> {
    lab.client().ensure_refused(Lab::VIP.socket(Family::V4))
}
