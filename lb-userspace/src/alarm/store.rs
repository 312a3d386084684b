//! `alarms.json` in the state directory: what fires, who was told, what is silenced and what is not delivered yet.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Engine, courier::Pending};
use crate::state;

const VERSION: u32 = 1;

/// What survives the daemon.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kept {
    version: u32,
    pub(super) engine: Engine,
    /// The number of the next message.
    pub(super) next: u64,
    /// What is not delivered yet, in the order in which it is to be.
    pub(super) pending: Vec<Pending>,
}

impl Kept {
    pub(super) fn new(engine: Engine, next: u64, pending: Vec<Pending>) -> Self {
        Self { version: VERSION, engine, next, pending }
    }
}

/// The file.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    failing: bool,
}

impl Store {
    /// Reads the file of a state directory. One that cannot be understood is put aside: the worst that follows is that
    /// somebody is paged twice, which is no reason not to start.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub(super) fn open(state_dir: &Path) -> Result<(Self, Kept), state::Error> {
        let path = state_dir.join("alarms.json");
        let kept = match fs::read(&path) {
            Ok(text) => parse(&text).unwrap_or_else(|reason| {
                let aside = path.with_extension("json.damaged");
                let moved = fs::rename(&path, &aside).map_err(|error| error.to_string());
                let moved = moved.map_or_else(|error| error, |()| format!("it is {} now", aside.display()));
                tracing::error!("{} is damaged: {reason}; alarms start afresh; {moved}", path.display());
                Kept::default()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Kept::default(),
            Err(source) => return Err(state::Error::Io { action: "read", path, source }),
        };
        Ok((Self { path, failing: false }, kept))
    }

    /// Writes the file. Alarms go on when that fails; the log says so once.
    pub(super) fn save(&mut self, kept: &Kept) {
        let mut text = serde_json::to_vec_pretty(kept).expect("words, numbers and times are JSON");
        text.push(b'\n');
        match state::replace(&self.path, &text) {
            Ok(()) => self.failing = false,
            Err(error) if !self.failing => {
                self.failing = true;
                tracing::error!(
                    "cannot write {}: {error}; after a restart alarms may be told twice",
                    self.path.display()
                );
            }
            Err(_) => {}
        }
    }
}

fn parse(text: &[u8]) -> Result<Kept, String> {
    let kept: Kept = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    match kept.version {
        VERSION => Ok(kept),
        other => Err(format!("it is of version {other}, this lb writes version {VERSION}")),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::alarm::{Scope, Silence};

    #[test]
    fn what_is_kept_is_read_again_and_what_is_damaged_is_put_aside() {
        let directory = tempfile::tempdir().unwrap();
        let (mut store, kept) = Store::open(directory.path()).unwrap();
        assert_eq!(kept, Kept::default());
        let mut engine = Engine::default();
        let (at, until) = (Timestamp::from_second(1).unwrap(), Timestamp::from_second(2).unwrap());
        engine.silence(Silence::new(Scope::of("web/web-01"), at, until, "uid 0", Some("known".into())));
        let kept = Kept::new(engine, 7, Vec::new());
        store.save(&kept);
        assert_eq!(Store::open(directory.path()).unwrap().1, kept);
        for text in
            ["", "{}", r#"{"version":9,"engine":{"active":[],"silences":[],"counted":[]},"next":0,"pending":[]}"#]
        {
            fs::write(directory.path().join("alarms.json"), text).unwrap();
            assert_eq!(Store::open(directory.path()).unwrap().1, Kept::default(), "{text}");
            assert_eq!(fs::read(directory.path().join("alarms.json.damaged")).unwrap(), text.as_bytes());
        }
    }
}
