//! Nanoseconds per packet of the loaded program and of the floors, by `BPF_PROG_TEST_RUN`.

use std::{
    mem::offset_of,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{MapData, ProgramArray},
    programs::{TestRun, TestRunAttrs, TestRunOptions, TestRunResult, Xdp, xdp::XdpMode},
};
use lb_common::{
    bench::{TEMPLATE_WORDS, Template},
    flow::{FlowWord, State},
    layout::{NatSlot, Service, backend_flags, forward},
    wire::Be16,
};

use super::{Counters, Dataplane, DropCount, DryRun, Error, address, dry_run, link, program, region::Region, snapshot};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lb-bench"));

/// A program that does next to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Floor {
    /// Drops.
    Drop,
    /// Passes.
    Pass,
    /// Swaps the MAC addresses.
    Swap,
    /// Pushes a constant IPv4 header.
    Ipip,
}

impl Floor {
    fn program(self) -> &'static str {
        match self {
            Self::Drop => "floor_drop",
            Self::Pass => "floor_pass",
            Self::Swap => "floor_swap",
            Self::Ipip => "floor_ipip",
        }
    }
}

/// Frames that differ in four bytes of address and a port.
#[derive(Clone, Debug)]
pub struct Frames {
    /// The first of them; at least 72 bytes.
    pub frame: Vec<u8>,
    /// Offset of the four bytes of address.
    pub address_at: u32,
    /// Offset of the port.
    pub port_at: u32,
    /// What each flow has there; the number of flows is a power of two.
    pub flows: Vec<FlowKey>,
}

/// Address bytes and port.
pub type FlowKey = ([u8; 4], u16);

impl Frames {
    /// The frame of one flow.
    #[must_use]
    pub fn frame_of(&self, (address, port): FlowKey) -> Vec<u8> {
        let mut frame = self.frame.clone();
        frame[self.address_at as usize..][..4].copy_from_slice(&address);
        frame[self.port_at as usize..][..2].copy_from_slice(&port.to_be_bytes());
        frame
    }
}

/// The restoring program, its maps and the floors. Its maps are pinned for as long as it lives.
pub struct Harness {
    ebpf: Ebpf,
    template: Region<Template>,
    keys: Region<u64>,
    measured: ProgramArray<MapData>,
    pin_dir: PathBuf,
    ifindex: u32,
}

impl Harness {
    /// Loads it, with maps in a directory of their own. The program that passes is attached to the interface that frames seem
    /// to come in by: the kernel takes no interface without one for that.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn new(pin_dir: &Path, most_flows: u32, ifindex: u32) -> Result<Self, Error> {
        link::create_dir(pin_dir)?;
        let load = |source: aya::EbpfError| Error::Load { source: Box::new(source) };
        let mut ebpf = EbpfLoader::new()
            .default_map_pin_directory(pin_dir)
            .map_max_entries("KEYS", most_flows)
            .load(OBJECT)
            .map_err(load)?;
        let floors = [Floor::Drop, Floor::Pass, Floor::Swap, Floor::Ipip].map(Floor::program);
        for name in floors.into_iter().chain(["restore"]) {
            program::entry_point(&mut ebpf, name)?.load().map_err(|source| load(source.into()))?;
        }
        let map = |source| Error::Map { path: "MEASURED".into(), source };
        let measured = ebpf.take_map("MEASURED").expect("lb-bench has it");
        let mut harness = Self {
            template: super::maps::map_pinned(&pin_dir.join("TEMPLATE"), 1, true)?,
            keys: super::maps::map_pinned(&pin_dir.join("KEYS"), most_flows, true)?,
            measured: ProgramArray::try_from(measured).map_err(map)?,
            pin_dir: pin_dir.into(),
            ebpf,
            ifindex,
        };
        harness.attach(Floor::Pass, ifindex)?;
        Ok(harness)
    }

    /// Attaches a floor to an interface, for as long as this lives.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn attach(&mut self, floor: Floor, ifindex: u32) -> Result<(), Error> {
        let attached =
            program::entry_point(&mut self.ebpf, floor.program())?.attach_to_if_index(ifindex, XdpMode::Driver);
        attached.map(drop).map_err(|source| Error::Load { source: Box::new(source.into()) })
    }

    /// Chooses a floor to measure.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn choose_floor(&mut self, floor: Floor) -> Result<(), Error> {
        choose(&mut self.measured, program::entry_point(&mut self.ebpf, floor.program())?)
    }

    /// Chooses the balancer with these tables to measure.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn choose_balancer(&mut self, dataplane: &mut Dataplane) -> Result<(), Error> {
        choose(&mut self.measured, program::program(&mut dataplane.ebpf)?)
    }

    /// Sets the frames.
    pub fn prepare(&mut self, frames: &Frames) {
        let mut words = [0; TEMPLATE_WORDS];
        bytemuck::bytes_of_mut(&mut words).copy_from_slice(&frames.frame[..TEMPLATE_WORDS * 8]);
        self.template.write(
            0,
            &Template {
                words,
                length: frames.frame.len() as u64,
                turn_mask: frames.flows.len() as u64 - 1,
                sent: 0,
                slice_mask: 0,
                began_ns: 0,
                least_ns: 0,
                address_at: frames.address_at,
                port_at: frames.port_at,
            },
        );
        for (index, (address, port)) in (0..).zip(&frames.flows) {
            let key = u64::from(u32::from_ne_bytes(*address)) << 32 | u64::from(port.to_be());
            self.keys.write(index, &key);
        }
    }

    /// Sends so many packets, one after another, on this CPU, from that of the first flow on: the least time that a slice of them took,
    /// from the first of it to the first of the next, and what became of the last packet. Slices are powers of two.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn run(&mut self, frames: &Frames, packets: u32, slice: u32) -> Result<(Duration, DryRun), Error> {
        let mut out = vec![0; frames.frame.len() + 256];
        let (least, result) = self.timed(
            slice,
            TestRunOptions {
                data_in: Some(&frames.frame),
                data_out: Some(&mut out),
                ctx_in: Some(&dry_run::context(frames.frame.len(), self.ifindex)),
                repeat: packets,
                ..Default::default()
            },
        )?;
        out.truncate(result.data_size_out as usize);
        Ok((least, DryRun { action: dry_run::action(result.return_value), frame: out }))
    }

    /// The same with frames that go where the program sends them, as if they had come in by an interface, in batches as a driver has
    /// them. The kernel does not tell what became of the last.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn run_live(&mut self, frames: &Frames, packets: u32, slice: u32, ifindex: u32) -> Result<Duration, Error> {
        /// What a driver takes off its ring at a time: NAPI_POLL_WEIGHT.
        const BATCH: u32 = 64;
        let options = TestRunOptions {
            data_in: Some(&frames.frame),
            ctx_in: Some(&dry_run::context(frames.frame.len(), ifindex)),
            repeat: packets,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..Default::default()
        };
        self.timed(slice, options).map(|(least, _)| least)
    }

    fn timed(&mut self, slice: u32, options: TestRunOptions<'_>) -> Result<(Duration, TestRunResult), Error> {
        let template = self.template.read(0);
        let slice_mask = u64::from(slice) - 1;
        self.template.write(0, &Template { sent: 0, slice_mask, least_ns: u64::MAX, ..template });
        let result = program::entry_point(&mut self.ebpf, "restore")?
            .test_run(options)
            .map_err(|source| Error::Load { source: Box::new(source.into()) })?;
        Ok((Duration::from_nanos(self.template.read(0).least_ns), result))
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        for name in ["TEMPLATE", "KEYS"] {
            let _ = std::fs::remove_file(self.pin_dir.join(name));
        }
        let _ = std::fs::remove_dir(&self.pin_dir);
    }
}

fn choose(measured: &mut ProgramArray<MapData>, program: &Xdp) -> Result<(), Error> {
    let fd = program.fd().map_err(|source| Error::Load { source: Box::new(source.into()) })?;
    measured.set(0, fd, 0).map_err(|source| Error::Map { path: "MEASURED".into(), source })
}

/// What the program has counted, of all backends.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// Packets and flows.
    pub totals: Counters,
    /// Packets dropped, by reason.
    pub drops: Vec<DropCount>,
}

/// A flow as its backend sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendFlow {
    /// The backend.
    pub backend: SocketAddr,
    /// Whom it answers.
    pub client: SocketAddr,
}

/// A program that the kernel has verified and translated.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The entry point.
    pub name: &'static str,
    /// How long the system call took.
    pub time: Duration,
    /// Instructions that the verifier went through.
    pub verified_instructions: u32,
}

impl Dataplane {
    /// What the program has counted so far: no look at any flow.
    #[must_use]
    pub fn counted(&self) -> Counted {
        let mut counted = Counted::default();
        for (index, _) in self.maps.backends() {
            counted.totals += self.maps.counters(index).into();
        }
        counted.drops = snapshot::drops(&self.maps);
        counted
    }

    /// The flows in a state whose answers come back this way.
    #[must_use]
    pub fn backend_flows(&self, state: State) -> Vec<BackendFlow> {
        const WORDS: usize = size_of::<NatSlot>() / 8;
        let (slots, _) = self.maps.nat.words().as_chunks::<WORDS>();
        let in_state = |slot: &&[AtomicU64; WORDS]| {
            FlowWord(slot[offset_of!(NatSlot, word) / 8].load(Ordering::Relaxed)).state() == state
        };
        slots.iter().filter(in_state).map(|slot| self.backend_flow(slot)).collect()
    }

    /// Of the words of a [`NatSlot`].
    fn backend_flow(&self, slot: &[AtomicU64]) -> BackendFlow {
        let word = |field: usize| slot[field / 8].load(Ordering::Relaxed);
        let port_service = word(offset_of!(NatSlot, port_service));
        let client = [0, 8].map(|half| word(offset_of!(NatSlot, client) + half));
        let word = FlowWord(word(offset_of!(NatSlot, word)));
        let service: Service = self.maps.services.read((port_service >> 16) as u32);
        let backend = self.maps.backends.read(word.backend());
        let family = if backend.flags & backend_flags::IPV6 == 0 { 4 } else { 6 };
        let client = if service.forward == forward::DNAT {
            address::socket(client, family, Be16::from_raw(port_service as u16))
        } else {
            address::socket(backend.source, family, word.port())
        };
        BackendFlow { backend: address::of_backend(&backend), client }
    }

    /// Has the kernel verify and translate the program once more, beside the running one.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn load_again(&self) -> Result<Vec<Loaded>, Error> {
        let mut ebpf = program::object(&self.options.pin_dir, &self.maps.config, self.variant)?;
        let mut load = |name| {
            let started = Instant::now();
            let program = program::load_entry_point(&mut ebpf, name)?;
            let time = started.elapsed();
            let info = program.info().map_err(|source| Error::Load { source: Box::new(source.into()) })?;
            Ok(Loaded { name, time, verified_instructions: info.verified_instruction_count().unwrap_or(0) })
        };
        program::ENTRY_POINTS.into_iter().map(&mut load).collect()
    }
}
