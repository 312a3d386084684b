//! Large transfers arrive as they were sent, in both directions and both families.

use anyhow::{Context, Result};
use lab::{Daemon, Family, Front, Lab, Layout, Nginx, Service, test, transfer};

const SIZE: u64 = 200_000_000;

#[test]
fn a_download_and_an_upload_arrive_intact_over_ipv4() {
    test(&Layout::default(), |lab| check(lab, Family::V4));
}

#[test]
fn a_download_and_an_upload_arrive_intact_over_ipv6() {
    test(&Layout::default(), |lab| check(lab, Family::V6));
}

#[test]
fn a_download_and_an_upload_arrive_intact_through_one_interface() {
    test(&Layout { front: Front::OneLeg, ..Layout::default() }, |lab| check(lab, Family::V4));
}

fn check(lab: &Lab, family: Family) -> Result<()> {
    let servers = Nginx::start_all(lab)?;
    let daemon = Daemon::start(lab, &[Service::web(lab, family)])?;
    transfer(lab, &servers, family, SIZE)?;
    assert!(bytes(&daemon, "bytes_out")? > SIZE);
    assert!(bytes(&daemon, "bytes_in")? > SIZE);
    Ok(())
}

fn bytes(daemon: &Daemon, counter: &str) -> Result<u64> {
    daemon.stats()?["services"][0][counter].as_u64().with_context(|| format!("{counter} is a number"))
}
