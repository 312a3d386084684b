//! What becomes of a frame.

/// The pipeline's answer, turned into an XDP action once, in the entry point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not ours: the kernel gets it, untouched.
    Pass,
    /// Rewritten; out by the interface that it came in by.
    Transmit,
    /// Rewritten; out by the interface with this index.
    Redirect(u32),
    /// Gone, and counted.
    Drop(DropReason),
}

/// Why a frame was dropped; each reason is its own counter.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// The service has no backend that takes new flows.
    NoBackend,
    /// Not the start of a flow, and no flow is known.
    NoFlow,
    /// No free source port towards the backend was found.
    NatPortsExhausted,
    /// Every place that the flow could have in the table holds an established flow.
    FlowTableFull,
    /// Its time to live or hop limit ran out here.
    HopLimit,
    /// The first fragment of a packet for a service.
    Fragment,
    /// A table was smaller than the configuration said, or a header ended early: should not happen.
    Internal,
}

impl DropReason {
    /// Every reason, in the order of their counters.
    pub const ALL: [Self; 7] = [
        Self::NoBackend,
        Self::NoFlow,
        Self::NatPortsExhausted,
        Self::FlowTableFull,
        Self::HopLimit,
        Self::Fragment,
        Self::Internal,
    ];

    /// As metrics and JSON name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoBackend => "no_backend",
            Self::NoFlow => "no_flow",
            Self::NatPortsExhausted => "nat_ports_exhausted",
            Self::FlowTableFull => "flow_table_full",
            Self::HopLimit => "hop_limit",
            Self::Fragment => "fragment",
            Self::Internal => "internal",
        }
    }
}
