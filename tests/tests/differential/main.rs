//! The host build of the pipeline and the program in the kernel agree: same verdict, same bytes, same tables after; and what both say is
//! lawful.

mod laws;
mod source;

use std::{
    net::{IpAddr, SocketAddr},
    sync::atomic::Ordering::Relaxed,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use lab::{Lab, Layout, test};
use lb_common::{
    flow::{FlowWord, State, TICK_SHIFT},
    host::{self, HostTables},
    verdict::{DropReason, Verdict},
};
use lb_userspace::{
    dataplane::{Action, Dataplane, DryRun, Options, XdpMode},
    interface,
    plan::{Algorithm, BackendPlan, Forward, NextHop, Plan, Protocol, ServicePlan},
};
use rustix::thread::{CpuSet, sched_setaffinity};

use self::source::Source;

/// Frames sent both ways.
const FRAMES: usize = 200_000;

/// Frames of each kind of verdict that must have been among them.
const ENOUGH: usize = 1_000;

#[test]
fn the_kernel_does_what_the_host_does() {
    test(&Layout::default(), |lab| {
        let seed =
            std::env::var("LB_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
        lab.front().enter(|| compare(lab, seed)).with_context(|| format!("to repeat this, set LB_SEED={seed}"))
    });
}

fn compare(lab: &Lab, seed: u64) -> Result<()> {
    // The program counts by CPU, and the host tables are those of one.
    let mut cpu = CpuSet::new();
    cpu.set(0);
    sched_setaffinity(None, &cpu)?;

    let ifindexes = ["eth0", "eth1"].map(|name| interface::index(name).expect("the lab has it"));
    let mut dataplane = Dataplane::open(&Options {
        interfaces: vec!["eth0".into(), "eth1".into()],
        xdp_mode: XdpMode::Native,
        pin_dir: lab.pin_dir(),
        flows: 1024,
        services: 32,
        backends: 100,
        veth: false,
    })?;
    dataplane.apply(&plan(ifindexes))?;
    dataplane.attach()?;
    let mut host = dataplane.host_tables(0);

    let mut source = Source::new(seed);
    let mut seen = Seen::default();
    for number in 0..FRAMES {
        let bytes = source.frame();
        let ingress_ifindex = ifindexes[usize::from(source.bool())];
        host.now_ns = away_from_a_tick();
        let mut on_host = bytes.clone();
        let verdict = host::process(&mut on_host, ingress_ifindex, &host);
        host.apply_learnt();
        let in_kernel = dataplane.dry_run(&bytes, ingress_ifindex)?;
        if ticks(monotonic_ns()) != ticks(host.now_ns) {
            // Held up between the two for so long that they may have seen different times.
            host = dataplane.host_tables(0);
            continue;
        }
        seen.count(verdict);
        ensure!(
            in_kernel == DryRun { action: action(verdict), frame: on_host.clone() },
            "frame {number} ({bytes:02x?}): {verdict:?}, {on_host:02x?} on the host; {in_kernel:02x?} in the kernel"
        );
        let lawful = match verdict {
            Verdict::Transmit | Verdict::Redirect(_) => {
                source.remember(&on_host);
                laws::check(&bytes, &on_host)
            }
            Verdict::Pass | Verdict::Rare if on_host != bytes => Err(anyhow!("passed, but not as it came")),
            Verdict::Pass | Verdict::Rare | Verdict::Drop(_) => Ok(()),
        };
        lawful.with_context(|| format!("frame {number} ({bytes:02x?}): {verdict:?}, {on_host:02x?}"))?;
    }
    seen.check()?;
    same_tables(&host, &dataplane.host_tables(0))
}

fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

fn ticks(ns: u64) -> u64 {
    ns >> TICK_SHIFT
}

/// The time, at a moment when it is not about to change for flows and has not just done so: both sides are to see the same.
fn away_from_a_tick() -> u64 {
    const MARGIN_NS: u64 = 20_000_000;
    loop {
        let now = monotonic_ns();
        if ticks(now - MARGIN_NS) == ticks(now + MARGIN_NS) {
            return now;
        }
    }
}

fn action(verdict: Verdict) -> Action {
    match verdict {
        Verdict::Pass | Verdict::Rare => Action::Pass,
        Verdict::Transmit => Action::Transmit,
        Verdict::Redirect(_) => Action::Redirect,
        Verdict::Drop(_) => Action::Drop,
    }
}

/// How often each verdict came up: a generator that only makes frames to pass would find nothing.
#[derive(Default)]
struct Seen {
    passed: usize,
    transmitted: usize,
    redirected: usize,
    dropped: [usize; DropReason::ALL.len()],
}

impl Seen {
    fn count(&mut self, verdict: Verdict) {
        *match verdict {
            Verdict::Pass | Verdict::Rare => &mut self.passed,
            Verdict::Transmit => &mut self.transmitted,
            Verdict::Redirect(_) => &mut self.redirected,
            Verdict::Drop(reason) => &mut self.dropped[reason as usize],
        } += 1;
    }

    fn check(&self) -> Result<()> {
        for (what, count) in [("passed", self.passed), ("sent back", self.transmitted), ("redirected", self.redirected)]
        {
            ensure!(count >= ENOUGH, "only {count} frames were {what}");
        }
        use DropReason::{BackendFull, Fragment, HopLimit, Refused};
        for reason in [BackendFull, Fragment, HopLimit, Refused] {
            let count = self.dropped[reason as usize];
            ensure!(count >= ENOUGH / 10, "only {count} frames were dropped for {}", reason.name());
        }
        ensure!(self.dropped[DropReason::Internal as usize] == 0, "frames were dropped that should not be");
        Ok(())
    }
}

/// The tables, but for the times in flow words: the two sides read the clock one after the other.
fn same_tables(host: &HostTables, kernel: &HostTables) -> Result<()> {
    let timeless = |word: u64| {
        let word = FlowWord(word);
        (word.backend(), word.port(), word.state())
    };
    for (index, (host, kernel)) in host.flows.iter().zip(&kernel.flows).enumerate() {
        for (host, kernel) in host.ways.iter().zip(&kernel.ways) {
            ensure!(
                host.tag.load(Relaxed) == kernel.tag.load(Relaxed)
                    && timeless(host.word.load(Relaxed)) == timeless(kernel.word.load(Relaxed)),
                "flow set {index}: {host:x?} on the host, {kernel:x?} in the kernel"
            );
        }
    }
    for (index, (host, kernel)) in host.nat.iter().zip(&kernel.nat).enumerate() {
        let words = |slot: &lb_common::layout::NatSlot| {
            [&slot.client[0], &slot.client[1], &slot.port_service, &slot.path[0], &slot.path[1]]
                .map(|word| word.load(Relaxed))
        };
        ensure!(
            words(host) == words(kernel) && timeless(host.word.load(Relaxed)) == timeless(kernel.word.load(Relaxed)),
            "NAT slot {index}: {host:x?} on the host, {kernel:x?} in the kernel"
        );
    }
    for (index, (host, kernel)) in host.fragments.iter().zip(&kernel.fragments).enumerate() {
        ensure!(host.tag.load(Relaxed) == kernel.tag.load(Relaxed), "fragment slot {index}: {host:x?}, {kernel:x?}");
    }
    for (index, (host, kernel)) in host.loads.iter().zip(&kernel.loads).enumerate() {
        ensure!(host.load(Relaxed) == kernel.load(Relaxed), "load of backend {index}: {host:?}, {kernel:?}");
    }
    // To a tick, as above.
    for (index, (host, kernel)) in host.heard.iter().zip(&kernel.heard).enumerate() {
        let (host, kernel) = (host.load(Relaxed), kernel.load(Relaxed));
        ensure!(
            host.abs_diff(kernel) < 2,
            "backend {index} was heard at {host} on the host, at {kernel} in the kernel"
        );
    }
    ensure!(host.heard.iter().any(|heard| heard.load(Relaxed) != 0), "no backend was heard");
    for (index, (host, kernel)) in host.counters.iter().zip(&kernel.counters).enumerate() {
        let words = |counters: &lb_common::layout::BackendCounters| {
            let lb_common::layout::BackendCounters { packets_in, bytes_in, packets_out, bytes_out, .. } = counters;
            let lb_common::layout::BackendCounters { connections, opened, repeated, refused, reset, aborted, .. } =
                counters;
            let rare = [connections, opened, repeated, refused, reset, aborted];
            let words = [packets_in, bytes_in, packets_out, bytes_out, &counters.requests].into_iter().chain(rare);
            // How long a handshake took depends on the clock.
            let answered = counters.handshakes.iter().map(|word| word.load(Relaxed)).sum();
            let responses = counters.responses.iter().map(|word| word.load(Relaxed));
            words.map(|word| word.load(Relaxed)).chain(responses).chain([answered]).collect::<Vec<u64>>()
        };
        ensure!(words(host) == words(kernel), "backend {index}: {host:?} on the host, {kernel:?} in the kernel");
    }
    let seen = |what: fn(&lb_common::layout::BackendCounters) -> u64| host.counters.iter().map(what).sum::<u64>();
    for (what, count) in [
        ("SYN-ACKs were acknowledged", seen(|counters| counters.opened.load(Relaxed))),
        ("SYNs came again", seen(|counters| counters.repeated.load(Relaxed))),
        ("SYNs were refused", seen(|counters| counters.refused.load(Relaxed))),
        ("flows were reset", seen(|counters| counters.reset.load(Relaxed))),
        ("flows were aborted", seen(|counters| counters.aborted.load(Relaxed))),
        ("SYNs were answered", seen(|counters| counters.handshakes.iter().map(|word| word.load(Relaxed)).sum())),
        ("requests were seen", seen(|counters| counters.requests.load(Relaxed))),
        ("responses were errors", seen(|counters| counters.responses[4].load(Relaxed))),
    ] {
        ensure!(count > 10, "only {count} {what}");
    }
    let states = |tables: &HostTables| {
        tables.nat.iter().filter(|slot| FlowWord(slot.word.load(Relaxed)).state() != State::Free).count()
    };
    ensure!(states(host) > 100, "only {} flows were made", states(host));
    Ok(())
}

/// Services of both families, every forwarding mode, and every algorithm that leaves nothing to chance; one without backends.
fn plan([client_side, backend_side]: [u32; 2]) -> Plan {
    let backend = |family: u8, host: u8, port: u16| BackendPlan {
        name: format!("v{family}-{host}"),
        address: if family == 4 {
            SocketAddr::from(([10, 0, 0, host], port))
        } else {
            SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, host.into()], port))
        },
        weight: u16::from(host % 3 + 1),
        in_rotation: !host.is_multiple_of(5),
        healthy: true,
        given_up: host % 10 == 8,
        stands_by: host.is_multiple_of(5),
        max_connections: (host % 10 < 5).then_some(12),
        comfortable_connections: (host % 10 == 3).then_some(4),
        next_hop: Some(NextHop {
            ifindex: if host.is_multiple_of(4) { client_side } else { backend_side },
            source: if family == 4 { [10, 0, 0, 1].into() } else { IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1]) },
            source_mac: [2, 0, 0, 0, 1, 0],
            mac: [2, 0, 0, 0, 1, host],
            mtu: if host.is_multiple_of(5) { 600 } else { 1500 },
        }),
    };
    let mut host = 1;
    let mut service = |listen: &str, protocol, algorithm, forward: Forward, family: u8| {
        let listen: SocketAddr = listen.parse().expect("an address");
        let port = if forward.sees_replies() { 8080 } else { listen.port() };
        host += 5;
        ServicePlan {
            name: format!("{listen}-{protocol:?}"),
            listen,
            protocol,
            algorithm,
            forward,
            backends: (host..host + 4).map(|host| backend(family, host, port)).collect(),
        }
    };
    use Algorithm::{LeastConnections, Maglev, RoundRobin, SourceHash};
    use Protocol::{Tcp, Udp};
    let empty = ServicePlan { backends: vec![], ..service("203.0.113.11:80", Tcp, RoundRobin, Forward::Nat, 4) };
    [
        empty,
        service("203.0.113.10:80", Tcp, RoundRobin, Forward::Nat, 4),
        service("203.0.113.10:81", Tcp, LeastConnections, Forward::Nat, 4),
        service("203.0.113.10:53", Udp, SourceHash, Forward::Nat, 4),
        service("203.0.113.10:82", Tcp, Maglev, Forward::Dnat, 4),
        service("203.0.113.10:54", Udp, RoundRobin, Forward::Dnat, 4),
        service("203.0.113.10:83", Tcp, Maglev, Forward::L2, 4),
        service("203.0.113.10:84", Tcp, RoundRobin, Forward::Ipip, 4),
        service("203.0.113.10:85", Tcp, SourceHash, Forward::Gue, 4),
        service("203.0.113.10:86", Tcp, RoundRobin, Forward::Ipip, 6),
        service("203.0.113.10:55", Udp, RoundRobin, Forward::Gue, 6),
        service("[2001:db8:f::10]:80", Tcp, RoundRobin, Forward::Nat, 6),
        service("[2001:db8:f::10]:81", Tcp, Maglev, Forward::Nat, 6),
        service("[2001:db8:f::10]:53", Udp, RoundRobin, Forward::Nat, 6),
        service("[2001:db8:f::10]:82", Tcp, RoundRobin, Forward::Dnat, 6),
        service("[2001:db8:f::10]:83", Tcp, RoundRobin, Forward::L2, 6),
        service("[2001:db8:f::10]:84", Tcp, Maglev, Forward::Ipip, 6),
        service("[2001:db8:f::10]:85", Tcp, RoundRobin, Forward::Gue, 4),
    ]
    .into_iter()
    .collect()
}
