//! From an address to the way to it, and what to do while a neighbour is silent.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    time::{Duration, Instant},
};

use rtnetlink::{Error, Handle};

use super::{
    Table,
    kernel::{self, Link, Neighbours, Route},
};
use crate::plan::NextHop;

/// How often the kernel is asked to verify a neighbour.
const ASK: Duration = Duration::from_secs(1);

pub(super) struct Resolver {
    handle: Handle,
    /// The last MAC of each neighbour, by interface and address. A neighbour that falls silent keeps it: whether the
    /// backend behind it lives is for health checks to say, not for ARP.
    known: HashMap<(u32, IpAddr), [u8; 6]>,
    asked: HashMap<(u32, IpAddr), Instant>,
}

impl Resolver {
    pub(super) fn new(handle: Handle) -> Self {
        Self { handle, known: HashMap::new(), asked: HashMap::new() }
    }

    /// The way to each address. Neighbours that are not known to be alive are asked for on the way.
    pub(super) async fn resolve(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<Table, Error> {
        let links = kernel::links(&self.handle).await?;
        let neighbours = kernel::neighbours(&self.handle).await?;
        let mut table = Table::new();
        let mut in_use = BTreeSet::new();
        for address in addresses {
            let way = match kernel::route(&self.handle, *address).await? {
                Err(why) => Err(why),
                Ok(route) => {
                    let hop = route.hop(*address);
                    in_use.insert(hop);
                    self.ask(hop, &neighbours).await;
                    way(*address, &route, &links, &neighbours, &mut self.known)
                }
            };
            table.insert(*address, way);
        }
        self.known.retain(|hop, _| in_use.contains(hop));
        self.asked.retain(|hop, _| in_use.contains(hop));
        Ok(table)
    }

    /// Traffic through XDP is unknown to the kernel, which would let the neighbour age out; so it is told.
    async fn ask(&mut self, hop: (u32, IpAddr), neighbours: &Neighbours) {
        if neighbours.get(&hop).is_some_and(|neighbour| neighbour.fresh) {
            return;
        }
        let due = self.asked.get(&hop).is_none_or(|at| at.elapsed() >= ASK);
        if due {
            self.asked.insert(hop, Instant::now());
            if let Err(error) = kernel::use_neighbour(&self.handle, hop.0, hop.1).await {
                tracing::debug!("cannot ask for neighbour {} on interface {}: {error}", hop.1, hop.0);
            }
        }
    }
}

/// The way to an address by its route. `known` learns the MACs of neighbours and gives those of silent ones.
fn way(
    address: IpAddr,
    route: &Route,
    links: &HashMap<u32, Link>,
    neighbours: &Neighbours,
    known: &mut HashMap<(u32, IpAddr), [u8; 6]>,
) -> Result<NextHop, String> {
    let Some(link) = links.get(&route.interface) else {
        return Err(format!("the route to {address} leaves by interface {}, which is gone", route.interface));
    };
    if !link.up {
        return Err(format!("the route to {address} leaves by {}, which is down", link.name));
    }
    let Some(source_mac) = link.mac else {
        return Err(format!("the route to {address} leaves by {}, which is not Ethernet", link.name));
    };
    let Some(source) = route.source else {
        return Err(format!("{} has no address to reach {address} from", link.name));
    };
    let hop = route.hop(address);
    if let Some(mac) = neighbours.get(&hop).and_then(|neighbour| neighbour.mac) {
        known.insert(hop, mac);
    }
    match (known.get(&hop), route.gateway) {
        (Some(mac), _) => {
            let mtu = route.mtu.unwrap_or(link.mtu);
            Ok(NextHop { ifindex: route.interface, source, source_mac, mac: *mac, mtu })
        }
        (None, None) => Err(format!("no neighbour: {address} does not answer on {}", link.name)),
        (None, Some(gateway)) => {
            Err(format!("no neighbour: gateway {gateway} to {address} does not answer on {}", link.name))
        }
    }
}

#[cfg(test)]
mod tests;
