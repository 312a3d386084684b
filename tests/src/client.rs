//! The client node, and what it can do.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    net::{IpAddr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustix::{
    net::{SendFlags, sendto},
    thread::{CpuSet, sched_getaffinity},
};

use crate::{
    crowd::Crowd,
    datagram::{Segment, raw_sender},
    flood::Flood,
    http::Connection,
    load::Load,
    node::{Family, Node},
    paced::{self, Paced},
    process::run,
};

/// The machine that connections come from.
#[derive(Clone, Debug)]
pub struct Client(Node);

/// Who answered how often, and what went wrong.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Answers with status 200, by their body: the name of the server.
    pub answers: BTreeMap<String, u64>,
    /// Everything else, in words.
    pub failures: Vec<String>,
}

impl Tally {
    /// Answers with status 200 from one server.
    #[must_use]
    pub fn of(&self, server: &str) -> u64 {
        self.answers.get(server).copied().unwrap_or(0)
    }

    /// Answers with status 200 from all servers.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.answers.values().sum()
    }
}

impl Client {
    pub(crate) fn new(node: &Node) -> Self {
        Self(node.clone())
    }

    /// The machine.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.0
    }

    /// Requests a URL with curl, `count` times, one after the other, each over a connection of its own and all from one CPU: each
    /// takes turns of its own.
    pub fn curl(&self, url: impl AsRef<str>, count: u32) -> Result<Tally> {
        let mut curl = self.0.command("curl");
        curl.args(["--silent", "--insecure", "--globoff", "--max-time", "5", "--header", "Connection: close"]);
        // The status is 000 when there was no answer; the exit code then says why.
        curl.args(["--write-out", " %{http_code} %{exitcode}\\n"]);
        // The exit code of curl is that of the last request; here every request has its own.
        let script = "\"$@\" || true";
        let urls = format!("url = \"{}\"\n", url.as_ref()).repeat(count as usize);
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", script, "curl", "taskset", "--cpu-list", &first_cpu()?.to_string()]);
        shell.arg(curl.get_program()).args(curl.get_args()).args(["--config", "-"]);
        let mut tally = Tally::default();
        for line in run(&mut shell, &urls)?.lines() {
            match line.split_whitespace().collect::<Vec<_>>()[..] {
                [body, "200", "0"] => *tally.answers.entry(body.to_owned()).or_default() += 1,
                _ => tally.failures.push(format!("curl: {}", line.trim())),
            }
        }
        Ok(tally)
    }

    /// Connects.
    pub fn connect(&self, to: SocketAddr) -> Result<Connection> {
        self.0.enter(|| Connection::open(to, None))
    }

    /// Connects and asks once: the open connection, and who answered.
    pub fn visit(&self, to: SocketAddr) -> Result<(Connection, String)> {
        let mut connection = self.connect(to)?;
        let server = connection.get()?.body;
        Ok((connection, server))
    }

    /// That a connection is refused, and sooner than a SYN is repeated: what takes longer hangs.
    pub fn ensure_refused(&self, to: SocketAddr) -> Result<()> {
        let started = Instant::now();
        let refused = self.0.enter(|| TcpStream::connect_timeout(&to, Duration::from_secs(5)));
        let kind = refused.err().context("it was not refused")?.kind();
        ensure!(kind == ErrorKind::ConnectionRefused, "{kind:?}");
        ensure!(started.elapsed() < Duration::from_millis(900), "it took {:?}", started.elapsed());
        Ok(())
    }

    /// One request over a connection of its own, from each of these source ports: who answered.
    pub fn get_from_ports(
        &self,
        to: SocketAddr,
        ports: impl Iterator<Item = u16> + Send,
    ) -> Result<BTreeMap<u16, String>> {
        let any = if to.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
        let get = |port| Connection::open(to, Some(SocketAddr::new(any, port)))?.last_get();
        self.0.enter(|| ports.map(|port| Ok((port, get(port)?.body))).collect())
    }

    /// Starts requests in the background: `threads` at a time, each over a connection of its own.
    #[must_use]
    pub fn load(&self, to: SocketAddr, threads: usize) -> Load {
        Load::start(&self.0, to, threads, &[])
    }

    /// The same, from several addresses by turns. The client gets those that it does not have yet.
    pub fn load_from(&self, to: SocketAddr, threads: usize, addresses: &[IpAddr]) -> Result<Load> {
        let length = if to.is_ipv4() { 32 } else { 128 };
        let add = |address: &IpAddr| format!("addr replace {address}/{length} dev eth0\n");
        self.0.ip_batch(&addresses.iter().map(add).collect::<String>())?;
        Ok(Load::start(&self.0, to, threads, addresses))
    }

    /// `count` connections with one request each, `rate` begun in a second whatever becomes of them.
    #[must_use]
    pub fn paced(&self, to: SocketAddr, count: u32, rate: u32) -> Paced {
        paced::run(&self.0, to, count, rate)
    }

    /// Opens `count` connections that stay and are busy all the time.
    pub fn crowd(&self, to: SocketAddr, count: usize) -> Result<Crowd> {
        Crowd::start(&self.0, to, count)
    }

    /// Starts to send such segments, one after the other, from each of many addresses that nobody has.
    pub fn flood(&self, to: SocketAddr, each: &'static [Segment]) -> Result<Flood> {
        Flood::start(&self.0, to, each)
    }

    /// Sends IP packets as they are.
    pub fn send_raw(&self, packets: &[Vec<u8>], to: IpAddr) -> Result<()> {
        let family = if to.is_ipv4() { Family::V4 } else { Family::V6 };
        let socket = self.0.enter(|| raw_sender(family))?;
        for packet in packets {
            sendto(&socket, packet, SendFlags::empty(), &SocketAddr::new(to, 0))?;
        }
        Ok(())
    }

    /// Echo requests, five; the number of replies.
    pub fn ping(&self, to: IpAddr) -> Result<u32> {
        let started = Instant::now();
        let output = self.0.command("ping").args(["-n", "-c5", "-i0.1", "-W2"]).arg(to.to_string()).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let received = text.split(", ").find_map(|part| part.strip_suffix(" received"));
        let received = received.and_then(|count| count.parse().ok());
        received.ok_or_else(|| {
            let stderr = String::from_utf8_lossy(&output.stderr);
            anyhow::anyhow!("ping {to} gave no result in {:?}: {text}{stderr}", started.elapsed())
        })
    }
}

/// The first that this process may run on.
fn first_cpu() -> Result<usize> {
    let allowed = sched_getaffinity(None).context("cannot tell the CPUs")?;
    (0..CpuSet::MAX_CPU).find(|&cpu| allowed.is_set(cpu)).context("there is no CPU")
}
