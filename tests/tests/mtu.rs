//! A narrow way behind or before the front node: whoever sends too much through it is told.

use anyhow::{Context, Result};
use lab::{Daemon, Family, Json, Lab, Layout, Nginx, Node, Router, Service, run, test, transfer};

const SIZE: u64 = 20_000_000;
const NARROW: u32 = 1400;

#[test]
fn a_narrow_way_to_the_backends_is_told_to_the_client() {
    for (family, forward) in [(Family::V4, "nat"), (Family::V6, "nat"), (Family::V4, "dnat"), (Family::V6, "dnat")] {
        test(&Layout { router: Some(Router::Backends), ..Layout::default() }, |lab| {
            for network in ["10.0.0.0/24", "2001:db8:0::/64"] {
                narrow(lab.router(), network, "eth1")?;
            }
            if forward == "dnat" {
                route_back(lab)?;
            }
            check(lab, family, forward)?;
            assert_eq!(path_mtu(lab.client().node(), Lab::VIP.socket(family).ip())?, Some(NARROW), "{forward}");
            Ok(())
        });
    }
}

#[test]
fn a_narrow_way_to_the_client_is_told_to_the_backend() {
    for (family, forward) in [(Family::V4, "nat"), (Family::V6, "nat"), (Family::V4, "dnat"), (Family::V6, "dnat")] {
        test(&Layout { router: Some(Router::Clients), ..Layout::default() }, |lab| {
            for network in ["10.0.1.0/24", "2001:db8:1::/64"] {
                narrow(lab.router(), network, "eth0")?;
            }
            if forward == "dnat" {
                lab.route_webs_by_front()?;
            }
            check(lab, family, forward)?;
            // In nat mode the backend knows the front node's address, in dnat the client's.
            let client = lab.client();
            let peer = if forward == "nat" { lab.front() } else { client.node() };
            let told =
                lab.webs().iter().filter(|web| path_mtu(web, peer.ip(family)).is_ok_and(|mtu| mtu == Some(NARROW)));
            assert!(told.count() > 0, "{forward}: no web server was told");
            Ok(())
        });
    }
}

#[test]
fn a_narrow_way_to_the_backends_is_learnt_behind_encapsulation() {
    for (family, forward, overhead) in
        [(Family::V4, "ipip", 20), (Family::V6, "ipip", 40), (Family::V4, "gue", 28), (Family::V6, "gue", 48)]
    {
        test(&Layout { router: Some(Router::Backends), ..Layout::default() }, |lab| {
            for network in ["10.0.0.0/24", "2001:db8:0::/64"] {
                narrow(lab.router(), network, "eth1")?;
            }
            lab.share_virtual_address()?;
            lab.decapsulate()?;
            // Answers go back directly, which here is by the router and the kernel of the front node.
            route_back(lab)?;
            lab.hide_virtual_address()?;
            lab.front().sysctl("ipv4/ip_forward", "1")?;
            lab.front().sysctl("ipv6/conf/all/forwarding", "1")?;
            check(lab, family, forward).with_context(|| format!("{forward}, {family:?}"))?;
            let told = path_mtu(lab.client().node(), Lab::VIP.socket(family).ip())?;
            assert_eq!(told, Some(NARROW - overhead), "{forward}, {family:?}");
            Ok(())
        });
    }
}

#[test]
fn what_was_learnt_outlasts_a_change_of_the_backend() {
    // One backend: each CPU takes its own turns, so that of two the second might be met for the first time later.
    test(&Layout { router: Some(Router::Backends), webs: 1, ..Layout::default() }, |lab| {
        narrow(lab.router(), "10.0.0.0/24", "eth1")?;
        lab.share_virtual_address()?;
        lab.decapsulate()?;
        route_back(lab)?;
        lab.hide_virtual_address()?;
        lab.front().sysctl("ipv4/ip_forward", "1")?;
        let servers = Nginx::start_all(lab)?;
        let daemon = Daemon::start(lab, &[Service { forward: "ipip", ..Service::web(lab, Family::V4) }])?;
        transfer(lab, &servers, Family::V4, SIZE)?;
        let first = told_by(lab.router())?;
        for web in lab.webs() {
            daemon.lb(&["backend", "set", &format!("web/{}", web.name()), "--weight", "2"])?;
        }
        // The client forgets what it was told, and sends too much once more.
        lab.client().node().ip_batch("route flush cache\n")?;
        transfer(lab, &servers, Family::V4, SIZE)?;
        assert!(first > 0, "the router has told nobody");
        assert_eq!(told_by(lab.router())?, first, "the router had to tell it again");
        Ok(())
    });
}

/// How often a node has said that a packet is too large.
fn told_by(node: &Node) -> Result<u64> {
    let counters = run(node.command("nstat").args(["-asz", "IcmpOutDestUnreachs"]), "")?;
    let mut words = counters.split_whitespace().skip_while(|word| *word != "IcmpOutDestUnreachs");
    words.nth(1).and_then(|number| number.parse().ok()).context("nstat knows the counter")
}

/// Has the web servers reach the client by the router.
fn route_back(lab: &Lab) -> Result<()> {
    lab.router().ip_batch("route add 10.0.1.0/24 via 10.0.2.1\nroute add 2001:db8:1::/64 via 2001:db8:2::1\n")?;
    lab.webs()
        .iter()
        .try_for_each(|web| web.ip_batch("route add default via 10.0.0.253\nroute add default via 2001:db8::fd\n"))
}

fn check(lab: &Lab, family: Family, forward: &'static str) -> Result<()> {
    let servers = Nginx::start_all(lab)?;
    let daemon = Daemon::start(lab, &[Service { forward, ..Service::web(lab, family) }])?;
    transfer(lab, &servers, family, SIZE)?;
    let stats = daemon.stats()?;
    let lost = |(reason, number): &(&String, &Json)| **number != 0 && *reason != "too_big";
    let drops = stats["drops"].as_object().map(|drops| drops.iter().filter(lost).count());
    assert_eq!(drops, Some(0), "{stats:#}");
    Ok(())
}

/// Has a router let through no more than [`NARROW`] bytes to a network, though its links do.
fn narrow(router: &Node, network: &str, interface: &str) -> Result<()> {
    router.ip_batch(&format!(
        "route del {network} dev {interface}\nroute add {network} dev {interface} mtu lock {NARROW}\n"
    ))
}

/// What the kernel of a node has learnt about the way to an address.
fn path_mtu(node: &Node, to: std::net::IpAddr) -> Result<Option<u32>> {
    let route = run(node.command("ip").args(["route", "get"]).arg(to.to_string()), "")?;
    let mut words = route.split_whitespace().skip_while(|word| *word != "mtu");
    Ok(words.nth(1).and_then(|mtu| mtu.parse().ok()))
}
