//! The pipeline's world on the host: tables in plain memory, and frames to feed it.

mod build;
mod tables;

pub use build::{ACK, FIN, RST, SYN, TcpFrame, l4_checksum_is_right};
pub use tables::{HostTables, config};
