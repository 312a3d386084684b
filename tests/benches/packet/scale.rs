//! How much fits, and how long changes among that take.

use std::{sync::Arc, time::Instant};

use anyhow::{Context as _, Result};
use lab::{Family, Lab};
use lb_userspace::{dataplane::Looked, interface, plan::Forward};

use crate::{
    cases::{Case, What},
    harness::Bench,
    site::Kind,
    traffic::Traffic,
};

/// A figure of its own.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    /// One a round.
    pub(crate) values: Vec<f64>,
    /// The most that it may be.
    pub(crate) goal: Option<f64>,
}

/// 10,000 services and 100,000 backends.
const MANY: Kind = Kind { services: 10_000, backends: 10, ..Kind::unused(Forward::Nat) };

/// Flows of a default configuration.
const HELD: Case = Case {
    group: "scale",
    name: String::new(),
    what: What::Balancer(Kind::unused(Forward::Nat), Traffic::Established { family: Family::V4, flows: 1 << 20 }),
    goal: None,
    live: false,
    slow: true,
};

/// Loads many services and backends, and changes one weight among them.
pub(crate) fn measure(lab: &Lab, rounds: u8) -> Result<Vec<Figure>> {
    let ifindex = interface::index("eth1").context("the lab's front node has eth1")?;
    let pin_dir = lab.pin_dir().with_extension("").join("scale");
    let plan = MANY.plan(ifindex);
    let (mut made, mut loaded, mut changed, mut same) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut seen = Vec::new();
    for _ in 0..rounds {
        let started = Instant::now();
        let mut dataplane = MANY.create(pin_dir.clone())?;
        made.push(milliseconds(started));
        let started = Instant::now();
        dataplane.apply(&plan)?;
        loaded.push(milliseconds(started));
        let mut next = plan.clone();
        let service = Arc::make_mut(&mut next.services[5_000]);
        service.backends[5].weight = 3;
        let started = Instant::now();
        dataplane.apply(&next)?;
        changed.push(milliseconds(started));
        let started = Instant::now();
        dataplane.apply(&next)?;
        same.push(milliseconds(started));
        // The first look finds them all.
        let mut looked = Looked::default();
        dataplane.news(&mut looked);
        let started = Instant::now();
        dataplane.news(&mut looked);
        seen.push(milliseconds(started));
    }
    let figure = |name, values, goal| Figure { name, unit: "ms", values, goal };
    let refused = Bench::new(lab, &[HELD])?.refused();
    Ok(vec![
        Figure { name: "of 1,048,576 flows refused", unit: "", values: vec![refused as f64], goal: Some(0.0) },
        figure("tables and program for what follows: made", made, None),
        figure("10,000 services, 100,000 backends: loaded", loaded, Some(2_000.0)),
        figure("one weight among them: changed", changed, Some(5.0)),
        figure("the same plan: applied once more", same, None),
        figure("what their traffic tells: none, looked at", seen, None),
    ])
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}
