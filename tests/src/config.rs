//! The daemon's configuration file, written from named fields.

use std::{fmt::Write as _, net::SocketAddr, time::Duration};

use crate::{
    node::Family,
    topology::{Lab, Layout},
};

/// A `[service.NAME]` and its backends.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its name.
    pub name: &'static str,
    /// The virtual address.
    pub listen: SocketAddr,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// As the configuration spells it.
    pub algorithm: &'static str,
    /// As the configuration spells it.
    pub forward: &'static str,
    /// The probes.
    pub health: Health,
    /// Name, address and weight.
    pub backends: Vec<(String, SocketAddr, u16)>,
}

/// A `[service.NAME.health]`.
#[derive(Clone, Debug)]
pub struct Health {
    /// `http`, `tcp` or `none`.
    pub kind: &'static str,
    /// Between two probes.
    pub interval: Duration,
    /// For one probe.
    pub timeout: Duration,
    /// Successes to go up.
    pub rise: u32,
    /// Failures to go down.
    pub fall: u32,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            kind: "http",
            interval: Duration::from_millis(200),
            timeout: Duration::from_millis(500),
            rise: 2,
            fall: 3,
        }
    }
}

impl Service {
    /// `web`, on the lab's virtual address, over its first two web servers on port 80.
    #[must_use]
    pub fn web(lab: &Lab, family: Family) -> Self {
        let backends = lab.webs().iter().take(Layout::default().webs.into());
        Self {
            name: "web",
            listen: Lab::VIP.socket(family),
            protocol: "tcp",
            algorithm: "round-robin",
            forward: "nat",
            health: Health::default(),
            backends: backends.map(|web| (web.name().to_owned(), web.address(family, 80), 1)).collect(),
        }
    }

    pub(crate) fn toml(&self) -> String {
        let Self { name, listen, protocol, algorithm, forward, health, backends } = self;
        let mut toml = format!("[service.{name}]\nlisten = \"{listen}\"\nalgorithm = \"{algorithm}\"\n");
        if (*protocol, *forward) != ("tcp", "nat") {
            let _ = writeln!(toml, "protocol = \"{protocol}\"\nforward = \"{forward}\"");
        }
        let _ = writeln!(toml, "\n[service.{name}.health]\ntype = \"{}\"", health.kind);
        if health.kind != "none" {
            let (interval, timeout) = (health.interval.as_millis(), health.timeout.as_millis());
            let _ = writeln!(toml, "interval = \"{interval}ms\"\ntimeout = \"{timeout}ms\"");
            let _ = writeln!(toml, "rise = {}\nfall = {}", health.rise, health.fall);
        }
        for (backend, address, weight) in backends {
            let _ = write!(
                toml,
                "\n[[service.{name}.backend]]\nname = \"{backend}\"\naddress = \"{address}\"\nweight = {weight}\n"
            );
        }
        toml
    }
}

/// The whole file for the daemon of a lab.
#[must_use]
pub fn configuration(lab: &Lab, services: &[Service]) -> String {
    let dir = lab.dir();
    let interfaces: Vec<_> = lab.interfaces().iter().map(|name| format!("\"{name}\"")).collect();
    let mut toml = format!(
        "[global]\ninterfaces = [{}]\nsocket = \"{}\"\nstate_dir = \"{}\"\npin_dir = \"{}\"\nflows = 65536\n",
        interfaces.join(", "),
        dir.join("lb.sock").display(),
        dir.join("state").display(),
        lab.pin_dir().display(),
    );
    for service in services {
        toml.push('\n');
        toml.push_str(&service.toml());
    }
    toml
}

/// The same for a daemon that does not judge the traffic of these services.
#[must_use]
pub fn unjudging(lab: &Lab, services: &[Service]) -> String {
    let unjudged = services.iter().map(|service| format!("\n[service.{}.passive]\nenabled = false\n", service.name));
    configuration(lab, services) + &unjudged.collect::<String>()
}
