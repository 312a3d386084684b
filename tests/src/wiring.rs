//! Cables and addresses: what joins two nodes, and how they find each other.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use crate::node::Node;

/// Third byte of the networks 10.0.N.0/24 and 2001:db8:N::/64.
pub(crate) const BACKENDS: u8 = 0;
pub(crate) const CLIENTS: u8 = 1;
/// On the far side of the router, seen from the client or from the web servers.
pub(crate) const BETWEEN: u8 = 2;

pub(crate) const FRONT: u8 = 1;
pub(crate) const CLIENT: u8 = 2;
pub(crate) const WEB: u8 = 10;
pub(crate) const ROUTER: u8 = 253;

pub(crate) fn v4(network: u8, host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, network, host)
}

pub(crate) fn v6(network: u8, host: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, network.into(), 0, 0, 0, 0, host.into())
}

pub(crate) fn addresses(interface: &str, network: u8, host: u8) -> String {
    let (v4, v6) = (v4(network, host), v6(network, host));
    format!("addr add {v4}/24 dev {interface}\naddr add {v6}/64 dev {interface} nodad\n")
}

pub(crate) fn default_route(network: u8, gateway: u8) -> String {
    let (v4, v6) = (v4(network, gateway), v6(network, gateway));
    format!("route add default via {v4}\nroute add default via {v6}\n")
}

/// To a network, by the router.
pub(crate) fn route(network: u8, near: u8) -> String {
    let (v4, v6, via4, via6) = (v4(network, 0), v6(network, 0), v4(near, ROUTER), v6(near, ROUTER));
    format!("route add {v4}/24 via {via4}\nroute add {v6}/64 via {via6}\n")
}

/// Makes a router of a node, from `eth0` in one network to `eth1` in another.
pub(crate) fn join(router: &Node, left: u8, right: u8) -> Result<()> {
    router.ip_batch(&addresses("eth0", left, ROUTER))?;
    router.ip_batch(&addresses("eth1", right, ROUTER))?;
    router.sysctl("ipv4/ip_forward", "1")?;
    router.sysctl("ipv6/conf/all/forwarding", "1")
}

/// No address is in doubt, none comes by itself: IPv6 works from the first packet.
pub(crate) fn quieten(node: &Node) -> Result<()> {
    for (key, value) in [("accept_dad", "0"), ("dad_transmits", "0"), ("accept_ra", "0")] {
        for conf in ["all", "default"] {
            node.sysctl(&format!("ipv6/conf/{conf}/{key}"), value)?;
        }
    }
    node.ip_batch("link set lo up\n")
}

/// Joins an interface to the bridge of the switch.
pub(crate) fn plug(node: &Node, interface: &str, switch: &Node) -> Result<()> {
    let port = format!("{}-{interface}", node.name());
    pair(node, interface, switch, &port)?;
    switch.ip_batch(&format!("link set {port} master br0\n"))
}

/// Joins two nodes with a veth pair that XDP can transmit on, from either end.
pub(crate) fn pair(left: &Node, left_name: &str, right: &Node, right_name: &str) -> Result<()> {
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
