//! What becomes of a frame.

use bytemuck::CheckedBitPattern;

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
    /// Needs the rare path: [`crate::rare`]. Never the answer of [`crate::pipeline::process`].
    Rare,
}

impl Verdict {
    /// In a word.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        match self {
            Self::Pass => 0,
            Self::Transmit => 1,
            Self::Redirect(ifindex) => 2 | (ifindex as u64) << 32,
            Self::Drop(reason) => 3 | (reason as u64) << 32,
            Self::Rare => 4,
        }
    }

    /// Back from [`to_word`](Self::to_word).
    #[inline(always)]
    pub fn from_word(word: u64) -> Self {
        let value = (word >> 32) as u32;
        match word & 0xff {
            1 => Self::Transmit,
            2 => Self::Redirect(value),
            3 => Self::Drop(DropReason::from_number(value as u8)),
            4 => Self::Rare,
            _ => Self::Pass,
        }
    }
}

/// Why a frame was dropped; each reason is its own counter.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, CheckedBitPattern)]
pub enum DropReason {
    /// The service has no backend that takes new flows.
    NoBackend,
    /// Not the start of a flow, and no flow is known; or it comes from an address that is balanced itself.
    NoFlow,
    /// No free source port towards the backend was found.
    NatPortsExhausted,
    /// Every place that the flow could have in the table holds an established flow.
    FlowTableFull,
    /// Its time to live or hop limit ran out here.
    HopLimit,
    /// A fragment that came before the first one, or long after it.
    Fragment,
    /// The backend refused the connection; the client's next SYN goes to another.
    Refused,
    /// A backend's late answer to a SYN that has gone to another since.
    Superseded,
    /// Larger than what gets to the backend; the sender was told, unless it was told too often.
    TooBig,
    /// Every backend that could take the flow has as many as it may have.
    BackendFull,
    /// A table was smaller than the configuration said, or a header ended early: should not happen.
    Internal,
}

impl DropReason {
    /// Every reason, in the order of their counters.
    pub const ALL: [Self; 11] = [
        Self::NoBackend,
        Self::NoFlow,
        Self::NatPortsExhausted,
        Self::FlowTableFull,
        Self::HopLimit,
        Self::Fragment,
        Self::Refused,
        Self::Superseded,
        Self::TooBig,
        Self::BackendFull,
        Self::Internal,
    ];

    /// The reason with a number; [`Internal`](Self::Internal) for a number that none has.
    #[inline(always)]
    pub fn from_number(number: u8) -> Self {
        bytemuck::checked::try_cast(number).unwrap_or(Self::Internal)
    }

    /// As metrics and JSON name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoBackend => "no_backend",
            Self::NoFlow => "no_flow",
            Self::NatPortsExhausted => "nat_ports_exhausted",
            Self::FlowTableFull => "flow_table_full",
            Self::HopLimit => "hop_limit",
            Self::Fragment => "fragment",
            Self::Refused => "refused",
            Self::Superseded => "superseded",
            Self::TooBig => "too_big",
            Self::BackendFull => "backend_full",
            Self::Internal => "internal",
        }
    }
}
