//! New connections come as fast when every source port has been used as when none has, though the web servers remember each
//! closed connection for a minute.

use std::{
    net::{IpAddr, Ipv4Addr},
    thread::sleep,
    time::Duration,
};

use anyhow::Result;
use lab::{Daemon, Family, Lab, Layout, Nginx, Service, test};

const PERIOD: Duration = Duration::from_secs(3);

#[test]
fn connections_of_one_client_come_and_go_without_a_pause() {
    test(&Layout::default(), |lab| steady(lab, &[]));
}

#[test]
fn connections_of_many_clients_come_and_go_without_a_pause() {
    let addresses: Vec<IpAddr> = (100..116).map(|host| Ipv4Addr::new(10, 0, 1, host).into()).collect();
    test(&Layout::default(), |lab| steady(lab, &addresses));
}

fn steady(lab: &Lab, addresses: &[IpAddr]) -> Result<()> {
    let _servers = Nginx::start_all(lab)?;
    let daemon = Daemon::start(lab, &[Service::web(lab, Family::V4)])?;
    let load = lab.client().load_from(Lab::VIP.socket(Family::V4), 64, addresses)?;
    let mut rates = Vec::new();
    let mut before = 0;
    for _ in 0..4 {
        sleep(PERIOD);
        let total = load.progress().tally.total();
        rates.push(total - before);
        before = total;
    }
    let progress = load.stop();
    assert_eq!(progress.failures.iter().map(|failure| &failure.why).collect::<Vec<_>>(), [""; 0]);
    let stats = daemon.stats()?;
    let (least, most) = (rates.iter().min().unwrap_or(&0), rates.iter().max().unwrap_or(&0));
    assert!(least * 4 > *most, "connections in each {PERIOD:?}: {rates:?}\n{stats:#}");
    assert_eq!(stats["drops"]["nat_ports_exhausted"], 0, "{stats:#}");
    println!("{rates:?}");
    Ok(())
}
