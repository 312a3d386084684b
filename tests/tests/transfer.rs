//! Large transfers arrive as they were sent, in both directions and both families.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
    process::Command,
};

use anyhow::{Context, Result};
use lab::{Daemon, Family, Front, Lab, Layout, Nginx, Service, run, test};

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
    let sent = lab.dir().join("sent");
    io::copy(&mut File::open("/dev/urandom")?.take(SIZE), &mut File::create(&sent)?)?;
    let sum = sha256(&sent)?;

    let received = lab.dir().join("received");
    let url = Lab::VIP.url(family);
    curl(lab, &["--output", path(&received)?, &format!("{url}files/sent")])?;
    assert_eq!(sha256(&received)?, sum, "the download is not what nginx sent");
    assert!(bytes(&daemon, "bytes_out")? > SIZE);

    curl(lab, &["--upload-file", path(&sent)?, &format!("{url}upload/it")])?;
    let uploads: Vec<_> = servers.iter().map(|nginx| nginx.uploads().join("it")).filter(|it| it.exists()).collect();
    let [upload] = &uploads[..] else { panic!("the upload is at {uploads:?}") };
    assert_eq!(sha256(upload)?, sum, "the upload is not what curl sent");
    assert!(bytes(&daemon, "bytes_in")? > SIZE);
    fs::remove_file(received)?;
    Ok(())
}

fn curl(lab: &Lab, arguments: &[&str]) -> Result<()> {
    let mut curl = lab.client().node().command("curl");
    curl.args(["--silent", "--show-error", "--fail", "--globoff"]);
    curl.args(["--connect-timeout", "10", "--max-time", "120"]).args(arguments);
    run(&mut curl, "").map(drop)
}

fn sha256(path: &Path) -> Result<String> {
    let line = run(Command::new("sha256sum").arg(path), "")?;
    Ok(line.split_whitespace().next().context("sha256sum prints a sum")?.to_owned())
}

fn bytes(daemon: &Daemon, counter: &str) -> Result<u64> {
    daemon.stats()?["services"][0][counter].as_u64().with_context(|| format!("{counter} is a number"))
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("the path is UTF-8")
}
