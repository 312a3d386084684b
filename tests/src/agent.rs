//! `lb agent` in a web node.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Result, bail};

use crate::{
    cgroup::Cgroup,
    daemon::lb_binary,
    eventually,
    node::{Family, Node},
    process::{Process, run},
    topology::Lab,
};

/// Where it is asked, by default.
const PORT: u16 = 9634;

/// `lb agent` that looks at a memory cgroup ten times a second, and at nothing that other programs of this machine change.
/// Dropping it kills it.
#[derive(Debug)]
pub struct Agent {
    _process: Process,
    address: SocketAddr,
}

impl Agent {
    /// Starts one and waits until it answers.
    pub fn start(lab: &Lab, node: &Node, cgroup: &Cgroup) -> Result<Self> {
        let log = lab.dir().join(format!("agent-{}.log", node.name()));
        let mut process = Process::start(node, &lb_binary()?, &log, |command| {
            command.args(["agent", "--interval", "100ms", "--cgroup"]).arg(cgroup.path());
            command.args(["--pressure-begin", "100", "--pressure-red", "101"]);
            command.args(["--load-begin", "1000", "--load-red", "2000"]);
        })?;
        let address = node.address(Family::V6, PORT);
        eventually(&format!("lb agent in {}", node.name()), Duration::from_secs(10), || {
            if let Some(status) = process.exited()? {
                bail!("lb agent in {} ended with {status}: {}", node.name(), process.log());
            }
            Ok(node.enter(|| std::net::TcpStream::connect(address)).ok())
        })?;
        Ok(Self { _process: process, address })
    }

    /// What it says as JSON to a node that asks.
    pub fn json(&self, from: &Node) -> Result<serde_json::Value> {
        let mut curl = from.command("curl");
        curl.args(["--silent", "--show-error", "--fail", "--globoff", "--max-time", "5"])
            .arg(format!("http://{}/", self.address));
        Ok(run(&mut curl, "")?.parse()?)
    }
}
