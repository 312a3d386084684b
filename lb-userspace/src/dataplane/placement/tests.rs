//! Plans in a row, and what they do to the maps. The maps are played by tables in plain memory.

use lb_common::{host, host::HostTables, ip};
use proptest::prelude::*;

use super::*;
use crate::plan::{NextHop, Protocol};

fn hop() -> NextHop {
    NextHop { ifindex: 2, source: [10, 0, 0, 1].into(), source_mac: [2; 6], mac: [4; 6], mtu: 1500 }
}

fn backend(host: u8, weight: u16) -> BackendPlan {
    BackendPlan {
        name: format!("web-{host:02}"),
        address: SocketAddr::from(([10, 0, 0, host], 80)),
        weight,
        in_rotation: true,
        healthy: true,
        given_up: false,
        stands_by: false,
        max_connections: None,
        comfortable_connections: None,
        next_hop: Some(hop()),
    }
}

fn service(vip: u8, backends: &[(u8, u16)]) -> ServicePlan {
    ServicePlan {
        name: format!("service-{vip}"),
        listen: SocketAddr::from(([203, 0, 113, vip], 80)),
        protocol: Protocol::Tcp,
        algorithm: Algorithm::RoundRobin,
        forward: Forward::Nat,
        backends: backends.iter().map(|&(host, weight)| backend(host, weight)).collect(),
    }
}

fn plan(services: &[(u8, &[(u8, u16)])]) -> Plan {
    services.iter().map(|(vip, backends)| service(*vip, backends)).collect()
}

/// Carries operations out as the real maps do.
fn carry_out(tables: &mut HostTables, ops: &[Op]) {
    for op in ops {
        match op {
            Op::SetBackend { index, value, limits, .. } => {
                tables.backends[*index as usize] = *value;
                tables.limits[*index as usize] = limits.to_word().into();
            }
            Op::SetRing { ring, entries } => {
                tables.rings[ring.base as usize..][..entries.len()].copy_from_slice(entries);
            }
            Op::SetService { slot, value, .. } => {
                let reach = tables.services[*slot as usize].reach.max(value.reach);
                tables.services[*slot as usize] = layout::Service { reach, ..*value };
            }
            Op::SetReach { slot, reach } => tables.services[*slot as usize].reach = *reach,
            Op::ClearService { slot, reach } => {
                tables.services[*slot as usize] = layout::Service { reach: *reach, ..Default::default() };
            }
            Op::ClearBackend { index, .. } => tables.backends[*index as usize] = layout::Backend::default(),
        }
    }
}

/// The hosts that new flows to a service go to, in the order of its ring.
fn turns(tables: &HostTables, vip: u8) -> Option<Vec<u8>> {
    let address = words([203, 0, 113, vip].into());
    let slot = tables.find_service(address, Be16::new(80), ip::TCP, 4)?;
    let ring = Ring::from_word(tables.services[slot as usize].ring);
    let entries = &tables.rings[ring.base as usize..][..ring.length as usize];
    Some(entries.iter().map(|index| (tables.backends[*index as usize].address[0] >> 24) as u8).collect())
}

fn index_of(placement: &Placement, vip: u8, host: u8) -> u32 {
    let key = (SocketAddr::from(([203, 0, 113, vip], 80)), ip::TCP);
    placement.services[&key].backends[&SocketAddr::from(([10, 0, 0, host], 80))].0
}

#[test]
fn the_maps_say_what_the_plan_says() {
    let mut placement = Placement::new(host::config());
    let mut tables = HostTables::new(host::config());
    let mut check = |plan: &Plan, expected: &[(u8, Option<&[u8]>)]| {
        let ops = placement.change(plan).expect("there is room");
        carry_out(&mut tables, &ops);
        for (vip, hosts) in expected {
            assert_eq!(turns(&tables, *vip).as_deref(), *hosts, "service {vip}");
        }
        assert_eq!(placement.change(plan).expect("there is room"), [], "nothing is left to do");
    };
    check(&plan(&[(10, &[(1, 1), (2, 1)])]), &[(10, Some(&[1, 2])), (11, None)]);
    check(&plan(&[(10, &[(1, 3), (2, 1)])]), &[(10, Some(&[1, 1, 2, 1]))]);
    check(&plan(&[(10, &[(1, 3), (2, 0)])]), &[(10, Some(&[1]))]);
    check(&plan(&[(10, &[(1, 1)]), (11, &[(1, 1), (3, 1)])]), &[(10, Some(&[1])), (11, Some(&[1, 3]))]);
    check(&plan(&[(11, &[(3, 1)])]), &[(10, None), (11, Some(&[3]))]);
    check(&plan(&[]), &[(10, None), (11, None)]);
}

#[test]
fn a_backend_without_a_way_to_it_gets_no_flow_and_keeps_those_that_it_has() {
    let mut placement = Placement::new(host::config());
    let mut tables = HostTables::new(host::config());
    let mut plan = plan(&[(10, &[(1, 1), (2, 1)])]);
    carry_out(&mut tables, &placement.change(&plan).unwrap());
    Arc::make_mut(&mut plan.services[0]).backends[0].next_hop = None;
    carry_out(&mut tables, &placement.change(&plan).unwrap());
    assert_eq!(turns(&tables, 10), Some(vec![2]));
    let kept = tables.backends[index_of(&placement, 10, 1) as usize];
    assert_eq!(kept.path, path(&hop()));
    assert_ne!(kept.flags & backend_flags::PRESENT, 0);
}

#[test]
fn a_ring_of_one_backend_has_one_entry_whatever_the_algorithm() {
    use Algorithm::{LeastConnections, Maglev, RandomTwo, RoundRobin, SourceHash};
    for algorithm in [RoundRobin, Maglev, SourceHash, LeastConnections, RandomTwo] {
        let mut placement = Placement::new(host::config());
        let mut tables = HostTables::new(host::config());
        let mut plan = plan(&[(10, &[(1, 7), (2, 0)])]);
        Arc::make_mut(&mut plan.services[0]).algorithm = algorithm;
        carry_out(&mut tables, &placement.change(&plan).unwrap());
        assert_eq!(turns(&tables, 10), Some(vec![1]), "{algorithm:?}");
    }
}

#[test]
fn what_is_referred_to_is_there_first_and_goes_last() {
    let mut placement = Placement::new(host::config());
    placement.change(&plan(&[(10, &[(1, 1)])])).unwrap();
    let ops = placement.change(&plan(&[(11, &[(2, 1)])])).unwrap();
    let order: Vec<u8> = ops
        .iter()
        .map(|op| match op {
            Op::ClearService { .. } => 0,
            Op::SetBackend { .. } => 1,
            Op::SetRing { .. } => 2,
            Op::SetService { .. } => 3,
            Op::SetReach { .. } => 4,
            Op::ClearBackend { .. } => 5,
        })
        .collect();
    assert!(order.is_sorted(), "{ops:?}");
}

#[test]
fn places_that_were_given_up_are_not_given_again_before_they_are_reclaimed() {
    let config = Config { backends: 4, ..host::config() };
    let mut placement = Placement::new(config);
    placement.change(&plan(&[(10, &[(1, 1), (2, 1), (3, 1), (4, 1)])])).unwrap();
    placement.change(&plan(&[(10, &[(1, 1)])])).unwrap();
    let wanted = plan(&[(10, &[(1, 1), (5, 1)])]);
    assert_eq!(placement.change(&wanted), Err(Full::Backends));
    placement.reclaim();
    assert!(placement.change(&wanted).is_ok());
}

#[test]
fn after_an_error_nothing_has_changed() {
    let config = Config { backends: 2, ..host::config() };
    let mut placement = Placement::new(config);
    let fits = plan(&[(10, &[(1, 1), (2, 1)])]);
    placement.change(&fits).unwrap();
    let before = placement.expected();
    assert_eq!(placement.change(&plan(&[(9, &[(7, 1)]), (10, &[(1, 1), (2, 1), (3, 1)])])), Err(Full::Backends));
    assert_eq!(placement.expected(), before);
    assert_eq!(placement.change(&fits), Ok(vec![]));
}

#[test]
fn after_an_error_of_one_of_two_services_neither_has_changed() {
    let config = Config { backends: 4, ..host::config() };
    let mut placement = Placement::new(config);
    placement.change(&plan(&[(9, &[(7, 1)]), (10, &[(1, 1), (2, 1)])])).unwrap();
    let before = placement.expected();
    let mut too_many = plan(&[(9, &[(7, 1), (8, 1)]), (10, &[(1, 1), (2, 1), (3, 1)])]);
    Arc::make_mut(&mut too_many.services[0]).backends[0].max_connections = Some(9);
    assert_eq!(placement.change(&too_many), Err(Full::Backends));
    assert_eq!(placement.expected(), before);
    assert!(!placement.has_limits() && placement.counted().is_empty());
    // There is room for one of them.
    assert!(placement.change(&plan(&[(9, &[(7, 1)]), (10, &[(1, 1), (2, 1), (3, 1)])])).is_ok());
}

#[test]
fn limits_and_counts_last_as_long_as_their_service() {
    let mut placement = Placement::new(host::config());
    let mut limited = plan(&[(9, &[(7, 1)]), (10, &[(1, 1)])]);
    Arc::make_mut(&mut limited.services[1]).backends[0].max_connections = Some(9);
    placement.change(&limited).unwrap();
    assert_eq!(placement.counted().len(), 1);
    assert_eq!(placement.limited().map(|(service, ..)| service).collect::<Vec<_>>(), ["service-10"]);
    let mut by_flows = plan(&[(9, &[(7, 1)]), (10, &[(1, 1)])]);
    Arc::make_mut(&mut by_flows.services[0]).algorithm = Algorithm::LeastConnections;
    placement.change(&by_flows).unwrap();
    assert_eq!(placement.counted().len(), 1);
    assert!(!placement.has_limits());
    placement.change(&plan(&[(10, &[(1, 1)])])).unwrap();
    assert!(placement.counted().is_empty());
}

#[test]
fn more_services_than_slots_are_refused() {
    let mut placement = Placement::new(host::config());
    let many: Vec<(u8, &[(u8, u16)])> = (1..30).map(|vip| (vip, &[][..])).collect();
    assert_eq!(placement.change(&plan(&many)), Err(Full::Services));
}

#[test]
fn ten_thousand_services_at_as_many_addresses_find_a_place() {
    for seed in 1..9u32 {
        let place_key = host::config().place_key.map(|word| word ^ seed.wrapping_mul(0x9e37_79b9));
        let mut placement = Placement::new(Config { service_mask: 0xffff, place_key, ..host::config() });
        let many = (0..10_000u32).map(|number| ServicePlan {
            name: format!("service-{number}"),
            listen: SocketAddr::from((std::net::Ipv4Addr::from(0x0a00_0000 + number), 80)),
            ..service(1, &[])
        });
        assert!(placement.change(&many.collect()).is_ok(), "key {seed}");
    }
}

/// Services by the last byte of their address, their backends by that of theirs, with their weights.
type Lists = Vec<(u8, Vec<(u8, u16)>)>;

fn plans() -> impl Strategy<Value = Vec<Lists>> {
    let services = prop::collection::btree_map(10u8..14, prop::collection::btree_map(1u8..8, 0u16..4, 0..4), 0..4);
    let listed = services.prop_map(|services| {
        services.into_iter().map(|(vip, backends)| (vip, backends.into_iter().collect())).collect()
    });
    prop::collection::vec(listed, 1..8)
}

proptest! {
    #[test]
    fn a_plan_that_shares_with_the_one_before_changes_the_maps_as_one_that_does_not(plans in plans()) {
        let config = Config { service_mask: 63, backends: 128, rings: 4096, ..host::config() };
        let (mut apart, mut sharing) = (Placement::new(config), Placement::new(config));
        let mut before = Plan::default();
        for lists in plans {
            let borrowed: Vec<(u8, &[(u8, u16)])> = lists.iter().map(|(vip, list)| (*vip, list.as_slice())).collect();
            let mut shared = plan(&borrowed);
            for service in &mut shared.services {
                if let Some(same) = before.services.iter().find(|same| *same == service) {
                    *service = Arc::clone(same);
                }
            }
            prop_assert_eq!(sharing.change(&shared), apart.change(&plan(&borrowed)));
            before = shared;
        }
    }

    #[test]
    fn backends_keep_their_indexes_through_every_change_and_adoption(plans in plans()) {
        let config = Config { service_mask: 63, backends: 128, rings: 4096, ..host::config() };
        let mut placement = Placement::new(config);
        let mut tables = HostTables::new(config);
        let mut known: BTreeMap<(u8, u8), u32> = BTreeMap::new();
        for lists in plans {
            let borrowed: Vec<(u8, &[(u8, u16)])> = lists.iter().map(|(vip, list)| (*vip, list.as_slice())).collect();
            let plan = plan(&borrowed);
            carry_out(&mut tables, &placement.change(&plan).unwrap());
            let mut now = BTreeMap::new();
            for (vip, backends) in &lists {
                for (host, _) in backends {
                    now.insert((*vip, *host), index_of(&placement, *vip, *host));
                }
            }
            for (backend, index) in &now {
                if let Some(before) = known.get(backend) {
                    prop_assert_eq!(before, index, "{:?} moved", backend);
                }
            }
            known = now;
            // The next daemon finds the maps, and what it makes of them is the same.
            let services = (0..).zip(&tables.services).filter(|(_, s)| s.protocol != 0 || s.reach != 0);
            let backends = (0..).zip(&tables.backends).filter(|(_, b)| b.port.raw() != 0);
            placement = Placement::adopt(
                config,
                services.map(|(slot, service)| (slot, *service)),
                backends.map(|(index, backend)| (index, *backend)),
            );
            carry_out(&mut tables, &placement.change(&plan).unwrap());
        }
    }
}
