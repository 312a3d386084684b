//! The log on disk. Whatever happens to the disk, the file consists of whole lines.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use super::Entry;
use crate::state::Error;

/// Its name in the state directory.
pub(super) const NAME: &str = "events.jsonl";
/// When a file is put aside: some forty thousand events.
const LIMIT: u64 = 8 << 20;
/// What is held back at most while the disk is full.
const BACKLOG: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    length: u64,
    limit: u64,
    /// Whole lines that are not on disk.
    backlog: Vec<u8>,
    failing: bool,
}

impl LogFile {
    /// Opens the log of a state directory, which exists, and reads it with its predecessor.
    pub(super) fn open(state_dir: &Path) -> Result<(Self, VecDeque<Entry>), Error> {
        let path = state_dir.join(NAME);
        let failed = |action| {
            let path = path.clone();
            move |source| Error::Io { action, path, source }
        };
        let entries = stored(&path).map_err(failed("read"))?;
        let file = OpenOptions::new().append(true).create(true).open(&path).map_err(failed("write"))?;
        let length = file.metadata().map_err(failed("read"))?.len();
        let mut log = Self { path: path.clone(), file, length, limit: LIMIT, backlog: Vec::new(), failing: false };
        log.end_line().map_err(failed("write"))?;
        Ok((log, entries))
    }

    /// Takes an entry for the next [`flush`](Self::flush).
    pub(super) fn add(&mut self, entry: &Entry) {
        if self.backlog.len() < BACKLOG {
            serde_json::to_writer(&mut self.backlog, entry).expect("an event is JSON, and memory takes it");
            self.backlog.push(b'\n');
        }
    }

    /// Writes what is held back. A failure is told once; the lines stay held back then.
    pub(super) fn flush(&mut self) {
        match self.write() {
            Ok(()) if self.failing => {
                self.failing = false;
                tracing::info!("the event log {} is written again", self.path.display());
            }
            Ok(()) => {}
            Err(error) => {
                if !self.failing {
                    let path = self.path.display();
                    tracing::error!("cannot write the event log {path}: {error}; events are kept in memory until then");
                }
                self.failing = true;
            }
        }
    }

    fn write(&mut self) -> io::Result<()> {
        if self.length >= self.limit {
            fs::rename(&self.path, aside(&self.path))?;
            self.file = OpenOptions::new().append(true).create(true).open(&self.path)?;
            self.length = 0;
        }
        if let Err(error) = self.file.write_all(&self.backlog) {
            // Half a line would spoil the next. Cutting a file needs no space.
            self.file.set_len(self.length)?;
            return Err(error);
        }
        self.length += self.backlog.len() as u64;
        self.backlog.clear();
        Ok(())
    }

    /// Closes a line that a crash of the machine left open.
    fn end_line(&mut self) -> io::Result<()> {
        let text = fs::read(&self.path)?;
        if text.last().is_some_and(|last| *last != b'\n') {
            self.file.write_all(b"\n")?;
            self.length += 1;
        }
        Ok(())
    }
}

/// The entries of a log and its predecessor, oldest first.
pub(super) fn stored(path: &Path) -> io::Result<VecDeque<Entry>> {
    let mut entries = read(&aside(path))?;
    entries.extend(read(path)?);
    Ok(entries)
}

fn aside(path: &Path) -> PathBuf {
    path.with_extension("jsonl.1")
}

/// The entries of a file that may not exist. What is no entry is left out: a log is read in bad times, too.
fn read(path: &Path) -> io::Result<VecDeque<Entry>> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(VecDeque::new()),
        Err(error) => return Err(error),
    };
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let (mut entries, mut damaged) = (VecDeque::new(), 0);
    for line in lines {
        match serde_json::from_slice(line) {
            Ok(entry) => entries.push_back(entry),
            Err(_) => damaged += 1,
        }
    }
    if damaged > 0 {
        tracing::warn!("{}: {damaged} lines are no events and are left out", path.display());
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::tests::event;

    fn entry(seq: u64) -> Entry {
        Entry { seq, event: event(seq.cast_signed(), "web") }
    }

    fn numbers(directory: &Path) -> Vec<u64> {
        LogFile::open(directory).unwrap().1.iter().map(|entry| entry.seq).collect()
    }

    #[test]
    fn a_large_file_is_put_aside_and_still_read() {
        let directory = tempfile::tempdir().unwrap();
        let (mut log, _) = LogFile::open(directory.path()).unwrap();
        log.limit = 400;
        for seq in 1..=9 {
            log.add(&entry(seq));
            log.flush();
        }
        let numbers = numbers(directory.path());
        assert_eq!(numbers.last(), Some(&9));
        assert!(numbers.len() < 9, "the oldest are gone: {numbers:?}");
        assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{numbers:?}");
    }

    #[test]
    fn half_a_line_spoils_neither_its_predecessor_nor_its_successor() {
        let directory = tempfile::tempdir().unwrap();
        let (mut log, _) = LogFile::open(directory.path()).unwrap();
        log.add(&entry(1));
        log.flush();
        log.file.write_all(br#"{"seq":2,"at"#).unwrap();
        let (mut log, _) = LogFile::open(directory.path()).unwrap();
        log.add(&entry(3));
        log.flush();
        assert_eq!(numbers(directory.path()), [1, 3]);
    }

    #[test]
    fn what_could_not_be_written_is_written_later() {
        let directory = tempfile::tempdir().unwrap();
        let (mut log, _) = LogFile::open(directory.path()).unwrap();
        let good = std::mem::replace(&mut log.file, File::options().append(true).open("/dev/full").unwrap());
        log.add(&entry(1));
        log.flush();
        log.add(&entry(2));
        log.flush();
        assert!(log.failing);
        log.file = good;
        log.add(&entry(3));
        log.flush();
        assert!(!log.failing);
        assert_eq!(numbers(directory.path()), [1, 2, 3]);
    }
}
