//! `HAProxy` in the front node, in TCP mode: a thread for each core, connections by turns, servers checked.

use std::{fs, net::SocketAddr, thread, time::Duration};

use anyhow::{Result, bail};

use crate::{eventually, process::Process, topology::Lab};

/// Starts it and waits until it listens.
pub(super) fn start(lab: &Lab, listen: SocketAddr, webs: &[SocketAddr]) -> Result<Process> {
    let file = lab.dir().join("haproxy.cfg");
    fs::write(&file, configuration(listen, webs, thread::available_parallelism()?.get()))?;
    let mut process = Process::start(lab.front(), "haproxy".as_ref(), &lab.dir().join("haproxy.log"), |command| {
        command.arg("-db").arg("-f").arg(file);
    })?;
    eventually("HAProxy to balance", Duration::from_secs(10), || {
        if let Some(status) = process.exited()? {
            bail!("HAProxy ended with {status}: {}", process.log());
        }
        Ok(lab.front().enter(|| std::net::TcpStream::connect(listen)).ok())
    })?;
    Ok(process)
}

fn configuration(listen: SocketAddr, webs: &[SocketAddr], threads: usize) -> String {
    let servers: String = (1..).zip(webs).map(|(n, web)| format!("    server web-{n:02} {web} check\n")).collect();
    format!(
        "global
    nbthread {threads}
    maxconn 4096
defaults
    mode tcp
    timeout connect 5s
    timeout client 1m
    timeout server 1m
listen web
    bind {listen} shards by-thread
    balance roundrobin
{servers}"
    )
}
