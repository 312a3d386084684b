//! nginx in a web node.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::{
    eventually,
    http::Connection,
    node::{Family, Node},
    process::Process,
    topology::Lab,
};

/// nginx on port 80 of a node, and behind TLS on port 443. `/` answers the node's name, `/client` the client's address, `/files/` serves the lab's directory, `PUT /upload/NAME`
/// stores a file in [`Nginx::uploads`].
#[derive(Debug)]
pub struct Nginx {
    node: Node,
    dir: PathBuf,
    process: Option<Process>,
}

impl Nginx {
    /// One in every web node of the lab.
    pub fn start_all(lab: &Lab) -> Result<Vec<Self>> {
        lab.webs().iter().map(|web| Self::start_in(lab, web)).collect()
    }

    /// Starts one and waits until it answers.
    pub fn start_in(lab: &Lab, node: &Node) -> Result<Self> {
        let dir = lab.dir().join(format!("nginx-{}", node.name()));
        fs::create_dir_all(dir.join("upload"))?;
        fs::write(dir.join("nginx.conf"), configuration(node.name(), &dir, &lab.dir()))?;
        let mut nginx = Self { node: node.clone(), dir, process: None };
        nginx.start()?;
        Ok(nginx)
    }

    /// Starts it again after [`Nginx::stop`] and waits until it answers.
    pub fn start(&mut self) -> Result<()> {
        let log = self.dir.with_extension("log");
        let configuration = self.dir.join("nginx.conf");
        let mut process = Process::start(&self.node, Path::new("nginx"), &log, |command| {
            command.arg("-p").arg(&self.dir).arg("-c").arg(configuration);
        })?;
        let address = self.node.address(Family::V4, 80);
        eventually(&format!("nginx in {}", self.node.name()), Duration::from_secs(10), || {
            if let Some(status) = process.exited()? {
                bail!("nginx in {} ended with {status}: {}", self.node.name(), process.log());
            }
            Ok(self.node.enter(|| Connection::open(address, None)?.last_get()).ok())
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// Stops it at once, connections included.
    pub fn stop(&mut self) -> Result<()> {
        self.process.take().map_or(Ok(()), |process| process.end(Signal::TERM).map(drop))
    }

    /// Whether `/` answers 500 from the next request on.
    pub fn fail(&self, fail: bool) -> Result<()> {
        let flag = self.dir.join("fail");
        let done = if fail { fs::write(&flag, "") } else { fs::remove_file(&flag) };
        done.with_context(|| format!("cannot change {}", flag.display()))
    }

    /// Whether it is silent: the kernel accepts connections, nobody answers.
    pub fn freeze(&self, freeze: bool) -> Result<()> {
        let process = self.process.as_ref().context("nginx is not running")?;
        process.signal(if freeze { Signal::STOP } else { Signal::CONT })
    }

    /// Where uploads arrive.
    #[must_use]
    pub fn uploads(&self) -> PathBuf {
        self.dir.join("upload")
    }

    /// Its node.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }
}

/// The certificate and the key of `web.example`.
const CERTIFICATES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../lb-userspace/src/probe/tests");

/// One process, so that nothing is left when it is killed.
fn configuration(name: &str, dir: &Path, files: &Path) -> String {
    let (dir, files) = (dir.display(), files.display());
    let any = Ipv4Addr::UNSPECIFIED;
    format!(
        "daemon off;
master_process off;
error_log {dir}.log;
pid {dir}/pid;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    default_type text/plain;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    client_max_body_size 0;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    server {{
        listen {any}:80 backlog=4096;
        listen [::]:80 backlog=4096;
        listen {any}:443 ssl;
        ssl_certificate {CERTIFICATES}/server.pem;
        ssl_certificate_key {CERTIFICATES}/server.key.pem;
        location = / {{
            if (-f {dir}/fail) {{ return 500 {name}; }}
            return 200 {name};
        }}
        location = /client {{ return 200 $remote_addr; }}
        location /files/ {{ alias {files}/; }}
        location /upload/ {{ root {dir}; dav_methods PUT; }}
    }}
}}
"
    )
}
