//! Cases, measured in turns.

use anyhow::{Context as _, Result, bail, ensure};
use lab::{Family, Lab, Node};
use lb_common::{
    flow::{State, TICK_SHIFT},
    host::{ACK, SYN},
};
use lb_userspace::{
    dataplane::{
        Action, Dataplane,
        bench::{Counted, Floor, FlowKey, Frames, Harness, Loaded},
    },
    interface,
};

use crate::{
    cases::{Case, What},
    site::{Kind, WIRE},
    traffic::{self, EVENTS, FEW, Traffic},
};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    /// How often each case has its turn.
    pub(crate) rounds: u8,
    /// Packets of a turn, unless there are more flows.
    pub(crate) packets: u32,
}

impl Extent {
    pub(crate) const FULL: Self = Self { rounds: 7, packets: 1 << 20 };
    pub(crate) const QUICK: Self = Self { rounds: 3, packets: 1 << 18 };
}

/// Packets that are timed together, unless there are more flows. The quickest of a turn counts: so a machine that is shared does no harm
/// as long as it is ours for a millisecond now and then.
const SLICE: u32 = 1 << 14;

/// Packets before a turn is measured, and between two that must be alike.
const WARM_UP: u32 = 1_000;

/// The round of the check, for new flows: no other.
const CHECK: u8 = 100;

/// A case with its times per packet.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) case: Case,
    /// Nanoseconds per packet, one a round.
    pub(crate) times: Vec<f64>,
    /// Why the times are worth nothing.
    pub(crate) flaw: Option<String>,
}

/// All that was found out.
#[derive(Debug)]
pub(crate) struct Results {
    pub(crate) cases: Vec<Measured>,
    /// The program's entry points, one row a round.
    pub(crate) loaded: Vec<Vec<Loaded>>,
}

/// Measures in turns.
pub(crate) fn measure(lab: &Lab, cases: Vec<Case>, extent: Extent) -> Result<Results> {
    let mut bench = Bench::new(lab, &cases)?;
    let mut measured: Vec<Measured> = cases
        .into_iter()
        .map(|case| {
            let flaw = bench.check(&case).err().map(|error| format!("{error:#}"));
            Measured { case, times: Vec::new(), flaw }
        })
        .collect();
    let mut loaded = Vec::new();
    for round in 0..extent.rounds {
        for measured in measured.iter_mut().filter(|measured| measured.flaw.is_none()) {
            match bench.turn(&measured.case, round, extent.packets) {
                Ok(time) => measured.times.push(time),
                Err(error) => measured.flaw = Some(format!("{error:#}")),
            }
        }
        if let Some(site) = bench.sites.first() {
            loaded.push(site.dataplane.load_again()?);
        }
    }
    Ok(Results { cases: measured, loaded })
}

/// The program that restores frames, and the sites that the cases need.
pub(crate) struct Bench {
    harness: Harness,
    sites: Vec<Site>,
    ifindex: u32,
    wire: Wire,
}

/// The pair of [`WIRE`].
struct Wire {
    /// Index of the end that frames leave by, and seem to come in by where they are live.
    ifindex: u32,
    /// Where the other end counts what has come.
    front: Node,
}

/// What came of packets.
struct Sent {
    /// Nanoseconds per packet, of the quickest slice.
    time: f64,
    /// The last of them; of live ones none.
    frame: Vec<u8>,
    /// Whether all of them were sent within one tick of the clock of flows.
    in_one_tick: bool,
}

struct Site {
    kind: Kind,
    dataplane: Dataplane,
    /// The established flows of each family.
    held: Vec<(Family, Vec<FlowKey>)>,
    /// How many were refused that should have been established.
    refused: usize,
}

impl Bench {
    /// Sets up what the cases need.
    pub(crate) fn new(lab: &Lab, cases: &[Case]) -> Result<Self> {
        let ifindex = interface::index("eth0").context("the lab's front node has eth0")?;
        let pin_dir = |name: &str| lab.pin_dir().with_extension("").join(name);
        let most = cases.iter().map(flows).max().unwrap_or(1);
        let mut harness = Harness::new(&pin_dir("bench"), most, ifindex)?;
        let wire = Wire::new(lab, &mut harness)?;
        let mut bench = Self { harness, sites: Vec::new(), ifindex, wire };
        for case in cases {
            if let What::Balancer(kind, _) = case.what
                && bench.sites.iter().all(|site| site.kind != kind)
            {
                let dataplane = kind.open(pin_dir(&format!("site-{}", bench.sites.len())))?;
                bench.sites.push(Site { kind, dataplane, held: Vec::new(), refused: 0 });
            }
        }
        for index in 0..bench.sites.len() {
            let kind = bench.sites[index].kind;
            let established = cases.iter().filter_map(|case| match case.what {
                What::Balancer(of, traffic) if of == kind => traffic.established(),
                _ => None,
            });
            let established: Vec<(Family, u32)> = established.collect();
            for family in [Family::V4, Family::V6] {
                let flows = established.iter().filter(|(of, _)| *of == family).map(|(_, flows)| *flows).max();
                if let Some(flows) = flows {
                    bench.establish(kind, family, flows)?;
                }
            }
        }
        Ok(bench)
    }

    /// Has clients open as many flows. In the place of those that the table refuses stand others: see [`FEW`].
    fn establish(&mut self, kind: Kind, family: Family, flows: u32) -> Result<()> {
        let before = self.counted(kind)?;
        self.choose(What::Balancer(kind, Traffic::Established { family, flows }))?;
        let mut sends = |frames: &Frames| {
            self.harness.prepare(frames);
            self.harness.run(frames, flows, SLICE)
        };
        sends(&traffic::requests(kind, family, flows, SYN, 1))?;
        if kind.forward.sees_replies() {
            let opening = self.sites.iter().find(|site| site.kind == kind).context("no such site")?;
            let opening = opening.dataplane.backend_flows(State::Opening);
            sends(&traffic::answers(&opening, family, flows, SYN | ACK)?)?;
        }
        sends(&traffic::requests(kind, family, flows, ACK, 1))?;
        let ifindex = self.ifindex;
        let site = self.sites.iter_mut().find(|site| site.kind == kind).context("no such site")?;
        let mut held = traffic::requests(kind, family, flows, ACK, 1);
        if refuse_drops(&before, &site.dataplane.counted()).is_err() {
            let keys = std::mem::take(&mut held.flows);
            for &key in &keys {
                if site.dataplane.dry_run(&held.frame_of(key), ifindex)?.action == Action::Redirect {
                    held.flows.push(key);
                }
            }
            let refused = keys.len() - held.flows.len();
            ensure!(refused <= keys.len() / FEW, "{refused} of {flows} flows were refused");
            held.flows.extend_from_within(..refused);
            site.refused += refused;
        }
        site.held.push((family, held.flows));
        Ok(())
    }

    /// How many flows were refused that should have been established.
    pub(crate) fn refused(&self) -> usize {
        self.sites.iter().map(|site| site.refused).sum()
    }

    /// The same flow's packet comes out as it did a thousand packets before, and all of them were forwarded.
    pub(crate) fn check(&mut self, case: &Case) -> Result<()> {
        let frames = self.frames(case, CHECK)?;
        self.choose(case.what)?;
        self.harness.prepare(&frames);
        let first = self.forward(case, &frames, 0, 1)?.frame;
        let flows = frames.flows.len() as u32;
        let last = self.forward(case, &frames, 0, WARM_UP.next_multiple_of(flows) + 1)?.frame;
        let opens = matches!(case.what, What::Balancer(_, Traffic::New { .. }));
        // A SYN that comes again goes to another backend: only the kinds of frames are alike.
        let alike = if opens { first.len() == last.len() } else { first == last };
        ensure!(alike, "what comes out changes from {} to {}", hex(&first), hex(&last));
        Ok(())
    }

    /// Nanoseconds per packet.
    fn turn(&mut self, case: &Case, round: u8, packets: u32) -> Result<f64> {
        let frames = self.frames(case, round)?;
        let flows = frames.flows.len() as u32;
        self.choose(case.what)?;
        if flows > EVENTS {
            // All of them take longer than that clock's half-second: what it asks for is part of what they cost.
            self.harness.prepare(&frames);
            return Ok(self.forward(case, &frames, flows, 2 * flows + 1)?.time);
        }
        // While it lasts, the clock of the flow table must not go on: every flow's next packet would then take the rare path.
        for _ in 0..20 {
            self.harness.prepare(&frames);
            let sent = match case.what {
                What::Balancer(_, Traffic::New { .. }) => return Ok(self.forward(case, &frames, 0, flows)?.time),
                What::Balancer(_, Traffic::Stale { .. }) => {
                    next_tick();
                    self.forward(case, &frames, 0, flows)?
                }
                _ => self.forward(case, &frames, WARM_UP.max(flows), packets.max(flows) + 1)?,
            };
            if sent.in_one_tick {
                return Ok(sent.time);
            }
        }
        bail!("no turn of it fits into 0.54 s")
    }

    fn frames(&self, case: &Case, round: u8) -> Result<Frames> {
        match case.what {
            What::Floor(_) => Ok(traffic::plain()),
            What::Balancer(kind, traffic) => {
                let site = self.site(kind)?;
                let held = |family| site.held.iter().find(|(of, _)| *of == family).map_or(&[][..], |(_, keys)| keys);
                traffic.frames(kind, &site.dataplane, held, round)
            }
        }
    }

    /// Sends packets, every one of which is to be forwarded as the case says, those for warming up included.
    fn forward(&mut self, case: &Case, frames: &Frames, warm_up: u32, packets: u32) -> Result<Sent> {
        let slice = match case.what {
            // Each flow has one packet.
            What::Balancer(_, Traffic::New { .. } | Traffic::Stale { .. }) => SLICE,
            _ => SLICE.max(frames.flows.len() as u32),
        };
        let (kind, traffic) = match case.what {
            What::Floor(floor) => {
                let expected = match floor {
                    Floor::Drop => Action::Drop,
                    Floor::Pass => Action::Pass,
                    Floor::Swap | Floor::Ipip => Action::Transmit,
                };
                return self.send(case.live, frames, warm_up, packets, slice, expected);
            }
            What::Balancer(kind, traffic) => (kind, traffic),
        };
        let before = self.counted(kind)?;
        let sent = self.send(case.live, frames, warm_up, packets, slice, traffic.action())?;
        let after = self.counted(kind)?;
        refuse_drops(&before, &after)?;
        let (to, back) =
            (after.totals.packets_in - before.totals.packets_in, after.totals.packets_out - before.totals.packets_out);
        let packets = warm_up + packets;
        let expected = match traffic {
            Traffic::Stranger => (0, 0),
            Traffic::Answers { .. } => (0, packets.into()),
            _ => (packets.into(), 0),
        };
        ensure!((to, back) == expected, "of {packets} packets {to} went to backends, and {back} to clients");
        Ok(sent)
    }

    /// Sends packets, those for warming up first. Live ones have to come through the wire.
    fn send(
        &mut self,
        live: bool,
        frames: &Frames,
        warm_up: u32,
        packets: u32,
        slice: u32,
        expected: Action,
    ) -> Result<Sent> {
        let tick = tick();
        let mut sent = Sent { time: f64::NAN, frame: Vec::new(), in_one_tick: false };
        for packets in [warm_up, packets].into_iter().filter(|packets| *packets > 0) {
            let time = if live {
                let before = self.wire.arrived()?;
                let time = self.harness.run_live(frames, packets, slice, self.wire.ifindex)?;
                let arrived = self.wire.arrived()? - before;
                ensure!(arrived == u64::from(packets), "of {packets} packets {arrived} came through the wire");
                time
            } else {
                let (time, last) = self.harness.run(frames, packets, slice)?;
                ensure!(last.action == expected, "{:?} instead of {expected:?}", last.action);
                sent.frame = last.frame;
                time
            };
            sent.time = time.as_nanos() as f64 / f64::from(slice);
        }
        sent.in_one_tick = tick == self::tick();
        Ok(sent)
    }

    fn choose(&mut self, what: What) -> Result<()> {
        match what {
            What::Floor(floor) => Ok(self.harness.choose_floor(floor)?),
            What::Balancer(kind, _) => {
                let site = self.sites.iter_mut().find(|site| site.kind == kind).context("no such site")?;
                Ok(self.harness.choose_balancer(&mut site.dataplane)?)
            }
        }
    }

    fn site(&self, kind: Kind) -> Result<&Site> {
        self.sites.iter().find(|site| site.kind == kind).context("no such site")
    }

    fn counted(&self, kind: Kind) -> Result<Counted> {
        Ok(self.site(kind)?.dataplane.counted())
    }
}

impl Wire {
    fn new(lab: &Lab, harness: &mut Harness) -> Result<Self> {
        let [near, far] = WIRE;
        let front = lab.front().clone();
        front.ip_batch(&format!("link add {near} type veth peer name {far}\n"))?;
        for end in WIRE {
            // Nothing but the bench's own frames on it.
            front.sysctl(&format!("ipv6/conf/{end}/disable_ipv6"), "1")?;
            front.ip_batch(&format!("link set {end} up\n"))?;
        }
        let index = |name| interface::index(name).with_context(|| format!("{name} is not there"));
        let ifindex = index(near)?;
        harness.attach(Floor::Pass, ifindex)?;
        harness.attach(Floor::Drop, index(far)?)?;
        Ok(Self { ifindex, front })
    }

    /// Frames that have come to the far end.
    fn arrived(&self) -> Result<u64> {
        let command = &mut self.front.command("ip");
        let shown: serde_json::Value =
            serde_json::from_str(&lab::run(command.args(["-json", "-statistics", "link", "show", WIRE[1]]), "")?)?;
        shown[0]["stats64"]["rx"]["packets"].as_u64().context("ip tells no statistics")
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if let Err(error) = self.front.ip_batch(&format!("link delete {}\n", WIRE[0])) {
            eprintln!("{error:#}");
        }
    }
}

fn refuse_drops(before: &Counted, after: &Counted) -> Result<()> {
    for (before, after) in before.drops.iter().zip(&after.drops) {
        let dropped = after.packets - before.packets;
        ensure!(dropped == 0, "{dropped} packets were dropped: {}", after.reason);
    }
    Ok(())
}

fn flows(case: &Case) -> u32 {
    match case.what {
        What::Floor(_) => 1,
        What::Balancer(_, traffic) => traffic.flows(),
    }
}

/// The time as flows have it.
fn tick() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    (now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64) >> TICK_SHIFT
}

/// Waits until it goes on.
fn next_tick() -> u64 {
    let start = tick();
    loop {
        let now = tick();
        if now != start {
            return now;
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
