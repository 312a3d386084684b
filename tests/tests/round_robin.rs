//! Round-robin gives each backend its share, exactly but for the turn that each CPU is in.

use anyhow::Result;
use lab::{Daemon, Family, Front, Lab, Layout, Nginx, Service, Tally, backend, configuration, test};
use serde_json::Value;

const REQUESTS: u32 = 1000;

#[test]
fn equal_weights_share_equally() {
    test(&Layout::default(), |lab| check(lab, Family::V4, [1, 1], [500, 500]));
}

#[test]
fn weights_of_three_to_one_share_three_to_one() {
    test(&Layout::default(), |lab| check(lab, Family::V4, [3, 1], [750, 250]));
}

#[test]
fn ipv6_shares_like_ipv4() {
    test(&Layout::default(), |lab| check(lab, Family::V6, [3, 1], [750, 250]));
}

#[test]
fn one_interface_for_both_sides_is_enough() {
    let layout = Layout { front: Front::OneLeg, ..Layout::default() };
    test(&layout, |lab| check(lab, Family::V4, [1, 1], [500, 500]));
    test(&layout, |lab| check(lab, Family::V6, [1, 1], [500, 500]));
}

#[test]
fn generic_mode_shares_like_native_mode() {
    test(&Layout::default(), |lab| {
        let _servers = Nginx::start_all(lab)?;
        let services = [service(lab, Family::V4, [1, 1])];
        let configuration = configuration(lab, &services).replacen("[global]", "[global]\nxdp_mode = \"generic\"", 1);
        let daemon = Daemon::start_with(lab, &configuration)?;
        assert_shares(lab, &daemon, Family::V4, [500, 500])
    });
}

fn service(lab: &Lab, family: Family, weights: [u16; 2]) -> Service {
    let mut service = Service::web(lab, family);
    for ((.., weight), wanted) in service.backends.iter_mut().zip(weights) {
        *weight = wanted;
    }
    service
}

fn check(lab: &Lab, family: Family, weights: [u16; 2], shares: [u64; 2]) -> Result<()> {
    let _servers = Nginx::start_all(lab)?;
    let daemon = Daemon::start(lab, &[service(lab, family, weights)])?;
    assert_shares(lab, &daemon, family, shares)
}

fn assert_shares(lab: &Lab, daemon: &Daemon, family: Family, shares: [u64; 2]) -> Result<()> {
    let tally = lab.client().curl(Lab::VIP.url(family), REQUESTS)?;
    assert!(tally.failures.is_empty(), "{tally:?}");
    let tolerance = 2 * std::thread::available_parallelism()?.get() as u64;
    for (name, share) in ["web-01", "web-02"].iter().zip(shares) {
        let got = tally.of(name);
        assert!(got.abs_diff(share) <= tolerance, "{name} has {got} of {share} ± {tolerance}");
    }
    assert_counters(&daemon.stats()?, &tally)
}

fn assert_counters(stats: &Value, tally: &Tally) -> Result<()> {
    let requests = u64::from(REQUESTS);
    let web = &stats["services"][0];
    assert_eq!(web["connections_total"], requests, "{stats:#}");
    for (name, answers) in &tally.answers {
        let counters = backend(stats, name)?;
        assert_eq!(counters["connections_total"], *answers, "{stats:#}");
        // At the very least: SYN, ACK, request and FIN; SYN-ACK, answer and FIN.
        assert!(counters["packets_in"].as_u64() >= Some(4 * answers), "{stats:#}");
        assert!(counters["packets_out"].as_u64() >= Some(3 * answers), "{stats:#}");
    }
    let drops = stats["drops"].as_object().map(|drops| drops.values().filter_map(Value::as_u64).sum::<u64>());
    assert_eq!(drops, Some(0), "{stats:#}");
    Ok(())
}
