//! Interfaces with jumbo frames.

use anyhow::Result;
use lab::{Daemon, Family, Lab, Layout, Nginx, Service, run, test, transfer};

const SIZE: u64 = 50_000_000;

#[test]
fn jumbo_frames_go_through() {
    for family in [Family::V4, Family::V6] {
        test(&Layout::default(), |lab| {
            set_mtu(lab, 9000)?;
            let daemon = check(lab, family)?;
            let attached = daemon.lb(&["xdp", "status", "-o", "json"])?;
            assert_eq!(attached.stdout.matches("native").count(), 2, "{attached:?}");
            Ok(())
        });
    }
}

fn check(lab: &Lab, family: Family) -> Result<Daemon> {
    let servers = Nginx::start_all(lab)?;
    let daemon = Daemon::start(lab, &[Service::web(lab, family)])?;
    transfer(lab, &servers, family, SIZE)?;
    let stats = daemon.stats()?;
    let drops = stats["drops"].as_object().map(|drops| drops.values().filter(|number| **number != 0).count());
    assert_eq!(drops, Some(0), "{stats:#}");
    // A packet of 1,500 bytes carries no more than 1,460: these were larger, the acknowledgments of the download included.
    for counter in ["packets_in", "packets_out"] {
        let packets = stats["services"][0][counter].as_u64();
        assert!(packets < Some(SIZE / 3_000), "{stats:#}");
    }
    Ok(daemon)
}

fn set_mtu(lab: &Lab, mtu: u32) -> Result<()> {
    for node in [lab.client().node(), lab.front(), lab.switch()].into_iter().chain(lab.webs()) {
        let links = run(node.command("ip").args(["-brief", "link"]), "")?;
        let mut names = links.lines().filter_map(|line| line.split(['@', ' ']).next()).filter(|name| *name != "lo");
        names.try_for_each(|name| node.ip_batch(&format!("link set {name} mtu {mtu}\n")))?;
    }
    Ok(())
}
