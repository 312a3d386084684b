//! The ways to forward that keep the client's address: transfers arrive intact, and the server sees who asks.

use anyhow::{Context, Result};
use lab::{Daemon, Family, Front, Json, Lab, Layout, Nginx, Service, curl, test, transfer};

const SIZE: u64 = 50_000_000;

const ONE_LEG: Layout = Layout { front: Front::OneLeg, webs: 2, routed: false, router: None };
const TWO_LEGS: Layout = Layout { front: Front::TwoLegs, ..ONE_LEG };

#[test]
fn dnat_brings_everything_through_the_front_node() {
    for family in [Family::V4, Family::V6] {
        test(&TWO_LEGS, |lab| {
            lab.route_webs_by_front()?;
            let stats = check(lab, family, Service { forward: "dnat", ..Service::web(lab, family) })?;
            let web = &stats["services"][0];
            // Both directions are seen here.
            assert!(number(&web["bytes_in"]) > SIZE && number(&web["bytes_out"]) > SIZE, "{stats:#}");
            Ok(())
        });
    }
}

#[test]
fn l2_answers_past_the_front_node() {
    for family in [Family::V4, Family::V6] {
        test(&ONE_LEG, |lab| {
            lab.share_virtual_address()?;
            let stats = check(lab, family, Service { forward: "l2", ..Service::web(lab, family) })?;
            let web = &stats["services"][0];
            assert!(number(&web["bytes_in"]) > SIZE, "{stats:#}");
            assert_eq!(web["bytes_out"], 0, "{stats:#}");
            Ok(())
        });
    }
}

#[test]
fn l2_needs_no_virtual_address_on_the_front_node() {
    test(&TWO_LEGS, |lab| {
        lab.share_virtual_address()?;
        lab.hide_virtual_address()?;
        // The way back leads through the kernel of the front node, which routes.
        lab.route_webs_by_front()?;
        lab.front().sysctl("ipv4/ip_forward", "1")?;
        check(lab, Family::V4, Service { forward: "l2", ..Service::web(lab, Family::V4) }).map(drop)
    });
}

#[test]
fn ipip_and_gue_carry_either_family_over_either() {
    for forward in ["ipip", "gue"] {
        for (family, carrier) in
            [(Family::V4, Family::V4), (Family::V6, Family::V6), (Family::V4, Family::V6), (Family::V6, Family::V4)]
        {
            test(&ONE_LEG, |lab| {
                lab.share_virtual_address()?;
                lab.decapsulate()?;
                let backends = lab.webs().iter().map(|web| (web.name().to_owned(), web.address(carrier, 80), 1));
                let service = Service { forward, backends: backends.collect(), ..Service::web(lab, family) };
                let what = format!("{forward}, {family:?} over {carrier:?}");
                let stats = check(lab, family, service).context(what)?;
                let web = &stats["services"][0];
                assert!(number(&web["bytes_in"]) > SIZE, "{stats:#}");
                assert_eq!(web["bytes_out"], 0, "{stats:#}");
                Ok(())
            });
        }
    }
}

/// Requests, a download and an upload; returns the counters after them.
fn check(lab: &Lab, family: Family, service: Service) -> Result<Json> {
    let servers = Nginx::start_all(lab)?;
    let daemon = Daemon::start(lab, &[service])?;
    let url = Lab::VIP.url(family);
    let tally = lab.client().curl(&url, 100)?;
    assert_eq!((tally.failures.len(), tally.answers.len(), tally.total()), (0, 2, 100), "{tally:?}");
    let who = curl(lab, &[&format!("{url}client")])?;
    assert_eq!(who.trim(), lab.client().node().ip(family).to_string(), "the client's address is kept");

    transfer(lab, &servers, family, SIZE)?;

    let stats = daemon.stats()?;
    assert_eq!(stats["services"][0]["connections_total"], 103, "{stats:#}");
    let drops = stats["drops"].as_object().context("there are drops")?;
    assert!(drops.iter().all(|(reason, number)| *number == 0 || reason == "too_big"), "{stats:#}");
    Ok(stats)
}

fn number(value: &Json) -> u64 {
    value.as_u64().unwrap_or(0)
}
