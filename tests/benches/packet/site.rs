//! What the balancer is set up for: its services, and tables of its own.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use anyhow::{Context as _, Result};
use lab::Family;
use lb_userspace::{
    dataplane::{Dataplane, Options, XdpMode},
    interface,
    plan::{Algorithm, BackendPlan, Forward, NextHop, Plan, Protocol, ServicePlan},
};

/// Sites that differ in nothing are one. The tables are those of a default configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    /// How its packets reach their backends.
    pub(crate) forward: Forward,
    /// Services of IPv4, at as many as [`ADDRESSES`]; there is one of IPv6.
    pub(crate) services: u16,
    /// Backends of each service.
    pub(crate) backends: u16,
    /// Whether no flows are established there: for flows that begin.
    pub(crate) unused: bool,
}

/// A veth pair: backends seem to be behind its one end, and what live frames bring to the other is dropped there.
pub(crate) const WIRE: [&str; 2] = ["wire0", "wire1"];

/// Virtual addresses, at most.
pub(crate) const ADDRESSES: u16 = 100;

/// Of a default configuration.
const FLOWS: u32 = 1 << 20;

impl Kind {
    pub(crate) const fn usual(forward: Forward) -> Self {
        Self { forward, services: 1, backends: 100, unused: false }
    }

    pub(crate) const fn unused(forward: Forward) -> Self {
        Self { unused: true, ..Self::usual(forward) }
    }

    /// Where clients find a service.
    pub(crate) fn listen(self, family: Family, service: u16) -> SocketAddr {
        let address: IpAddr = match family {
            // RFC 2544's, for benchmarks.
            Family::V4 => Ipv4Addr::from(0xc612_0000 + u32::from(service % ADDRESSES)).into(),
            Family::V6 => [0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 0x10].into(),
        };
        SocketAddr::new(address, 80 + service / ADDRESSES)
    }

    /// The plan, for backends behind an interface.
    pub(crate) fn plan(self, ifindex: u32) -> Plan {
        let v4 = (0..self.services).map(|number| self.service(Family::V4, number, ifindex));
        v4.chain([self.service(Family::V6, 0, ifindex)]).collect()
    }

    fn service(self, family: Family, number: u16, ifindex: u32) -> ServicePlan {
        let backends = (0..self.backends).map(|host| self.backend(family, number, host, ifindex)).collect();
        ServicePlan {
            name: format!("{family:?}-{number}"),
            listen: self.listen(family, number),
            protocol: Protocol::Tcp,
            algorithm: Algorithm::RoundRobin,
            forward: self.forward,
            backends,
        }
    }

    fn backend(self, family: Family, service: u16, host: u16, ifindex: u32) -> BackendPlan {
        let number = u32::from(service) * u32::from(self.backends) + u32::from(host);
        let [_, a, b, c] = number.to_be_bytes();
        let (address, source): (IpAddr, IpAddr) = match family {
            Family::V4 => ([10, 128 + a, b, c].into(), [10, 0, 0, 1].into()),
            Family::V6 => ([0xfd00, 0, 0, 0, 0, 0, 1, host].into(), [0xfd00, 0, 0, 0, 0, 0, 0, 1].into()),
        };
        BackendPlan {
            name: format!("b{number}"),
            // Where only addresses are rewritten, or nothing is, the port stays.
            address: SocketAddr::new(address, if self.forward.sees_replies() { 8080 } else { 80 }),
            weight: 1,
            in_rotation: true,
            healthy: true,
            given_up: false,
            stands_by: false,
            max_connections: None,
            comfortable_connections: None,
            next_hop: Some(NextHop {
                ifindex,
                source,
                source_mac: [2, 0, 0, 0, 1, 0],
                mac: [2, 0, 0, a, b, c],
                mtu: 1500,
            }),
        }
    }

    /// Loads the program with tables for it, which are empty yet.
    pub(crate) fn create(self, pin_dir: PathBuf) -> Result<Dataplane> {
        Ok(Dataplane::open(&Options {
            interfaces: Vec::new(),
            xdp_mode: XdpMode::Native,
            pin_dir,
            flows: FLOWS,
            services: u32::from(self.services) + 1,
            backends: (u32::from(self.services) + 1) * u32::from(self.backends),
            veth: false,
        })?)
    }

    /// The same, with its services.
    pub(crate) fn open(self, pin_dir: PathBuf) -> Result<Dataplane> {
        let backend_side = interface::index(WIRE[0]).context("the wire of the bench is not there")?;
        let mut dataplane = self.create(pin_dir)?;
        dataplane.apply(&self.plan(backend_side))?;
        Ok(dataplane)
    }
}
