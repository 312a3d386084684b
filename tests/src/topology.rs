//! Who is joined to whom, with which addresses.
//!
//! Two legs (the default):
//!
//! ```text
//! client eth0 ──── eth0 front eth1 ──── switch ┬── eth0 web-01
//!                                              └── eth0 web-02 …
//! ```
//!
//! One leg: client, front and web servers are all on the switch. The switch is a bridge in a namespace of its own.
//!
//! The web servers know no route to the client, and the front node does not forward, unless the layout says `routed`:
//! what the client gets back came through the load balancer.

use std::{
    fmt::Write as _,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};

use crate::{
    client::Client,
    identity::{Identity, clean_leftovers},
    node::{Family, Node},
    pass,
};

/// How the front node is joined to the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Front {
    /// One interface for clients and backends: what comes in leaves by the way it came.
    OneLeg,
    /// `eth0` to the client, `eth1` to the backends.
    TwoLegs,
}

/// What the lab looks like.
#[derive(Clone, Debug)]
pub struct Layout {
    /// How the front node is joined to the rest.
    pub front: Front,
    /// How many web servers, at most 99.
    pub webs: u8,
    /// Whether the front node also routes between client and web servers, as the kernel does without `lb`.
    pub routed: bool,
}

impl Default for Layout {
    fn default() -> Self {
        Self { front: Front::TwoLegs, webs: 2, routed: false }
    }
}

/// An address in both families with a port.
#[derive(Clone, Copy, Debug)]
pub struct Address {
    v4: Ipv4Addr,
    v6: Ipv6Addr,
    port: u16,
}

impl Address {
    /// The same address with another port.
    #[must_use]
    pub const fn with_port(self, port: u16) -> Self {
        Self { port, ..self }
    }

    /// As a socket address.
    #[must_use]
    pub fn socket(self, family: Family) -> SocketAddr {
        let ip: IpAddr = match family {
            Family::V4 => self.v4.into(),
            Family::V6 => self.v6.into(),
        };
        (ip, self.port).into()
    }

    /// As the URL of its root page.
    #[must_use]
    pub fn url(self, family: Family) -> String {
        format!("http://{}/", self.socket(family))
    }
}

/// Namespaces, joined and addressed. Dropping it removes everything.
#[derive(Debug)]
pub struct Lab {
    identity: Identity,
    layout: Layout,
    client: Node,
    front: Node,
    webs: Vec<Node>,
}

impl Lab {
    /// The virtual address of the service: on no network that the client or a web server has an interface in.
    pub const VIP: Address = Address {
        v4: Ipv4Addr::new(203, 0, 113, 10),
        v6: Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 0x10),
        port: 80,
    };

    /// Removes what killed runs left, then makes a lab.
    pub fn new(layout: &Layout) -> Result<Self> {
        ensure!(is_root(), "the lab needs root, for network namespaces and XDP; run it with sudo");
        ensure!((1..=99).contains(&layout.webs), "a lab has 1 to 99 web servers, not {}", layout.webs);
        clean_leftovers()?;
        let identity = Identity::new()?;
        let node = |name: &str, network: u8, host: u8| -> Result<Node> {
            let namespace = identity.add_namespace(name)?;
            let node = Node::new(name, &namespace, v4(network, host), v6(network, host));
            quieten(&node)?;
            Ok(node)
        };
        let switch = node("switch", BACKENDS, 254)?;
        let client = node("client", if layout.front == Front::OneLeg { BACKENDS } else { CLIENTS }, CLIENT)?;
        let front = node("front", BACKENDS, FRONT)?;
        let webs = (1..=layout.webs).map(|n| node(&format!("web-{n:02}"), BACKENDS, WEB + n)).collect::<Result<_>>()?;
        let lab = Self { identity, layout: layout.clone(), client, front, webs };
        lab.wire(&switch)?;
        Ok(lab)
    }

    /// Where connections start.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(&self.client)
    }

    /// Where `lb` runs.
    #[must_use]
    pub fn front(&self) -> &Node {
        &self.front
    }

    /// The web servers, `web-01` first.
    #[must_use]
    pub fn webs(&self) -> &[Node] {
        &self.webs
    }

    /// The interfaces of the front node.
    #[must_use]
    pub fn interfaces(&self) -> &'static [&'static str] {
        match self.layout.front {
            Front::OneLeg => &["eth0"],
            Front::TwoLegs => &["eth0", "eth1"],
        }
    }

    /// A directory for files, sockets and logs. What ends in `.log` is shown when a test fails.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.identity.dir()
    }

    /// The `pin_dir` of this lab's daemon.
    #[must_use]
    pub fn pin_dir(&self) -> PathBuf {
        self.identity.pin_dir()
    }

    /// The end of every log.
    #[must_use]
    pub fn logs(&self) -> String {
        let mut logs = String::new();
        for path in fs::read_dir(self.dir()).into_iter().flatten().flatten().map(|entry| entry.path()) {
            if path.extension().is_some_and(|extension| extension == "log") {
                let text = fs::read_to_string(&path).unwrap_or_default();
                let lines: Vec<_> = text.lines().collect();
                let tail = &lines[lines.len().saturating_sub(40)..];
                let name = path.file_name().unwrap_or_default();
                let _ = write!(logs, "--- {}\n{}\n", Path::new(name).display(), tail.join("\n"));
            }
        }
        logs
    }

    fn wire(&self, switch: &Node) -> Result<()> {
        switch.ip_batch("link add br0 type bridge forward_delay 0 mcast_snooping 0\nlink set br0 up\n")?;
        for web in &self.webs {
            plug(web, "eth0", switch)?;
        }
        match self.layout.front {
            Front::OneLeg => {
                plug(&self.client, "eth0", switch)?;
                plug(&self.front, "eth0", switch)?;
                pass::attach(switch, "front-eth0", &self.dir())?;
                self.front.ip_batch(&addresses("eth0", BACKENDS, FRONT))?;
                self.client.ip_batch(&addresses("eth0", BACKENDS, CLIENT))?;
                self.client.ip_batch(&default_route(BACKENDS))?;
            }
            Front::TwoLegs => {
                pair(&self.client, "eth0", &self.front, "eth0")?;
                plug(&self.front, "eth1", switch)?;
                self.front.ip_batch(&addresses("eth0", CLIENTS, FRONT))?;
                self.front.ip_batch(&addresses("eth1", BACKENDS, FRONT))?;
                self.client.ip_batch(&addresses("eth0", CLIENTS, CLIENT))?;
                self.client.ip_batch(&default_route(CLIENTS))?;
            }
        }
        for (n, web) in (1..).zip(&self.webs) {
            web.ip_batch(&addresses("eth0", BACKENDS, WEB + n))?;
        }
        let Address { v4, v6, .. } = Self::VIP;
        self.front.ip_batch(&format!("addr add {v4}/32 dev lo\naddr add {v6}/128 dev lo nodad\n"))?;
        // Many short connections from one address to one address.
        self.client.sysctl("ipv4/ip_local_port_range", "10000 65000")?;
        if self.layout.routed {
            self.front.sysctl("ipv4/ip_forward", "1")?;
            self.front.sysctl("ipv6/conf/all/forwarding", "1")?;
            for web in &self.webs {
                web.ip_batch(&default_route(BACKENDS))?;
            }
        }
        Ok(())
    }
}

/// Whether this process may make a lab.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Third byte of the networks 10.0.N.0/24 and 2001:db8:N::/64.
const BACKENDS: u8 = 0;
const CLIENTS: u8 = 1;

const FRONT: u8 = 1;
const CLIENT: u8 = 2;
const WEB: u8 = 10;

fn v4(network: u8, host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, network, host)
}

fn v6(network: u8, host: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, network.into(), 0, 0, 0, 0, host.into())
}

fn addresses(interface: &str, network: u8, host: u8) -> String {
    let (v4, v6) = (v4(network, host), v6(network, host));
    format!("addr add {v4}/24 dev {interface}\naddr add {v6}/64 dev {interface} nodad\n")
}

fn default_route(network: u8) -> String {
    let (v4, v6) = (v4(network, FRONT), v6(network, FRONT));
    format!("route add default via {v4}\nroute add default via {v6}\n")
}

/// No address is in doubt, none comes by itself: IPv6 works from the first packet.
fn quieten(node: &Node) -> Result<()> {
    for (key, value) in [("accept_dad", "0"), ("dad_transmits", "0"), ("accept_ra", "0")] {
        for conf in ["all", "default"] {
            node.sysctl(&format!("ipv6/conf/{conf}/{key}"), value)?;
        }
    }
    node.ip_batch("link set lo up\n")
}

/// Joins an interface to the bridge of the switch.
fn plug(node: &Node, interface: &str, switch: &Node) -> Result<()> {
    let port = format!("{}-{interface}", node.name());
    pair(node, interface, switch, &port)?;
    switch.ip_batch(&format!("link set {port} master br0\n"))
}

/// Joins two nodes with a veth pair that XDP can transmit on, from either end.
fn pair(left: &Node, left_name: &str, right: &Node, right_name: &str) -> Result<()> {
    let namespace = right.namespace().file_name().unwrap_or_default().display();
    left.ip_batch(&format!(
        "link add {left_name} type veth peer name {right_name} netns {namespace}\nlink set {left_name} up\n"
    ))?;
    right.ip_batch(&format!("link set {right_name} up\n"))?;
    for (node, name) in [(left, left_name), (right, right_name)] {
        // Packets of local sockets would bear half a checksum.
        node.ethtool(name, &["tx", "off"])?;
        // Gives the interface NAPI, without which a redirect from the other end is refused with EOPNOTSUPP; only once
        // both ends are up. For XDP_TX it takes more: see `pass`.
        node.ethtool(name, &["gro", "on"])?;
    }
    Ok(())
}
