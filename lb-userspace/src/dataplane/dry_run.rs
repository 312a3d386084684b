//! The packet path without packets: one frame through the loaded program, or a copy of the maps for the host's.
//!
//! What this finds is what the network would: it is the same program and the same maps.

use aya::programs::{TestRun, TestRunOptions, Xdp};
use lb_common::host::HostTables;

use super::{Dataplane, Error, host, program};

/// What the kernel does with a frame (`enum xdp_action`, include/uapi/linux/bpf.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// An error in the program, or no such device.
    Aborted,
    /// Dropped.
    Drop,
    /// Left to the kernel.
    Pass,
    /// Out by the interface that it came in by.
    Transmit,
    /// Out by another.
    Redirect,
}

/// A frame after its way through the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DryRun {
    /// What would become of it.
    pub action: Action,
    /// Its bytes.
    pub frame: Vec<u8>,
}

/// `struct xdp_md`, as BPF_PROG_TEST_RUN takes it.
pub(super) fn context(length: usize, ingress_ifindex: u32) -> [u8; 24] {
    bytemuck::cast([0, length as u32, 0, ingress_ifindex, 0, 0])
}

/// The action that a program returned.
pub(super) fn action(code: u32) -> Action {
    match code {
        1 => Action::Drop,
        2 => Action::Pass,
        3 => Action::Transmit,
        4 => Action::Redirect,
        _ => Action::Aborted,
    }
}

impl Dataplane {
    /// Sends a frame of at least 14 bytes through the loaded program on this CPU, as if it had come in by an interface of
    /// this network namespace. Flows and counters change as they would for a real one.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses the frame or the interface.
    pub fn dry_run(&mut self, frame: &[u8], ingress_ifindex: u32) -> Result<DryRun, Error> {
        let mut out = vec![0; frame.len() + 256];
        let context = context(frame.len(), ingress_ifindex);
        let program: &mut Xdp = program::program(&mut self.ebpf)?;
        let result = program
            .test_run(TestRunOptions {
                data_in: Some(frame),
                data_out: Some(&mut out),
                ctx_in: Some(&context),
                ..Default::default()
            })
            .map_err(|source| Error::Load { source: Box::new(source.into()) })?;
        out.truncate(result.data_size_out as usize);
        Ok(DryRun { action: action(result.return_value), frame: out })
    }

    /// A copy of the maps as the given CPU sees them, for the pipeline on the host.
    #[must_use]
    pub fn host_tables(&self, cpu: u32) -> HostTables {
        HostTables { features: self.variant.features, ..host::tables(&self.maps, cpu) }
    }
}
