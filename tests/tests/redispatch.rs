//! A server that dies between two checks costs new clients a second at most, never a connection.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lab::{
    Daemon, Family, Front, Health, Json, Lab, Layout, Nginx, Paced, Service, Tally, backend, run, test, unjudging,
};

const CONNECTIONS: u32 = 10_000;
const RATE: u32 = 1_000;

/// Linux retransmits a SYN after one second, and for the second time after two (tcp_syn_linear_timeouts) or three.
const ONE_RETRANSMISSION: Duration = Duration::from_millis(1900);

#[test]
#[ignore = "ten thousand connections at a steady pace want a machine of their own: run with --ignored"]
fn a_host_that_vanishes_fails_no_new_connection() {
    test(&Layout::default(), |lab| {
        let _servers = Nginx::start_all(lab)?;
        let daemon = Daemon::start_with(lab, &unjudging(lab, &[unnoticed(lab, Family::V4)]))?;
        vanish(lab)?;
        let paced = lab.client().paced(Lab::VIP.socket(Family::V4), CONNECTIONS, RATE);
        check(&paced, &daemon, CONNECTIONS)?;
        assert_eq!(drops(&daemon.stats()?)?, [], "nobody refused, and nothing else was lost here");
        Ok(())
    });
}

#[test]
#[ignore = "ten thousand connections at a steady pace want a machine of their own: run with --ignored"]
fn what_the_traffic_tells_of_a_host_that_vanishes_keeps_others_from_waiting() {
    test(&Layout::default(), |lab| {
        let _servers = Nginx::start_all(lab)?;
        let daemon = Daemon::start(lab, &[unnoticed(lab, Family::V4)])?;
        vanish(lab)?;
        let paced = lab.client().paced(Lab::VIP.socket(Family::V4), CONNECTIONS, RATE);
        let late = served(&paced, CONNECTIONS);
        assert!(late < CONNECTIONS as usize / 8, "{late} of {CONNECTIONS} were late");
        assert_eq!(backend(&daemon.status()?, "web-01")?["in_rotation"], false, "the traffic tells");
        Ok(())
    });
}

#[test]
#[ignore = "ten thousand connections at a steady pace want a machine of their own: run with --ignored"]
fn a_process_that_is_killed_fails_no_new_connection() {
    test(&Layout::default(), |lab| {
        let mut servers = Nginx::start_all(lab)?;
        let daemon = Daemon::start_with(lab, &unjudging(lab, &[unnoticed(lab, Family::V4)]))?;
        servers[0].stop()?;
        let paced = lab.client().paced(Lab::VIP.socket(Family::V4), CONNECTIONS, RATE);
        check(&paced, &daemon, CONNECTIONS)?;
        let [(reason, refused)] = &drops(&daemon.stats()?)?[..] else { panic!("{:#}", daemon.stats()?) };
        let late = paced.slower_than(Duration::from_millis(900)) as u64;
        assert_eq!(reason, "refused");
        assert!(refused.abs_diff(late) <= late / 100, "{refused} RSTs, one for each that was late, and {late} were");
        Ok(())
    });
}

#[test]
#[ignore = "ten thousand connections at a steady pace want a machine of their own: run with --ignored"]
fn both_hold_for_ipv6() {
    test(&Layout::default(), |lab| {
        let mut servers = Nginx::start_all(lab)?;
        let daemon = Daemon::start_with(lab, &unjudging(lab, &[unnoticed(lab, Family::V6)]))?;
        vanish(lab)?;
        let vip = Lab::VIP.socket(Family::V6);
        check(&lab.client().paced(vip, 1000, RATE), &daemon, 1000)?;
        lab.switch().ip_batch("link set web-01-eth0 up\n")?;
        servers[0].stop()?;
        check(&lab.client().paced(vip, 1000, RATE), &daemon, 1000)
    });
}

#[test]
fn every_algorithm_finds_a_living_server() {
    for algorithm in ["maglev", "source-hash", "least-connections", "random-two"] {
        for killed in [false, true] {
            test(&Layout::default(), |lab| {
                let mut servers = Nginx::start_all(lab)?;
                let _daemon = Daemon::start(lab, &[Service { algorithm, ..unnoticed(lab, Family::V4) }])?;
                if killed {
                    servers[0].stop()?;
                } else {
                    vanish(lab)?;
                }
                all_served(lab, algorithm);
                Ok(())
            });
        }
    }
}

#[test]
fn every_way_to_forward_finds_a_living_server() {
    for (forward, killed) in [("dnat", false), ("dnat", true), ("l2", false)] {
        let front = if forward == "l2" { Front::OneLeg } else { Front::TwoLegs };
        test(&Layout { front, ..Layout::default() }, |lab| {
            if forward == "l2" {
                lab.share_virtual_address()?;
            } else {
                lab.route_webs_by_front()?;
            }
            let mut servers = Nginx::start_all(lab)?;
            let _daemon = Daemon::start(lab, &[Service { forward, ..unnoticed(lab, Family::V4) }])?;
            if killed {
                servers[0].stop()?;
            } else {
                vanish(lab)?;
            }
            all_served(lab, forward);
            Ok(())
        });
    }
}

#[test]
fn with_direct_return_an_answer_that_is_lost_does_not_send_its_client_elsewhere() {
    /// Of the SYN-ACKs that come to the client every eighth, but none of a port twice.
    const LOSSES: &str = "table inet losses {
        set once { type inet_service; size 65535; flags dynamic; }
        chain input {
            type filter hook input priority 0;
            tcp flags & (syn | ack) != syn | ack accept
            tcp dport @once accept
            numgen inc mod 8 0 add @once { tcp dport } drop
        }
    }";
    test(&Layout { front: Front::OneLeg, ..Layout::default() }, |lab| {
        lab.share_virtual_address()?;
        let _servers = Nginx::start_all(lab)?;
        let service = Service { forward: "l2", ..unnoticed(lab, Family::V4) };
        let daemon = Daemon::start_with(lab, &unjudging(lab, &[service]))?;
        run(lab.client().node().command("nft").args(["--file", "-"]), LOSSES)?;
        let paced = lab.client().paced(Lab::VIP.socket(Family::V4), 1500, 500);
        assert_eq!(paced.tally.failures, [""; 0]);
        assert!(paced.slowest() < ONE_RETRANSMISSION, "the slowest took {:?}", paced.slowest());
        let late = paced.slower_than(Duration::from_millis(900));
        assert!(late.abs_diff(1500 / 8) < 20, "{late} of 1500 were late");
        let again = |name: &str| -> Result<u64> {
            let stats = daemon.stats()?;
            backend(&stats, name)?["seen"]["syn_retransmissions"].as_u64().context("a number")
        };
        assert_eq!((again("web-01")?, again("web-02")?), (0, 0), "it was not the servers");
        Ok(())
    });
}

#[test]
fn with_nobody_else_to_ask_a_refusal_is_told_at_once() {
    for algorithm in ["round-robin", "maglev", "source-hash", "least-connections", "random-two"] {
        test(&Layout { webs: 1, ..Layout::default() }, |lab| {
            let mut servers = Nginx::start_all(lab)?;
            let mut service = Service { algorithm, ..unnoticed(lab, Family::V4) };
            service.backends[0].2 = 3;
            let _daemon = Daemon::start(lab, &[service])?;
            servers[0].stop()?;
            let began = Instant::now();
            let error = lab.client().connect(Lab::VIP.socket(Family::V4)).expect_err("nobody listens");
            let error = format!("{error:#}");
            assert!(error.contains("refused"), "{algorithm}: {error} after {:?}", began.elapsed());
            Ok(())
        });
    }
}

fn all_served(lab: &Lab, what: &str) {
    let paced = lab.client().paced(Lab::VIP.socket(Family::V4), 500, RATE);
    let Tally { failures, .. } = &paced.tally;
    assert_eq!((failures.first(), paced.tally.of("web-02")), (None, 500), "{what}");
    assert!(paced.slowest() < ONE_RETRANSMISSION, "{what}: the slowest took {:?}", paced.slowest());
}

/// A service whose checks are so far apart that none happens in a test.
fn unnoticed(lab: &Lab, family: Family) -> Service {
    let health = Health { interval: Duration::from_secs(600), ..Health::default() };
    Service { health, ..Service::web(lab, family) }
}

/// Takes web-01 off the network: no RST, no ICMP, silence.
fn vanish(lab: &Lab) -> Result<()> {
    lab.switch().ip_batch("link set web-01-eth0 down\n")
}

/// That web-02 served all of them, after one retransmission at most: how many waited for that.
fn served(paced: &Paced, connections: u32) -> usize {
    let tally = &paced.tally;
    assert_eq!(tally.failures, [""; 0], "of {connections}");
    assert_eq!(tally.of("web-02"), u64::from(connections), "{:?}", tally.answers);
    assert!(paced.slowest() < ONE_RETRANSMISSION, "the slowest took {:?}", paced.slowest());
    paced.slower_than(Duration::from_millis(900))
}

fn check(paced: &Paced, daemon: &Daemon, connections: u32) -> Result<()> {
    let (late, began_in) = (served(paced, connections), &paced.began_in);
    let half = connections as usize / 2;
    assert!(late.abs_diff(half) < half / 5, "{late} of {connections} were late; half of them met the dead server");
    let planned = Duration::from_secs(1) * connections / RATE;
    assert!(*began_in < planned * 3 / 2, "the machine is too slow for this: {began_in:?} instead of {planned:?}");
    assert_eq!(backend(&daemon.status()?, "web-01")?["in_rotation"], true, "a check noticed");
    Ok(())
}

/// The reasons that frames were dropped for, and how many.
fn drops(stats: &Json) -> Result<Vec<(String, u64)>> {
    let drops = stats["drops"].as_object().context("there are drops")?;
    let numbers = drops.iter().map(|(reason, number)| (reason.clone(), number.as_u64().unwrap_or(u64::MAX)));
    Ok(numbers.filter(|(_, number)| *number > 0).collect())
}
