//! Nanoseconds per packet of the loaded program and of the floors, by `BPF_PROG_TEST_RUN`.

use std::{path::Path, time::Duration};

use aya::{
    Ebpf, EbpfLoader,
    maps::{MapData, ProgramArray},
    programs::{ProgramError, TestRun, TestRunOptions, Xdp},
};
use lb_common::bench::{TEMPLATE_WORDS, Template};

use super::{Dataplane, DryRun, Error, dry_run, link, program, region::Region};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lb-bench"));

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measured {
    /// The balancer.
    Balancer,
    /// A program that passes.
    Pass,
    /// A program that swaps the MAC addresses.
    Swap,
    /// A program that pushes a constant IPv4 header.
    Ipip,
}

/// Frames that differ in four bytes of address and a port.
#[derive(Clone, Debug)]
pub struct Frames {
    /// The first of them; at least 64 bytes.
    pub frame: Vec<u8>,
    /// Offset of the four bytes of address.
    pub address_at: u32,
    /// Offset of the port.
    pub port_at: u32,
    /// Address bytes and port of each flow, a power of two of them.
    pub flows: Vec<([u8; 4], u16)>,
}

/// The restoring program, its maps and the floors.
pub struct Harness {
    ebpf: Ebpf,
    template: Region<Template>,
    keys: Region<u64>,
    measured: ProgramArray<MapData>,
    ifindex: u32,
}

impl Harness {
    /// Loads it; its maps are pinned in a directory of their own, to be removed by the caller.
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
        for name in ["restore", "floor_pass", "floor_swap", "floor_ipip"] {
            xdp(&mut ebpf, name)?.load().map_err(|source| load(source.into()))?;
        }
        let map = |source| Error::Map { path: "MEASURED".into(), source };
        let measured = ebpf.take_map("MEASURED").expect("lb-bench has it");
        Ok(Self {
            template: super::maps::map_pinned(&pin_dir.join("TEMPLATE"), 1, true)?,
            keys: super::maps::map_pinned(&pin_dir.join("KEYS"), most_flows, true)?,
            measured: ProgramArray::try_from(measured).map_err(map)?,
            ebpf,
            ifindex,
        })
    }

    /// Chooses the program to measure.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn choose(&mut self, measured: Measured, dataplane: &mut Dataplane) -> Result<(), Error> {
        let fd = match measured {
            Measured::Balancer => program::program(&mut dataplane.ebpf)?,
            Measured::Pass => xdp(&mut self.ebpf, "floor_pass")?,
            Measured::Swap => xdp(&mut self.ebpf, "floor_swap")?,
            Measured::Ipip => xdp(&mut self.ebpf, "floor_ipip")?,
        }
        .fd()
        .map_err(|source| Error::Load { source: Box::new(source.into()) })?
        .try_clone()
        .map_err(|source| Error::System { what: "cannot clone a program's descriptor".into(), source })?;
        self.measured.set(0, &fd, 0).map_err(|source| Error::Map { path: "MEASURED".into(), source })
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
                turn: frames.flows.len() as u64 - 1,
                address_at: frames.address_at,
                port_at: frames.port_at,
            },
        );
        for (index, (address, port)) in (0..).zip(&frames.flows) {
            let key = u64::from(u32::from_ne_bytes(*address)) << 32 | u64::from(port.to_be());
            self.keys.write(index, &key);
        }
    }

    /// Sends so many packets, one after another, on this CPU: time per packet, and what became of the last.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn run(&mut self, frames: &Frames, packets: u32) -> Result<(Duration, DryRun), Error> {
        let mut out = vec![0; frames.frame.len() + 256];
        let context = dry_run::context(frames.frame.len(), self.ifindex);
        let result = xdp(&mut self.ebpf, "restore")?
            .test_run(TestRunOptions {
                data_in: Some(&frames.frame),
                data_out: Some(&mut out),
                ctx_in: Some(&context),
                repeat: packets,
                ..Default::default()
            })
            .map_err(|source| Error::Load { source: Box::new(source.into()) })?;
        out.truncate(result.data_size_out as usize);
        Ok((result.duration, DryRun { action: dry_run::action(result.return_value), frame: out }))
    }
}

fn xdp<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, Error> {
    let program = ebpf.program_mut(name).expect("lb-bench has this entry point");
    program.try_into().map_err(|source: ProgramError| Error::Load { source: Box::new(source.into()) })
}
