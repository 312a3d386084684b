//! Files that go through the load balancer and have to arrive as they were sent.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{nginx::Nginx, node::Family, process::run, topology::Lab};

/// Downloads a file of `size` random bytes through the virtual address, then uploads it, and compares SHA-256 sums.
pub fn transfer(lab: &Lab, servers: &[Nginx], family: Family, size: u64) -> Result<()> {
    let sent = lab.dir().join("sent");
    io::copy(&mut File::open("/dev/urandom")?.take(size), &mut File::create(&sent)?)?;
    let sum = sha256(&sent)?;
    let url = Lab::VIP.url(family);

    let received = lab.dir().join("received");
    let output = received.display().to_string();
    curl(lab, &["--output", &output, &format!("{url}files/sent")]).context("the download failed")?;
    ensure!(sha256(&received)? == sum, "the download is not what nginx sent");
    fs::remove_file(received)?;

    let input = sent.display().to_string();
    curl(lab, &["--upload-file", &input, &format!("{url}upload/it")]).context("the upload failed")?;
    let uploads: Vec<_> = servers.iter().map(|nginx| nginx.uploads().join("it")).filter(|it| it.exists()).collect();
    let [upload] = &uploads[..] else { bail!("the upload is at {uploads:?}") };
    ensure!(sha256(upload)? == sum, "the upload is not what curl sent");
    Ok(fs::remove_file(upload)?)
}

/// What curl in the client prints.
pub fn curl(lab: &Lab, arguments: &[&str]) -> Result<String> {
    let mut curl = lab.client().node().command("curl");
    curl.args(["--silent", "--show-error", "--fail", "--globoff"]);
    curl.args(["--connect-timeout", "10", "--max-time", "60"]).args(arguments);
    run(&mut curl, "")
}

fn sha256(path: &Path) -> Result<String> {
    let line = run(Command::new("sha256sum").arg(path), "")?;
    Ok(line.split_whitespace().next().context("sha256sum prints a sum")?.to_owned())
}
