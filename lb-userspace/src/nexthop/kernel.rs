//! What rtnetlink answers, reduced to what a next hop is made of.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use futures_util::{StreamExt, TryStreamExt};
use rtnetlink::{
    Error, Handle, RouteMessageBuilder,
    packet_route::{
        link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType},
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourState},
        route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia},
    },
};

/// An interface.
pub(super) struct Link {
    pub(super) name: String,
    pub(super) up: bool,
    /// Of Ethernet interfaces.
    pub(super) mac: Option<[u8; 6]>,
    /// 0 where the kernel does not say.
    pub(super) mtu: u16,
}

/// A neighbour entry.
pub(super) struct Neighbour {
    pub(super) mac: Option<[u8; 6]>,
    /// Known to be alive, or not in need of proof.
    pub(super) fresh: bool,
}

/// By interface and address.
pub(super) type Neighbours = HashMap<(u32, IpAddr), Neighbour>;

/// What `ip route get` says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) interface: u32,
    pub(super) gateway: Option<IpAddr>,
    pub(super) source: Option<IpAddr>,
    /// Where it is smaller than that of the interface.
    pub(super) mtu: Option<u16>,
}

impl Route {
    /// The neighbour that takes packets to `address`: its interface and its own address.
    pub(super) fn hop(&self, address: IpAddr) -> (u32, IpAddr) {
        (self.interface, self.gateway.unwrap_or(address))
    }
}

pub(super) async fn links(handle: &Handle) -> Result<HashMap<u32, Link>, Error> {
    let mut links = HashMap::new();
    let mut messages = handle.link().get().execute();
    while let Some(message) = messages.try_next().await? {
        let ethernet = message.header.link_layer_type == LinkLayerType::Ether;
        let mut link =
            Link { name: String::new(), up: message.header.flags.contains(LinkFlags::Up), mac: None, mtu: 0 };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Address(address) if ethernet => link.mac = address.try_into().ok(),
                LinkAttribute::Mtu(mtu) => link.mtu = u16::try_from(mtu).unwrap_or(u16::MAX),
                _ => {}
            }
        }
        links.insert(message.header.index, link);
    }
    Ok(links)
}

/// The names of all ends of veth pairs.
pub(super) async fn veths(handle: &Handle) -> Result<HashSet<String>, Error> {
    let mut names = HashSet::new();
    let mut messages = handle.link().get().execute();
    while let Some(message) = messages.try_next().await? {
        let is_veth = message.attributes.iter().any(|attribute| {
            matches!(attribute, LinkAttribute::LinkInfo(infos) if infos.contains(&LinkInfo::Kind(InfoKind::Veth)))
        });
        let name = message.attributes.into_iter().find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name),
            _ => None,
        });
        names.extend(name.filter(|_| is_veth));
    }
    Ok(names)
}

pub(super) async fn neighbours(handle: &Handle) -> Result<Neighbours, Error> {
    let mut neighbours = HashMap::new();
    let mut messages = Box::pin(handle.neighbours().get().execute());
    while let Some(message) = messages.next().await {
        let message = message?;
        let fresh = matches!(
            message.header.state,
            NeighbourState::Reachable | NeighbourState::Permanent | NeighbourState::Noarp
        );
        let mut address = None;
        let mut neighbour = Neighbour { mac: None, fresh };
        for attribute in message.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => address = Some(IpAddr::V4(ip)),
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => address = Some(IpAddr::V6(ip)),
                NeighbourAttribute::LinkLayerAddress(mac) => neighbour.mac = mac.try_into().ok(),
                _ => {}
            }
        }
        if let Some(address) = address {
            neighbours.insert((message.header.ifindex, address), neighbour);
        }
    }
    Ok(neighbours)
}

/// The route to an address, or why none can be used.
pub(super) async fn route(handle: &Handle, address: IpAddr) -> Result<Result<Route, String>, Error> {
    let request = match address {
        IpAddr::V4(ip) => RouteMessageBuilder::<std::net::Ipv4Addr>::new().destination_prefix(ip, 32).build(),
        IpAddr::V6(ip) => RouteMessageBuilder::<std::net::Ipv6Addr>::new().destination_prefix(ip, 128).build(),
    };
    match handle.route().get(request).execute().try_next().await {
        Ok(Some(message)) => Ok(usable(address, &message)),
        Ok(None) => Ok(Err(format!("no route to {address}"))),
        // The kernel answers "no route" with an error: ENETUNREACH, EHOSTUNREACH, EACCES, EINVAL by the kind of route.
        Err(Error::NetlinkError(error)) => Ok(Err(format!("no route to {address}: {}", error.to_io().kind()))),
        Err(error) => Err(error),
    }
}

fn usable(address: IpAddr, message: &RouteMessage) -> Result<Route, String> {
    match message.header.kind {
        RouteType::Unicast => {}
        RouteType::Local => {
            return Err(format!("{address} is an address of this machine; a backend must be another machine"));
        }
        other => return Err(format!("no route to {address}: its route is of type {other:?}").to_lowercase()),
    }
    let (mut interface, mut gateway, mut source, mut mtu) = (None, None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Gateway(via) => gateway = ip(via),
            RouteAttribute::Via(RouteVia::Inet(via)) => gateway = Some(IpAddr::V4(*via)),
            RouteAttribute::Via(RouteVia::Inet6(via)) => gateway = Some(IpAddr::V6(*via)),
            RouteAttribute::PrefSource(from) => source = ip(from),
            RouteAttribute::Metrics(metrics) => mtu = metrics.iter().find_map(path_mtu),
            _ => {}
        }
    }
    let interface = interface.ok_or_else(|| format!("the route to {address} names no interface"))?;
    Ok(Route { interface, gateway, source, mtu })
}

/// Of a route, or learnt by the kernel for its destination.
fn path_mtu(metric: &RouteMetric) -> Option<u16> {
    match metric {
        RouteMetric::Mtu(mtu) => u16::try_from(*mtu).ok(),
        _ => None,
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}

/// As if the kernel had a packet for the neighbour: it resolves or verifies it (`ip neighbour ... use`).
pub(super) async fn use_neighbour(handle: &Handle, interface: u32, address: IpAddr) -> Result<(), Error> {
    let request = handle.neighbours().add(interface, address).replace();
    request.state(NeighbourState::None).flags(NeighbourFlags::Use).execute().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_unicast_route_can_be_used() {
        use RouteAttribute::{Gateway, Oif, PrefSource, Via};
        let v4 = |text: &str| RouteAddress::Inet(text.parse().unwrap());
        let check = |kind: RouteType, attributes: Vec<RouteAttribute>, expected: Result<(u32, &str, &str), &str>| {
            let mut message = RouteMessage::default();
            message.header.kind = kind;
            message.attributes = attributes;
            let ip = |text: &str| text.parse().ok();
            let expected = expected.map(|(interface, gateway, source)| Route {
                interface,
                mtu: None,
                gateway: ip(gateway),
                source: ip(source),
            });
            assert_eq!(usable("10.0.0.11".parse().unwrap(), &message), expected.map_err(str::to_owned));
        };
        let local = vec![Oif(1), PrefSource(v4("10.0.0.11"))];
        check(RouteType::Unicast, vec![Oif(2), PrefSource(v4("10.0.0.1"))], Ok((2, "", "10.0.0.1")));
        check(
            RouteType::Unicast,
            vec![Oif(2), Gateway(v4("10.0.0.254")), PrefSource(v4("10.0.0.1"))],
            Ok((2, "10.0.0.254", "10.0.0.1")),
        );
        let v6 = Via(RouteVia::Inet6("fe80::1".parse().unwrap()));
        check(RouteType::Unicast, vec![Oif(3), v6], Ok((3, "fe80::1", "")));
        check(RouteType::Unicast, vec![], Err("the route to 10.0.0.11 names no interface"));
        check(
            RouteType::Local,
            local,
            Err("10.0.0.11 is an address of this machine; a backend must be another machine"),
        );
        check(RouteType::BlackHole, vec![], Err("no route to 10.0.0.11: its route is of type blackhole"));
    }
}
