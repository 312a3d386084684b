//! What the program says of packets that it drops: from its ring buffer into the daemon's log.

use std::{io, time::Duration};

use aya::Ebpf;
use aya_log::EbpfLogger;
use tokio::{task::JoinHandle, time};

use super::Error;

/// How long a record may wait in the ring buffer.
const FLUSH: Duration = Duration::from_millis(100);

/// Forwards log records for as long as it lives.
#[derive(Debug)]
pub(super) struct PacketLog {
    task: JoinHandle<()>,
}

impl PacketLog {
    /// Starts reading what a program logs. Call it within a Tokio runtime.
    pub(super) fn start(ebpf: &mut Ebpf) -> Result<Self, Error> {
        let mut logger = EbpfLogger::init(ebpf).map_err(|error| Error::System {
            what: "cannot read what the XDP program logs".into(),
            source: io::Error::other(error),
        })?;
        let task = tokio::spawn(async move {
            let mut turns = time::interval(FLUSH);
            loop {
                turns.tick().await;
                logger.flush();
            }
        });
        Ok(Self { task })
    }
}

impl Drop for PacketLog {
    fn drop(&mut self) {
        self.task.abort();
    }
}
