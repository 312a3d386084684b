//! nginx as a plain balancer in the front node: connections by turns, and nothing else.

use std::{fs, net::SocketAddr, num::NonZero, path::PathBuf, thread, time::Duration};

use anyhow::{Result, bail, ensure};
use rustix::process::Signal;

use crate::{eventually, process::Process, topology::Lab};

/// Where Debian puts the module.
const MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// nginx with the stream module on an address of the front node.
#[derive(Debug)]
pub struct Stream {
    dir: PathBuf,
    listen: SocketAddr,
    workers: NonZero<usize>,
    process: Process,
}

impl Stream {
    /// Starts it over these servers and waits until it listens. One worker, so that turns are those of all connections.
    pub fn start(lab: &Lab, listen: SocketAddr, servers: &[SocketAddr]) -> Result<Self> {
        Self::start_with(lab, listen, servers, NonZero::<usize>::MIN)
    }

    /// The same with a worker for each core, and a listening socket for each worker.
    pub fn start_on_all_cores(lab: &Lab, listen: SocketAddr, servers: &[SocketAddr]) -> Result<Self> {
        Self::start_with(lab, listen, servers, thread::available_parallelism()?)
    }

    fn start_with(lab: &Lab, listen: SocketAddr, servers: &[SocketAddr], workers: NonZero<usize>) -> Result<Self> {
        ensure!(
            fs::exists(MODULE)?,
            "{MODULE} does not exist; install the package libnginx-mod-stream, or run `cargo xtask setup`"
        );
        let dir = lab.dir().join("stream");
        fs::create_dir(&dir)?;
        let config = dir.join("nginx.conf");
        fs::write(&config, configuration(&dir, listen, servers, workers))?;
        let mut process = Process::start(lab.front(), "nginx".as_ref(), &lab.dir().join("stream.log"), |command| {
            command.arg("-p").arg(&dir).arg("-c").arg(config);
        })?;
        eventually("nginx to balance", Duration::from_secs(10), || {
            if let Some(status) = process.exited()? {
                bail!("nginx ended with {status}: {}", process.log());
            }
            Ok(lab.front().enter(|| std::net::TcpStream::connect(listen)).ok())
        })?;
        Ok(Self { dir, listen, workers, process })
    }

    /// Puts these servers in the place of those before. What is open stays where it is.
    pub fn balance_over(&self, servers: &[SocketAddr]) -> Result<()> {
        fs::write(self.dir.join("nginx.conf"), configuration(&self.dir, self.listen, servers, self.workers))?;
        self.process.signal(Signal::HUP)
    }
}

fn configuration(dir: &std::path::Path, listen: SocketAddr, servers: &[SocketAddr], workers: NonZero<usize>) -> String {
    let servers: String = servers.iter().map(|server| format!("server {server};\n")).collect();
    let dir = dir.display();
    let share = if workers > NonZero::<usize>::MIN { " reuseport" } else { "" };
    format!(
        "load_module {MODULE};
daemon off;
worker_processes {workers};
error_log {dir}.log;
pid {dir}/pid;
events {{ worker_connections 4096; }}
stream {{
    upstream web {{
{servers}    }}
    server {{
        listen {listen} backlog=4096{share};
        proxy_pass web;
    }}
}}
"
    )
}
