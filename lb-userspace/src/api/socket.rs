//! The Unix socket of the control API: one daemon each, gone with it.

use std::{
    fs, io,
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
};

use rustix::{fs::Mode, net::sockopt::socket_peercred, process::umask};
use tokio::net::{UnixListener, UnixStream};

/// Why the socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody answers on it.
    #[error(
        "the socket {} is in use by a running daemon{}; `lb --socket {0} status` shows what it does. Stop it, or give \
         this one a `socket`, `pin_dir` and `state_dir` of its own in [global]",
        .path.display(), .pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
    )]
    InUse {
        /// The socket.
        path: PathBuf,
        /// Who answers, if the kernel tells.
        pid: Option<i32>,
    },
    /// Something else has the name.
    #[error("{} exists and is not a socket; remove it, or name another `socket` in [global]", .0.display())]
    NotASocket(PathBuf),
    /// The system does not let us.
    #[error("cannot listen on {}: {source}; `socket` in [global] names another path", .path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A listening socket.
#[derive(Debug)]
pub struct Socket {
    pub(super) listener: UnixListener,
    pub(super) file: SocketFile,
}

/// The name of a socket, removed on drop.
#[derive(Debug)]
pub(super) struct SocketFile(PathBuf);

impl Socket {
    /// Listens, with mode 0600. A file that a dead daemon left is replaced.
    ///
    /// # Errors
    /// When a daemon answers there, or the system refuses.
    pub async fn bind(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Io { path: path.to_owned(), source };
        match fs::symlink_metadata(path) {
            Ok(metadata) if !metadata.file_type().is_socket() => return Err(Error::NotASocket(path.to_owned())),
            Ok(_) => clear(path).await?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(failed)?;
        }
        let before = umask(Mode::RWXG | Mode::RWXO | Mode::XUSR);
        let listener = UnixListener::bind(path);
        umask(before);
        let listener = listener.map_err(failed)?;
        Ok(Self { listener, file: SocketFile(path.to_owned()) })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Nothing can be done about a failure, and the next start clears it.
        let _ = fs::remove_file(&self.0);
    }
}

/// Removes a socket that nobody answers on.
async fn clear(path: &Path) -> Result<(), Error> {
    let failed = |source| Error::Io { path: path.to_owned(), source };
    match UnixStream::connect(path).await {
        Ok(stream) => {
            let pid = socket_peercred(&stream).ok().map(|peer| peer.pid.as_raw_nonzero().get());
            Err(Error::InUse { path: path.to_owned(), pid })
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(failed),
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn only_the_owner_can_open_it_and_it_goes_with_the_daemon() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/lb.sock");
        let socket = Socket::bind(&path).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_dead_daemon_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lb.sock");
        // As after SIGKILL: the file stays, nobody listens.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let socket = Socket::bind(&path).await.unwrap();
        let error = Socket::bind(&path).await.unwrap_err().to_string();
        let pid = format!("in use by a running daemon (pid {})", std::process::id());
        assert!(error.contains(&pid), "{error}");
        assert!(path.exists(), "it is the other's");
        drop(socket);
        fs::write(&path, "").unwrap();
        assert!(matches!(Socket::bind(&path).await, Err(Error::NotASocket(_))));
        assert!(path.exists());
    }
}
