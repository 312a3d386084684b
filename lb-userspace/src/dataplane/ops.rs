//! Changes of the maps, and the order in which they are safe.

use std::sync::Arc;

use lb_common::{
    layout::{self, Ring},
    room::Limits,
};

/// A change of the maps. Operations are carried out in the order in which they come.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Op {
    /// A backend appears or changes.
    SetBackend { index: u32, value: layout::Backend, limits: Limits, name: String, fresh: bool },
    /// A ring is written, where no service looks yet.
    SetRing { ring: Ring, entries: Arc<[u32]> },
    /// A service appears or changes.
    SetService { slot: u32, value: layout::Service, name: String },
    /// Services with this home may stand so far behind it.
    SetReach { slot: u32, reach: u8 },
    /// A service goes; the slot keeps its reach.
    ClearService { slot: u32, reach: u8 },
    /// A backend goes; its counters are added to those that its service has retired.
    ClearBackend { index: u32, service: u32 },
}

/// Operations by kind, so that what is referred to is there first and goes last.
#[derive(Default)]
pub(super) struct Ops {
    pub(super) backends: Vec<Op>,
    pub(super) rings: Vec<Op>,
    pub(super) services: Vec<Op>,
    pub(super) reaches: Vec<Op>,
    pub(super) gone_services: Vec<Op>,
    pub(super) gone_backends: Vec<Op>,
}

impl Ops {
    pub(super) fn in_order(self) -> Vec<Op> {
        let Self { backends, rings, services, reaches, gone_services, gone_backends } = self;
        [gone_services, backends, rings, services, reaches, gone_backends].concat()
    }
}
