//! Where everything stands in the maps: a pure function of plans, in order.
//!
//! What is there keeps its place for as long as it is planned: an established flow refers to its backend by index, and to
//! its service by slot. A place that was given up is not given again until [`Placement::reclaim`], which the caller
//! may only call when no packet and no flow can refer to it any more.

mod members;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use lb_common::{
    layout::{self, Config, MAX_REACH, Ring, VIRTUAL_ADDRESS, backend_flags},
    nat, service,
    wire::Be16,
};

use self::members::{entries, is_limited, limits, path, spare, takes_flows};
use super::{
    address::{self, family, words},
    ops::{Op, Ops},
    space::Space,
};
use crate::plan::{Algorithm, BackendPlan, Forward, Plan, ServicePlan};

/// No room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Full {
    /// No slot within reach of a service's home.
    #[error("services")]
    Services,
    /// No backend index.
    #[error("backends")]
    Backends,
    /// No segment of the ring space.
    #[error("rings")]
    Rings,
}

/// Address and port, and IP protocol number.
type Key = (SocketAddr, u8);

/// What stands where.
#[derive(Clone, Debug)]
pub(crate) struct Placement {
    config: Config,
    services: BTreeMap<Key, Arc<Placed>>,
    /// The slot of each virtual address's entry.
    addresses: BTreeMap<IpAddr, u32>,
    /// By slot: which service, if any, and the slot's reach.
    slots: BTreeMap<u32, (Option<Key>, u8)>,
    backends: Space,
    rings: Space,
    /// The slots of services whose open flows are counted, as in `lb_common::schedule::counts_flows`.
    counted: BTreeSet<u32>,
    /// The slots of services with a backend that has a limit.
    limited: BTreeSet<u32>,
    /// The last plan: what is the same in the next one stays where it is.
    plan: Plan,
}

#[derive(Clone, Debug)]
struct Placed {
    slot: u32,
    /// What it was placed for; none after adoption.
    plan: Option<Arc<ServicePlan>>,
    ring: Segment,
    /// Where to look for room; empty where no backend has a limit.
    spare: Segment,
    /// How many of those are no backups.
    spare_own: u32,
    backends: BTreeMap<SocketAddr, (u32, layout::Backend)>,
}

/// Backends in the ring space.
#[derive(Clone, Debug)]
struct Segment {
    ring: Ring,
    /// What is there; nothing where that is not known, after adoption.
    entries: Option<Arc<[u32]>>,
}

impl Placement {
    /// Empty maps.
    pub(crate) fn new(config: Config) -> Self {
        Self {
            services: BTreeMap::new(),
            addresses: BTreeMap::new(),
            slots: BTreeMap::new(),
            backends: Space::new(config.backends),
            rings: Space::new(config.rings),
            counted: BTreeSet::new(),
            limited: BTreeSet::new(),
            plan: Plan::default(),
            config,
        }
    }

    /// Maps found in the kernel, written by another instance of this: the service table, and the backends that are present.
    pub(crate) fn adopt(
        config: Config,
        services: impl IntoIterator<Item = (u32, layout::Service)>,
        backends: impl IntoIterator<Item = (u32, layout::Backend)>,
    ) -> Self {
        let mut placement = Self::new(config);
        let mut placed = BTreeMap::new();
        let mut keys = BTreeMap::new();
        for (slot, service) in services {
            let address = address::socket(service.address, service.family, service.port);
            let key = (service.protocol != 0).then_some((address, service.protocol));
            placement.slots.insert(slot, (key, service.reach));
            if service.protocol == VIRTUAL_ADDRESS {
                placement.addresses.insert(address.ip(), slot);
            } else if let Some(key) = key {
                let ring = Ring::from_word(service.ring);
                let spare = Ring::from_word(service.spare);
                let segments = [ring, spare].map(|ring| {
                    placement.rings.take(ring.base, ring.length);
                    Segment { ring, entries: None }
                });
                let [ring, spare] = segments;
                keys.insert(slot, key);
                let backends = BTreeMap::new();
                placed.insert(key, Placed { slot, plan: None, ring, spare, spare_own: 0, backends });
            }
        }
        for (index, backend) in backends {
            placement.backends.take(index, 1);
            if let Some(service) = keys.get(&backend.service).and_then(|key| placed.get_mut(key)) {
                service.backends.insert(address::of_backend(&backend), (index, backend));
            }
        }
        placement.services = placed.into_iter().map(|(key, placed)| (key, Arc::new(placed))).collect();
        placement
    }

    /// The changes that make the maps say what the plan says. After an error nothing has changed.
    pub(crate) fn change(&mut self, plan: &Plan) -> Result<Vec<Op>, Full> {
        let differ = |(old, new): (&Arc<ServicePlan>, &Arc<ServicePlan>)| !Arc::ptr_eq(old, new);
        let pairs = self.plan.services.iter().zip(&plan.services);
        let differing: Vec<usize> =
            pairs.enumerate().filter(|(_, pair)| differ(*pair)).map(|(position, _)| position).collect();
        let one_for_one = self.plan.services.len() == plan.services.len()
            && differing.iter().all(|&at| key(&self.plan.services[at]) == key(&plan.services[at]));
        if one_for_one { self.change_services(plan, &differing) } else { self.change_all(plan) }
    }

    /// Where only what services are like has changed, of those at these positions: costs as much as they do, however many others
    /// there are.
    fn change_services(&mut self, plan: &Plan, positions: &[usize]) -> Result<Vec<Op>, Full> {
        let mut ops = Ops::default();
        if positions.is_empty() {
            return Ok(Vec::new());
        }
        let spaces = (self.backends.clone(), self.rings.clone());
        let marked = (self.counted.clone(), self.limited.clone());
        let mut replaced = Vec::new();
        for &position in positions {
            let service = &plan.services[position];
            let key = key(service);
            let before = self.services.get(&key).cloned();
            if let Err(full) = self.place_changed(service, &mut ops) {
                (self.backends, self.rings) = spaces;
                (self.counted, self.limited) = marked;
                self.services.extend(replaced);
                return Err(full);
            }
            replaced.extend(before.map(|before| (key, before)));
        }
        for &position in positions {
            self.plan.services[position] = Arc::clone(&plan.services[position]);
        }
        Ok(ops.in_order())
    }

    /// Where services come or go.
    fn change_all(&mut self, plan: &Plan) -> Result<Vec<Op>, Full> {
        let mut next = self.clone();
        let mut ops = Ops::default();
        let planned: BTreeSet<Key> = plan.services.iter().map(|service| key(service)).collect();
        let gone: Vec<Key> = next.services.keys().filter(|key| !planned.contains(key)).copied().collect();
        for key in gone {
            next.remove(key, &mut ops);
        }
        for service in &plan.services {
            next.place_changed(service, &mut ops)?;
        }
        next.announce(plan, &mut ops)?;
        next.plan = plan.clone();
        *self = next;
        Ok(ops.in_order())
    }

    /// Places a service that is not as it was.
    fn place_changed(&mut self, service: &Arc<ServicePlan>, ops: &mut Ops) -> Result<(), Full> {
        let key = key(service);
        if self.services.get(&key).is_none_or(|placed| placed.plan.as_ref() != Some(service)) {
            self.place(key, service, ops)?;
        }
        Ok(())
    }

    /// Every operation that leads from empty maps to what stands in them.
    pub(crate) fn expected(&self) -> Vec<Op> {
        let mut ops = Ops::default();
        for placed in self.services.values() {
            let Some(plan) = &placed.plan else { continue };
            for Segment { ring, entries } in [&placed.ring, &placed.spare] {
                if let Some(entries) = entries {
                    ops.rings.push(Op::SetRing { ring: *ring, entries: entries.clone() });
                }
            }
            for backend in &plan.backends {
                let (index, value) = placed.backends[&backend.address];
                let (limits, name) = (limits(backend), backend.name.clone());
                ops.backends.push(Op::SetBackend { index, value, limits, name, fresh: false });
            }
            self.set_service(placed, plan, &mut ops);
        }
        for (address, slot) in &self.addresses {
            self.set_address(*address, *slot, &mut ops);
        }
        ops.in_order()
    }

    /// The slots of services whose open flows are counted.
    pub(crate) fn counted(&self) -> &BTreeSet<u32> {
        &self.counted
    }

    /// Whether any backend has a limit.
    pub(crate) fn has_limits(&self) -> bool {
        !self.limited.is_empty()
    }

    /// The backends of services with limits: service, name and index.
    pub(crate) fn limited(&self) -> impl Iterator<Item = (&str, &str, u32)> {
        let limited = self.services.values().filter(|placed| self.limited.contains(&placed.slot));
        let plans = limited.filter_map(|placed| Some((placed, placed.plan.as_ref()?)));
        plans.flat_map(|(placed, plan)| {
            let of = |backend: &'_ BackendPlan| placed.backends[&backend.address].0;
            plan.backends.iter().map(move |backend| (plan.name.as_str(), backend.name.as_str(), of(backend)))
        })
    }

    /// Slots that hold a service.
    pub(crate) fn service_slots(&self) -> BTreeSet<u32> {
        self.services.values().map(|placed| placed.slot).chain(self.addresses.values().copied()).collect()
    }

    /// Indexes that hold a backend.
    pub(crate) fn backend_indexes(&self) -> BTreeSet<u32> {
        self.services.values().flat_map(|placed| placed.backends.values().map(|(index, _)| *index)).collect()
    }

    /// No backend has an index from there on.
    pub(crate) fn backends_end(&self) -> u32 {
        self.backends.end()
    }

    /// Places given up may be given again: no running program and no flow refers to them.
    pub(crate) fn reclaim(&mut self) {
        self.backends.reclaim();
        self.rings.reclaim();
    }

    /// Gives every virtual address its entry, and takes those away that are none any more.
    fn announce(&mut self, plan: &Plan, ops: &mut Ops) -> Result<(), Full> {
        let planned: BTreeSet<IpAddr> = plan.services.iter().map(|service| service.listen.ip()).collect();
        let gone: Vec<IpAddr> = self.addresses.keys().filter(|address| !planned.contains(address)).copied().collect();
        for address in gone {
            if let Some(slot) = self.addresses.remove(&address) {
                self.leave_slot(slot, ops);
            }
        }
        for address in planned {
            if !self.addresses.contains_key(&address) {
                let slot = self.take_slot((SocketAddr::new(address, 0), VIRTUAL_ADDRESS), ops)?;
                self.addresses.insert(address, slot);
                self.set_address(address, slot, ops);
            }
        }
        Ok(())
    }

    fn set_address(&self, address: IpAddr, slot: u32, ops: &mut Ops) {
        let reach = self.slots.get(&slot).map_or(0, |(_, reach)| *reach);
        let value = layout::Service {
            address: words(address),
            protocol: VIRTUAL_ADDRESS,
            family: family(address),
            reach,
            ..Default::default()
        };
        ops.services.push(Op::SetService { slot, value, name: String::new() });
    }

    fn leave_slot(&mut self, slot: u32, ops: &mut Ops) {
        let entry = self.slots.entry(slot).or_default();
        entry.0 = None;
        ops.gone_services.push(Op::ClearService { slot, reach: entry.1 });
    }

    fn remove(&mut self, key: Key, ops: &mut Ops) {
        let Some(placed) = self.services.remove(&key) else { return };
        self.leave_slot(placed.slot, ops);
        self.counted.remove(&placed.slot);
        self.limited.remove(&placed.slot);
        for (index, _) in placed.backends.values() {
            self.backends.give(*index, 1);
            ops.gone_backends.push(Op::ClearBackend { index: *index, service: placed.slot });
        }
        for Segment { ring, .. } in [&placed.ring, &placed.spare] {
            self.rings.give(ring.base, ring.length);
        }
    }

    fn place(&mut self, key: Key, plan: &Arc<ServicePlan>, ops: &mut Ops) -> Result<(), Full> {
        let old = self.services.get(&key).cloned();
        let slot = match &old {
            Some(old) => old.slot,
            None => self.take_slot(key, ops)?,
        };
        let known = old.as_ref().map(|old| old.backends.clone()).unwrap_or_default();
        let mut backends = BTreeMap::new();
        for backend in &plan.backends {
            let before = known.get(&backend.address);
            let index = match before {
                Some((index, _)) => *index,
                None => self.backends.allocate(1).ok_or(Full::Backends)?,
            };
            let value = self.backend(plan, backend, slot, before.map(|(_, value)| value));
            backends.insert(backend.address, (index, value));
            let (limits, name) = (limits(backend), backend.name.clone());
            ops.backends.push(Op::SetBackend { index, value, limits, name, fresh: before.is_none() });
        }
        for (address, (index, _)) in &known {
            if !backends.contains_key(address) {
                self.backends.give(*index, 1);
                ops.gone_backends.push(Op::ClearBackend { index: *index, service: slot });
            }
        }
        let ring = self.segment(old.as_ref().map(|old| &old.ring), entries(plan, &backends), ops)?;
        let (own, backups) = if is_limited(plan) { spare(plan, &backends) } else { Default::default() };
        let spare_own = u32::try_from(own.len()).map_err(|_| Full::Rings)?;
        let spare = self.segment(old.as_ref().map(|old| &old.spare), [own, backups].concat(), ops)?;
        let placed = Placed { slot, plan: Some(Arc::clone(plan)), ring, spare, spare_own, backends };
        self.set_service(&placed, plan, ops);
        mark(&mut self.limited, slot, is_limited(plan));
        let by_flows = matches!(plan.algorithm, Algorithm::LeastConnections | Algorithm::RandomTwo);
        mark(&mut self.counted, slot, by_flows || is_limited(plan));
        self.services.insert(key, Arc::new(placed));
        Ok(())
    }

    fn set_service(&self, placed: &Placed, plan: &ServicePlan, ops: &mut Ops) {
        let reach = self.slots.get(&placed.slot).map_or(0, |(_, reach)| *reach);
        let value = layout::Service {
            address: words(plan.listen.ip()),
            port: Be16::new(plan.listen.port()),
            protocol: address::protocol_number(plan.protocol),
            family: family(plan.listen.ip()),
            reach,
            algorithm: match plan.algorithm {
                Algorithm::RoundRobin => layout::algorithm::ROUND_ROBIN,
                Algorithm::Maglev => layout::algorithm::MAGLEV,
                Algorithm::SourceHash => layout::algorithm::SOURCE_HASH,
                Algorithm::LeastConnections => layout::algorithm::LEAST_CONNECTIONS,
                Algorithm::RandomTwo => layout::algorithm::RANDOM_TWO,
            },
            forward: match plan.forward {
                Forward::Nat => layout::forward::NAT,
                Forward::Dnat => layout::forward::DNAT,
                Forward::L2 => layout::forward::L2,
                Forward::Ipip => layout::forward::IPIP,
                Forward::Gue => layout::forward::GUE,
            },
            ring: placed.ring.ring.to_word(),
            spare: placed.spare.ring.to_word(),
            spare_own: placed.spare_own.into(),
            ..Default::default()
        };
        ops.services.push(Op::SetService { slot: placed.slot, value, name: plan.name.clone() });
    }

    /// The first free slot from the home of a service on, and the home's reach wide enough to find it.
    fn take_slot(&mut self, key: Key, ops: &mut Ops) -> Result<u32, Full> {
        let (listen, transport) = key;
        let home = service::home(&self.config, words(listen.ip()), Be16::new(listen.port()), transport);
        let (reach, slot) = (0..=MAX_REACH)
            .map(|step| (step, (home + u32::from(step)) & self.config.service_mask))
            .find(|(_, slot)| self.slots.get(slot).is_none_or(|(key, _)| key.is_none()))
            .ok_or(Full::Services)?;
        self.slots.entry(slot).or_default().0 = Some(key);
        let (_, home_reach) = self.slots.entry(home).or_default();
        if *home_reach < reach {
            *home_reach = reach;
            ops.reaches.push(Op::SetReach { slot: home, reach });
        }
        Ok(slot)
    }

    fn backend(
        &self,
        service: &ServicePlan,
        plan: &BackendPlan,
        slot: u32,
        before: Option<&layout::Backend>,
    ) -> layout::Backend {
        let (source, path, mtu) = match (&plan.next_hop, before) {
            (Some(hop), _) => (words(hop.source), path(hop), hop.mtu),
            (None, Some(before)) => (before.source, before.path, before.mtu),
            (None, None) => Default::default(),
        };
        let mut flags = 0;
        if path != [0, 0] {
            flags |= backend_flags::PRESENT;
        }
        if plan.healthy {
            flags |= backend_flags::HEALTHY;
        }
        if takes_flows(plan) {
            flags |= backend_flags::IN_ROTATION;
        }
        if plan.given_up {
            flags |= backend_flags::GIVEN_UP;
        }
        if plan.address.is_ipv6() {
            flags |= backend_flags::IPV6;
        }
        let address = words(plan.address.ip());
        let port = Be16::new(plan.address.port());
        let one_family = service.listen.is_ipv4() == plan.address.is_ipv4();
        debug_assert!(one_family || service.forward.crosses_families(), "only encapsulation crosses families");
        layout::Backend {
            address,
            source,
            path,
            port,
            flags,
            nat_base: nat::base(&self.config, address, port),
            service: slot,
            mtu,
            weight: plan.weight,
        }
    }

    /// Puts entries where they are already, or into a new segment.
    fn segment(&mut self, old: Option<&Segment>, entries: Vec<u32>, ops: &mut Ops) -> Result<Segment, Full> {
        let entries: Arc<[u32]> = entries.into();
        if let Some(old) = old.filter(|old| old.entries.as_ref() == Some(&entries)) {
            return Ok(old.clone());
        }
        let ring = self.allocate_ring(entries.len())?;
        if ring.length != 0 {
            ops.rings.push(Op::SetRing { ring, entries: entries.clone() });
        }
        if let Some(Segment { ring, .. }) = old {
            self.rings.give(ring.base, ring.length);
        }
        Ok(Segment { ring, entries: Some(entries) })
    }

    fn allocate_ring(&mut self, length: usize) -> Result<Ring, Full> {
        if length == 0 {
            return Ok(Ring::default());
        }
        let length = u32::try_from(length).map_err(|_| Full::Rings)?;
        let base = self.rings.allocate(length).ok_or(Full::Rings)?;
        Ok(Ring { base, length })
    }
}

/// Has a slot in a set, or not.
fn mark(set: &mut BTreeSet<u32>, slot: u32, is_in: bool) {
    if is_in {
        set.insert(slot)
    } else {
        set.remove(&slot)
    };
}

fn key(service: &ServicePlan) -> Key {
    (service.listen, address::protocol_number(service.protocol))
}

#[cfg(test)]
mod tests;
