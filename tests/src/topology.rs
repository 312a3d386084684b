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
//! With two legs there may be a router on either way, whose routes can be made narrower than its links.
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
    cgroup::Cgroup,
    client::Client,
    daemon::lb_binary,
    identity::{Identity, clean_leftovers},
    node::{Family, Node},
    pass,
    process::run,
    wiring::{
        BACKENDS, BETWEEN, CLIENT, CLIENTS, FRONT, ROUTER, WEB, addresses, default_route, join, pair, plug, quieten,
        route, v4, v6,
    },
};

/// How the front node is joined to the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Front {
    /// One interface for clients and backends: what comes in leaves by the way it came.
    OneLeg,
    /// `eth0` to the client, `eth1` to the backends.
    TwoLegs,
}

/// A router on one of the two ways of a front node with two legs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Router {
    /// Between the client (`eth0` of the router) and the front node.
    Clients,
    /// Between the front node (`eth0` of the router) and the switch.
    Backends,
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
    /// The router, if there is one.
    pub router: Option<Router>,
}

impl Default for Layout {
    fn default() -> Self {
        Self { front: Front::TwoLegs, webs: 2, routed: false, router: None }
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
    switch: Node,
    router: Option<Node>,
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
        let front = node("front", if layout.router == Some(Router::Backends) { BETWEEN } else { BACKENDS }, FRONT)?;
        let router = layout.router.map(|_| node("router", BETWEEN, ROUTER)).transpose()?;
        let webs = (1..=layout.webs).map(|n| node(&format!("web-{n:02}"), BACKENDS, WEB + n)).collect::<Result<_>>()?;
        let lab = Self { identity, layout: layout.clone(), client, front, switch, router, webs };
        lab.wire()?;
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

    /// The switch. The plug of a machine there is called `MACHINE-eth0`.
    #[must_use]
    pub fn switch(&self) -> &Node {
        &self.switch
    }

    /// The router of a layout that has one.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    pub fn router(&self) -> &Node {
        self.router.as_ref().expect("the layout has a router")
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

    /// Makes a memory cgroup for the programs of a node, one for each node.
    pub fn limit_memory(&self, node: &Node, bytes: u64) -> Result<Cgroup> {
        Cgroup::new(&self.identity.cgroup_of(node.name()), bytes)
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

    /// Has every web server answer for the virtual address by itself, and tell nobody on the network that it has it: what
    /// direct return asks of a backend.
    pub fn share_virtual_address(&self) -> Result<()> {
        let Address { v4, v6, .. } = Self::VIP;
        for web in &self.webs {
            for conf in ["all", "eth0"] {
                web.sysctl(&format!("ipv4/conf/{conf}/arp_ignore"), "1")?;
                web.sysctl(&format!("ipv4/conf/{conf}/arp_announce"), "2")?;
            }
            web.ip_batch(&format!("addr add {v4}/32 dev lo\naddr add {v6}/128 dev lo nodad\n"))?;
        }
        Ok(())
    }

    /// Has every web server take off the outer headers of ipip and gue.
    pub fn decapsulate(&self) -> Result<()> {
        self.webs.iter().try_for_each(|web| {
            let mut decap = web.command(lb_binary()?);
            decap.args(["decap", "--interface", "eth0", "--pin-dir"]).arg(self.identity.pin_dir_of(web.name()));
            run(&mut decap, "").map(drop)
        })
    }

    /// Takes the virtual address from the front node, which needs none.
    pub fn hide_virtual_address(&self) -> Result<()> {
        let Address { v4, v6, .. } = Self::VIP;
        self.front.ip_batch(&format!("addr del {v4}/32 dev lo\naddr del {v6}/128 dev lo\n"))
    }

    /// Makes the front node the gateway of the web servers, though it forwards nothing by itself.
    pub fn route_webs_by_front(&self) -> Result<()> {
        self.webs.iter().try_for_each(|web| web.ip_batch(&default_route(BACKENDS, FRONT)))
    }

    fn wire(&self) -> Result<()> {
        let switch = &self.switch;
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
                self.client.ip_batch(&default_route(BACKENDS, FRONT))?;
            }
            Front::TwoLegs => {
                self.client_leg()?;
                self.backend_leg()?;
            }
        }
        for (n, web) in (1..).zip(&self.webs) {
            web.ip_batch(&addresses("eth0", BACKENDS, WEB + n))?;
            if self.layout.router == Some(Router::Backends) {
                web.ip_batch(&route(BETWEEN, BACKENDS))?;
            }
        }
        let Address { v4, v6, .. } = Self::VIP;
        self.front.ip_batch(&format!("addr add {v4}/32 dev lo\naddr add {v6}/128 dev lo nodad\n"))?;
        // Many short connections from one address to one address.
        self.client.sysctl("ipv4/ip_local_port_range", "10000 65000")?;
        if self.layout.routed {
            self.front.sysctl("ipv4/ip_forward", "1")?;
            self.front.sysctl("ipv6/conf/all/forwarding", "1")?;
            for web in &self.webs {
                web.ip_batch(&default_route(BACKENDS, FRONT))?;
            }
        }
        Ok(())
    }

    fn client_leg(&self) -> Result<()> {
        let (client, front) = (&self.client, &self.front);
        if self.layout.router == Some(Router::Clients) {
            let router = self.router();
            pair(client, "eth0", router, "eth0")?;
            pair(router, "eth1", front, "eth0")?;
            front.ip_batch(&addresses("eth0", BETWEEN, FRONT))?;
            front.ip_batch(&route(CLIENTS, BETWEEN))?;
            join(router, CLIENTS, BETWEEN)?;
            let Address { v4: vip4, v6: vip6, .. } = Self::VIP;
            let (via4, via6) = (v4(BETWEEN, FRONT), v6(BETWEEN, FRONT));
            router.ip_batch(&format!("route add {vip4} via {via4}\nroute add {vip6} via {via6}\n"))?;
        } else {
            pair(client, "eth0", front, "eth0")?;
            front.ip_batch(&addresses("eth0", CLIENTS, FRONT))?;
        }
        client.ip_batch(&addresses("eth0", CLIENTS, CLIENT))?;
        let gateway = if self.layout.router == Some(Router::Clients) { ROUTER } else { FRONT };
        client.ip_batch(&default_route(CLIENTS, gateway))
    }

    fn backend_leg(&self) -> Result<()> {
        if self.layout.router == Some(Router::Backends) {
            let router = self.router();
            pair(router, "eth0", &self.front, "eth1")?;
            plug(router, "eth1", &self.switch)?;
            join(router, BETWEEN, BACKENDS)?;
            self.front.ip_batch(&addresses("eth1", BETWEEN, FRONT))?;
            self.front.ip_batch(&route(BACKENDS, BETWEEN))
        } else {
            plug(&self.front, "eth1", &self.switch)?;
            self.front.ip_batch(&addresses("eth1", BACKENDS, FRONT))
        }
    }
}

/// Whether this process may make a lab.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
