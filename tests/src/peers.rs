//! `lb`, and what one would use in its place: each between the same client and the same two web servers.
//!
//! What is not the balancer is the same for all: wires, servers, the client, its ports, the address that it asks. The
//! others are set up as their manuals advise for many short connections on a machine with several cores. With `l2` and
//! `ipip` answers go from the web servers to the client by a wire of its own, which is what these are for; all else
//! passes the front node both ways.
//!
//! What all are compared with is the front node's kernel as a router between both, by equal-cost routes (ECMP). One route to each
//! server, and half of the client's connections to each of them, would be no comparison: then one half of the client and one server
//! work in step on one core, which no balancer lets them do, and the 99th percentile is a tenth of what it is when either half
//! speaks to both (0.7 ms and 7.5 ms on two cores).

mod haproxy;
mod nftables;
mod opens;
mod processor;
mod wrk;

use std::{
    fmt::{self, Debug},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::Result;

pub use self::{
    processor::Processor,
    wrk::{Load, Report},
};
use crate::{
    Daemon, Family, Front, Lab, Layout, Nginx, Service, Stream,
    config::configuration,
    wiring::{self, BACKENDS, CLIENT, CLIENTS},
};

/// What stands between the client and the web servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Contender {
    /// The kernel, which routes the virtual address to both servers.
    Direct,
    /// `lb`, full NAT.
    LbNat,
    /// `lb`, MAC rewrite and direct return.
    LbL2,
    /// `lb`, encapsulation and direct return.
    LbIpip,
    /// nftables: DNAT by turns, with masquerade.
    Nftables,
    /// `HAProxy` in TCP mode.
    Haproxy,
    /// nginx with the stream module.
    NginxStream,
}

impl Contender {
    /// All of them, `Direct` first.
    pub const ALL: [Self; 7] =
        [Self::Direct, Self::LbNat, Self::LbL2, Self::LbIpip, Self::Nftables, Self::Haproxy, Self::NginxStream];

    /// `lb`, in its modes.
    pub const LB: [Self; 3] = [Self::LbNat, Self::LbL2, Self::LbIpip];

    /// Those that one would use in place of `lb`.
    pub const PEERS: [Self; 3] = [Self::Nftables, Self::Haproxy, Self::NginxStream];
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Direct => "direct",
            Self::LbNat => "lb nat",
            Self::LbL2 => "lb l2",
            Self::LbIpip => "lb ipip",
            Self::Nftables => "nftables",
            Self::Haproxy => "HAProxy",
            Self::NginxStream => "nginx stream",
        })
    }
}

/// The lab of each contender. A new one each time: nothing that one leaves behind is in another's way.
pub const LAYOUT: Layout = Layout { front: Front::TwoLegs, webs: 2, routed: true, router: None };

/// A contender at work in a lab, on the virtual address.
#[derive(Debug)]
pub struct Road<'a> {
    lab: &'a Lab,
    vip: SocketAddr,
    _balancer: Option<Box<dyn Debug>>,
    _servers: Vec<Nginx>,
}

impl<'a> Road<'a> {
    /// Puts a contender into a new lab of that layout and waits until it serves.
    pub fn new(lab: &'a Lab, contender: Contender) -> Result<Self> {
        let servers = Nginx::start_all(lab)?;
        // Ports that the client used a second ago do for new connections.
        lab.client().node().sysctl("ipv4/tcp_tw_reuse", "1")?;
        let vip = Lab::VIP.socket(Family::V4);
        let webs = [0, 1].map(|n| lab.webs()[n].address(Family::V4, 80));
        let balancer: Option<Box<dyn Debug>> = match contender {
            Contender::Direct => {
                route(lab, vip.ip(), webs.map(|web| web.ip()))?;
                None
            }
            Contender::LbNat => Some(Box::new(lb(lab, "nat")?)),
            Contender::LbL2 => {
                return_directly(lab)?;
                Some(Box::new(lb(lab, "l2")?))
            }
            Contender::LbIpip => {
                return_directly(lab)?;
                lab.decapsulate()?;
                Some(Box::new(lb(lab, "ipip")?))
            }
            Contender::Nftables => {
                nftables::start(lab.front(), vip, webs)?;
                None
            }
            Contender::Haproxy => {
                widen_ports(lab)?;
                Some(Box::new(haproxy::start(lab, vip, &webs)?))
            }
            Contender::NginxStream => {
                widen_ports(lab)?;
                Some(Box::new(Stream::start_on_all_cores(lab, vip, &webs)?))
            }
        };
        Ok(Self { lab, vip, _balancer: balancer, _servers: servers })
    }

    /// Has wrk make requests in the client, over `connections` at a time.
    pub fn drive(&self, load: Load, connections: u32, duration: Duration) -> Result<Report> {
        wrk::wrk(self.lab.client().node(), &self.lab.dir(), self.vip, load, connections, duration)
    }

    /// The same with new connections, and how many of them the servers accepted in each second. A second more passes first,
    /// in which it begins.
    pub fn hold(&self, connections: u32, duration: Duration) -> Result<(Report, Vec<f64>)> {
        let drive = || self.drive(Load::New, connections, duration + Duration::from_secs(1));
        opens::per_second(self.lab.webs(), duration, drive)
    }
}

/// The servers have the virtual address, and the front node an equal route to it by each. Flows are told apart by their ports.
fn route(lab: &Lab, vip: IpAddr, [first, second]: [IpAddr; 2]) -> Result<()> {
    lab.share_virtual_address()?;
    lab.hide_virtual_address()?;
    lab.front().sysctl("ipv4/fib_multipath_hash_policy", "1")?;
    lab.front().ip_batch(&format!("route add {vip} nexthop via {first} nexthop via {second}\n"))
}

/// `lb` as its README has it: what it does not say is left at its default.
fn lb(lab: &Lab, forward: &'static str) -> Result<Daemon> {
    let service = Service { forward, ..Service::web(lab, Family::V4) };
    Daemon::start_with(lab, &configuration(lab, &[service]).replace("flows = 65536\n", ""))
}

/// The servers have the virtual address, and a wire to the client past the front node.
fn return_directly(lab: &Lab) -> Result<()> {
    let client = lab.client();
    let client = client.node();
    lab.share_virtual_address()?;
    wiring::plug(client, "eth1", lab.switch())?;
    client.ip_batch(&wiring::addresses("eth1", BACKENDS, CLIENT))?;
    // The client asks by one interface and is answered by another.
    for conf in ["all", "eth1"] {
        client.sysctl(&format!("ipv4/conf/{conf}/rp_filter"), "0")?;
    }
    let (clients, wire) = (wiring::v4(CLIENTS, 0), wiring::v4(BACKENDS, CLIENT));
    lab.webs().iter().try_for_each(|web| web.ip_batch(&format!("route add {clients}/24 via {wire}\n")))
}

/// A proxy connects to the servers from ports of its own.
fn widen_ports(lab: &Lab) -> Result<()> {
    lab.front().sysctl("ipv4/ip_local_port_range", "1024 65000")?;
    lab.front().sysctl("ipv4/tcp_tw_reuse", "1")
}
