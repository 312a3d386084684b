//! The pipeline's world on the host: tables in plain memory, and frames to feed it.

mod build;
mod frame;
mod tables;

pub use build::{ACK, FIN, RST, SYN, TcpFrame, icmp_frame, l4_checksum_is_right};
pub use frame::{Frame, process};
pub use tables::{HostTables, config};
