//! Where visitors come in: new connections, and those that are kept and have something to say.

use std::{
    collections::HashMap,
    io,
    net::{TcpListener, TcpStream},
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    sync::{Mutex, PoisonError},
};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

/// No connection's.
const LISTENER: u64 = u64::MAX;

/// A listener, and connections between two requests.
#[derive(Debug)]
pub(super) struct Door {
    listener: TcpListener,
    epoll: OwnedFd,
    kept: Mutex<HashMap<u64, TcpStream>>,
}

impl Door {
    pub(super) fn open(listener: TcpListener) -> io::Result<Self> {
        // Of several who are woken one is first.
        listener.set_nonblocking(true)?;
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        Ok(Self { listener, epoll, kept: Mutex::default() })
    }

    /// Waits for a connection on which there is something to read, or a new one.
    pub(super) fn next(&self) -> io::Result<TcpStream> {
        loop {
            let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(LISTENER) }];
            if epoll::wait(&self.epoll, &mut events[..], None)? == 0 {
                continue;
            }
            let data = events[0].data.u64();
            if data != LISTENER {
                let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).remove(&data);
                let Some(stream) = kept else { continue };
                epoll::delete(&self.epoll, &stream)?;
                return Ok(stream);
            }
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false)?;
                    return Ok(stream);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Keeps a connection until there is something to read again.
    pub(super) fn keep(&self, stream: TcpStream) {
        let number = stream.as_raw_fd() as u64;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        // Once, so that one of those who wait gets it. What cannot be waited for is closed.
        if epoll::add(&self.epoll, stream.as_fd(), EventData::new_u64(number), EventFlags::IN | EventFlags::ONESHOT)
            .is_ok()
        {
            kept.insert(number, stream);
        }
    }
}
