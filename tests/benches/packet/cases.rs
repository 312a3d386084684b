//! What is measured, beside which floor, and how much more than that it may cost.

use lab::Family;
use lb_userspace::{dataplane::bench::Floor, plan::Forward};

use crate::{site::Kind, traffic::Traffic};

/// Rows of the report.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// What varies.
    pub(crate) group: &'static str,
    /// Unique within the group.
    pub(crate) name: String,
    /// What is measured.
    pub(crate) what: What,
    /// How many times its floor it may cost.
    pub(crate) goal: Option<f64>,
    /// Whether frames are sent for real, over a veth pair.
    pub(crate) live: bool,
    /// Whether it takes too long to prepare for a quick look.
    pub(crate) slow: bool,
}

/// What packets go through.
#[derive(Clone, Copy, Debug)]
pub(crate) enum What {
    /// A program that does next to nothing.
    Floor(Floor),
    /// The balancer.
    Balancer(Kind, Traffic),
}

impl Case {
    pub(crate) fn is_wanted(&self, only: Option<&str>, quick: bool) -> bool {
        let named = only.is_none_or(|only| self.is_named(only));
        matches!(self.what, What::Floor(_)) || named && !(quick && self.slow)
    }

    pub(crate) fn is_named(&self, part: &str) -> bool {
        format!("{}: {}", self.group, self.name).contains(part)
    }

    /// What it is compared with: the least that a program has to do that does the like.
    pub(crate) fn floor(&self) -> Option<Floor> {
        match self.what {
            What::Floor(_) => None,
            What::Balancer(_, Traffic::Stranger) => Some(Floor::Pass),
            What::Balancer(Kind { forward: Forward::Ipip | Forward::Gue, .. }, _) => Some(Floor::Ipip),
            What::Balancer(..) => Some(Floor::Swap),
        }
    }
}

const MANY: u32 = 1 << 17;
const FLOOD: u32 = 1 << 20;

/// Every case; floors first.
pub(crate) fn all() -> Vec<Case> {
    use Family::{V4, V6};
    use Forward::{Dnat, Gue, Ipip, L2, Nat};
    let floor = |name: &str, floor| Case {
        group: "floor",
        name: name.into(),
        what: What::Floor(floor),
        goal: None,
        live: false,
        slow: false,
    };
    let mut cases = vec![
        floor("drop", Floor::Drop),
        floor("pass", Floor::Pass),
        floor("MAC swap", Floor::Swap),
        floor("constant IPIP", Floor::Ipip),
        Case { live: true, ..floor("constant IPIP, live", Floor::Ipip) },
        Case {
            group: "goal",
            name: "IPv4 ipip, 131072 flows, live over veth".into(),
            what: What::Balancer(Kind::usual(Ipip), Traffic::Established { family: V4, flows: MANY }),
            goal: Some(1.7),
            live: true,
            slow: false,
        },
    ];
    let mut add = |group, name: String, kind: Kind, traffic: Traffic, goal: Option<f64>| {
        let slow = traffic.flows() == FLOOD || kind.services > 1_000;
        cases.push(Case { group, name, what: What::Balancer(kind, traffic), goal, live: false, slow });
    };
    let to = |family, flows| Traffic::Established { family, flows };
    let back = |family, flows| Traffic::Answers { family, flows };
    let usual = Kind::usual;

    add("goal", "not for a service".into(), usual(Nat), Traffic::Stranger, Some(1.6));
    add("goal", "IPv4 nat, 1 flow, to the backend".into(), usual(Nat), to(V4, 1), Some(2.5));
    add("goal", "IPv4 nat, 1 flow, back".into(), usual(Nat), back(V4, 1), Some(2.5));
    add("goal", "IPv4 nat, 131072 flows, to the backend".into(), usual(Nat), to(V4, MANY), Some(7.5));
    add("goal", "IPv4 nat, 131072 flows, back".into(), usual(Nat), back(V4, MANY), Some(7.5));
    add("goal", "IPv4 ipip, 1 flow".into(), usual(Ipip), to(V4, 1), Some(1.7));
    add("goal", "IPv4 ipip, 131072 flows".into(), usual(Ipip), to(V4, MANY), Some(4.0));
    add("goal", "IPv6 ipip, 1 flow".into(), usual(Ipip), to(V6, 1), Some(1.9));
    add("goal", "IPv4 ipip, new flow".into(), Kind::unused(Ipip), Traffic::New { family: V4 }, Some(5.6));

    for forward in [Nat, Dnat, L2, Ipip, Gue] {
        let name = forward.name();
        for (words, family) in [("IPv4", V4), ("IPv6", V6)] {
            add("mode", format!("{words} {name}, to the backend"), usual(forward), to(family, 1), None);
            if forward.sees_replies() {
                add("mode", format!("{words} {name}, back"), usual(forward), back(family, 1), None);
            }
        }
    }
    for (forward, traffic) in [(Nat, "to the backend"), (Nat, "back"), (Ipip, "to the backend")] {
        for flows in [1, 1 << 13, MANY, FLOOD] {
            let name = format!("IPv4 {}, {traffic}, {flows} flows", forward.name());
            let traffic = if traffic == "back" { back(V4, flows) } else { to(V4, flows) };
            add("flows", name, usual(forward), traffic, None);
        }
    }
    for flows in [1 << 13, MANY] {
        add("flows", format!("IPv6 nat, to the backend, {flows} flows"), usual(Nat), to(V6, flows), None);
        add("flows", format!("IPv6 nat, back, {flows} flows"), usual(Nat), back(V6, flows), None);
    }
    for services in [1, 100, 10_000] {
        let kind = Kind { services, backends: if services == 1 { 100 } else { 10 }, ..usual(Nat) };
        add("services", format!("IPv4 nat, 8192 flows, {services} services"), kind, to(V4, 1 << 13), None);
    }
    for backends in [2, 1_000] {
        let kind = Kind { backends, ..usual(Nat) };
        add("backends", format!("IPv4 nat, 8192 flows, {backends} backends"), kind, to(V4, 1 << 13), None);
    }
    for (words, family) in [("IPv4", V4), ("IPv6", V6)] {
        add("rare", format!("{words} nat, new flow"), Kind::unused(Nat), Traffic::New { family }, None);
        add("rare", format!("{words} nat, first packet in 0.54 s"), usual(Nat), Traffic::Stale { family }, None);
    }
    add("rare", "IPv6 ipip, new flow".into(), Kind::unused(Ipip), Traffic::New { family: V6 }, None);
    add("rare", "IPv4 ipip, first packet in 0.54 s".into(), usual(Ipip), Traffic::Stale { family: V4 }, None);
    cases
}
