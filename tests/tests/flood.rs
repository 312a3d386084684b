//! A flood from addresses that nobody has breaks no established connection, and is seen.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use lab::{Connection, Daemon, Family, Front, Json, Lab, Layout, Nginx, Segment, Service, eventually, run, test};

const ESTABLISHED: usize = 1_000;

/// Longer than the idle time of a half-open flow, so that the tables come to their steady state.
const FLOOD: Duration = Duration::from_secs(30);

/// What a flood of those who pretend to have connections meets, and how long it lasts: the table is full after a second or two.
const BUSY: usize = 300;
const PRETENCE: Duration = Duration::from_secs(10);

#[test]
fn of_a_thousand_connections_through_nat_none_breaks() {
    test(&Layout::default(), |lab| check(lab, Service::web(lab, Family::V4)));
}

#[test]
fn of_a_thousand_connections_over_ipv6_none_breaks() {
    test(&Layout::default(), |lab| check(lab, Service::web(lab, Family::V6)));
}

#[test]
fn of_a_thousand_connections_with_direct_return_none_breaks() {
    test(&Layout { front: Front::OneLeg, ..Layout::default() }, |lab| {
        lab.share_virtual_address()?;
        check(lab, Service { forward: "l2", ..Service::web(lab, Family::V4) })
    });
}

fn check(lab: &Lab, service: Service) -> Result<()> {
    let _servers = Nginx::start_all(lab)?;
    let vip = service.listen;
    let daemon = Daemon::start(lab, &[service])?;
    let client = lab.client();
    let crowd = client.crowd(vip, ESTABLISHED)?;
    let flood = client.flood(vip, &[Segment::SYN])?;
    thread::sleep(FLOOD);
    let arrived = arrived(lab)?;
    let stats = daemon.stats()?;
    let (sent, lasted) = (flood.sent(), flood.lasted());
    drop(flood);
    let report = crowd.stop();
    println!("{sent} SYNs in {lasted:?}; {} answers; {} {}", report.answers, stats["flows"], stats["drops"]);
    assert!(report.broken.is_empty(), "{} of {ESTABLISHED}: {:?}", report.broken.len(), report.broken.first());
    assert!(report.fewest >= 1, "they were busy: {report:?}");
    assert!(sent > 200_000, "a flood is more than {sent} SYNs in {lasted:?}");

    // Every frame is accounted for: it went to a backend, to the kernel, or it was dropped for a reason. A link that is full
    // may have lost others before they arrived.
    let (flows, capacity) = (number(&stats["flows"]["used"]), number(&stats["flows"]["capacity"]));
    assert!(flows > capacity / 4 && flows <= capacity, "{:#}", stats["flows"]);
    let dropped: u64 = stats["drops"].as_object().map_or(0, |drops| drops.values().map(number).sum());
    let (forwarded, passed) = (number(&stats["services"][0]["packets_in"]), passed(lab)?);
    let accounted = forwarded + passed + dropped;
    println!("{arrived} arrived; {forwarded} forwarded, {passed} passed, {dropped} dropped");
    assert!(arrived > sent / 4 && accounted >= arrived, "{arrived} arrived, {passed} passed: {stats:#}");

    eventually("a new connection after the flood", Duration::from_secs(10), || {
        Ok(client.connect(vip).and_then(Connection::last_get).ok())
    })?;
    Ok(())
}

#[test]
fn acks_of_unknown_flows_break_none_and_keep_nobody_out() {
    pretend("maglev", &[Segment::ACK]);
}

#[test]
fn handshakes_of_which_nothing_comes_break_none_and_keep_nobody_out() {
    pretend("round-robin", &[Segment::SYN, Segment::ACK]);
}

/// A flood that makes flows look open, with direct return.
fn pretend(algorithm: &'static str, each: &'static [Segment]) {
    test(&Layout { front: Front::OneLeg, ..Layout::default() }, |lab| {
        lab.share_virtual_address()?;
        let _servers = Nginx::start_all(lab)?;
        let service = Service { algorithm, forward: "l2", ..Service::web(lab, Family::V4) };
        let vip = service.listen;
        let daemon = Daemon::start(lab, &[service])?;
        let client = lab.client();
        let crowd = client.crowd(vip, BUSY)?;
        let visit = || client.connect(vip).and_then(Connection::last_get);
        let (flood, began) = (client.flood(vip, each)?, Instant::now());
        let (mut served, mut failed) = (0, Vec::new());
        while began.elapsed() < PRETENCE {
            match visit() {
                Ok(_) => served += 1,
                Err(error) => failed.push(format!("{:?}: {error:#}", began.elapsed())),
            }
            thread::sleep(Duration::from_millis(50));
        }
        let (sent, stats) = (flood.sent(), daemon.stats()?);
        drop(flood);
        let report = crowd.stop();
        println!("{sent} segments; {served} served, {failed:?}; {} {}", stats["flows"], stats["drops"]);
        assert!(report.broken.is_empty(), "{} of {BUSY}: {:?}", report.broken.len(), report.broken.first());
        assert!(report.fewest >= 1, "they were busy: {report:?}");
        let (flows, capacity) = (number(&stats["flows"]["used"]), number(&stats["flows"]["capacity"]));
        assert!(flows > capacity / 10 * 9, "a flood fills the table: {sent} segments, {:#}", stats["flows"]);
        assert!(served >= 50 && served > 19 * failed.len(), "{served} new connections served, these not: {failed:?}");
        eventually("a new connection after the flood", Duration::from_secs(5), || Ok(visit().ok()))?;
        Ok(())
    });
}

/// Frames that the front node has received from the client.
fn arrived(lab: &Lab) -> Result<u64> {
    let links = run(lab.front().command("ip").args(["-json", "-stats", "link", "show", "eth0"]), "")?;
    let links: Json = serde_json::from_str(&links)?;
    Ok(number(&links[0]["stats64"]["rx"]["packets"]))
}

/// Packets that the kernel of the front node has received: answers to checks. Of ARP, which is not among them, there is less than
/// arrives between two looks.
fn passed(lab: &Lab) -> Result<u64> {
    let counters = run(lab.front().command("cat").args(["/proc/self/net/snmp", "/proc/self/net/snmp6"]), "")?;
    let word = |prefix: &str, at: usize| -> Result<u64> {
        let line = counters.lines().rfind(|line| line.starts_with(prefix));
        let word = line.and_then(|line| line.split_whitespace().nth(at));
        Ok(word.with_context(|| format!("no {prefix}: {counters}"))?.parse()?)
    };
    Ok(word("Ip:", 3)? + word("Ip6InReceives", 1)?)
}

fn number(value: &Json) -> u64 {
    value.as_u64().unwrap_or(0)
}
