//! What the program says of packets that it drops: from its ring buffer into the daemon's log.

use aya::Ebpf;
use aya_log::EbpfLogger;
use tokio::{
    io::{Interest, unix::AsyncFd},
    task::JoinHandle,
};

use super::Error;

/// Forwards log records for as long as it lives.
#[derive(Debug)]
pub(super) struct PacketLog {
    task: JoinHandle<()>,
}

impl PacketLog {
    /// Starts reading what a program logs. Call it within a Tokio runtime.
    pub(super) fn start(ebpf: &mut Ebpf) -> Result<Self, Error> {
        let refused = |error: String| Error::System {
            what: "cannot read what the XDP program logs".into(),
            source: std::io::Error::other(error),
        };
        let logger = EbpfLogger::init(ebpf).map_err(|error| refused(error.to_string()))?;
        let mut logger =
            AsyncFd::register_with_interest(logger, Interest::READABLE).map_err(|error| refused(error.to_string()))?;
        let task = tokio::spawn(async move {
            while let Ok(mut ready) = logger.readable_mut().await {
                ready.get_inner_mut().flush();
                ready.clear_ready();
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
