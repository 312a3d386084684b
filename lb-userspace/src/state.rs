//! Run-time changes on disk: `state.json` in the state directory, replaced as a whole, so that a crash leaves the old
//! file or the new one.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::model::{Override, Overrides, SettingsOverride};

const VERSION: u32 = 1;

/// Why run-time changes cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system does not let us.
    #[error("cannot {action} {}: {source}; `state_dir` in [global] names another directory", .path.display())]
    Io {
        /// Read, create or write.
        action: &'static str,
        /// What.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is none of ours.
    #[error(
        "{} is damaged: {reason}; it holds what was changed at run time (drained, disabled, added, removed or \
         re-weighted backends): repair it, or delete it to start from the configuration alone",
        .path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How.
        reason: String,
    },
}

/// The file of run-time changes.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    saved: Overrides,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    services: BTreeMap<String, BTreeMap<String, Override>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    settings: BTreeMap<String, SettingsOverride>,
}

impl StateFile {
    /// Opens the state directory, creating it when it is missing, and reads what was kept.
    ///
    /// # Errors
    /// When the directory cannot be used or the file cannot be understood.
    pub fn open(state_dir: &Path) -> Result<(Self, Overrides), Error> {
        fs::create_dir_all(state_dir).map_err(|source| Error::Io {
            action: "create",
            path: state_dir.to_owned(),
            source,
        })?;
        let path = state_dir.join("state.json");
        let saved = match fs::read(&path) {
            Ok(text) => parse(&path, &text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Overrides::default(),
            Err(source) => return Err(Error::Io { action: "read", path, source }),
        };
        Ok((Self { path, saved: saved.clone() }, saved))
    }

    /// Keeps the changes. Writes nothing when they are kept already.
    ///
    /// # Errors
    /// When the file cannot be replaced; it is what it was then.
    pub fn save(&mut self, overrides: &Overrides) -> Result<(), Error> {
        if *overrides == self.saved {
            return Ok(());
        }
        let Overrides { services, settings } = overrides.clone();
        let document = Document { version: VERSION, services, settings };
        let mut text = serde_json::to_vec_pretty(&document).expect("names and numbers are JSON");
        text.push(b'\n');
        replace(&self.path, &text).map_err(|source| Error::Io { action: "write", path: self.path.clone(), source })?;
        self.saved = overrides.clone();
        Ok(())
    }
}

fn parse(path: &Path, text: &[u8]) -> Result<Overrides, Error> {
    let damaged = |reason: String| Error::Damaged { path: path.to_owned(), reason };
    let document: Document = serde_json::from_slice(text).map_err(|error| damaged(error.to_string()))?;
    if document.version != VERSION {
        return Err(damaged(format!("it is of version {}, this lb writes version {VERSION}", document.version)));
    }
    Ok(Overrides { services: document.services, settings: document.settings })
}

/// The new file is whole on disk before it takes the name, and the name is on disk before this returns.
pub(crate) fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("json.new");
    let mut file = File::create(&beside)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    let directory = path.parent().expect("the file is in the state directory");
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Entry;

    fn overrides() -> Overrides {
        let file = Entry::from(&crate::config::Backend::new("web-01", "10.0.0.11:80".parse().unwrap(), 1));
        let change = Override { file: Some(file), backend: Some(Entry { weight: 3, ..file }), ..Override::default() };
        let services = BTreeMap::from([("web".into(), BTreeMap::from([("web-01".into(), change)]))]);
        let gone = SettingsOverride { file: Some(serde_json::Map::new()), service: None };
        Overrides { services, settings: BTreeMap::from([("api".into(), gone)]) }
    }

    #[test]
    fn what_is_kept_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let inside = directory.path().join("a/b");
        let (mut file, kept) = StateFile::open(&inside).unwrap();
        assert_eq!(kept, Overrides::default());
        file.save(&overrides()).unwrap();
        assert_eq!(StateFile::open(&inside).unwrap().1, overrides());
        file.save(&Overrides::default()).unwrap();
        assert_eq!(StateFile::open(&inside).unwrap().1, Overrides::default());
        let names: Vec<_> = fs::read_dir(&inside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["state.json"]);
    }

    #[test]
    fn what_cannot_be_understood_is_not_ignored() {
        let directory = tempfile::tempdir().unwrap();
        for (text, says) in [
            ("", "EOF"),
            (r#"{"version":1}"#, "missing field `services`"),
            (r#"{"version":2,"services":{}}"#, "of version 2"),
            (r#"{"version":1,"services":{},"more":1}"#, "unknown field `more`"),
        ] {
            fs::write(directory.path().join("state.json"), text).unwrap();
            let error = StateFile::open(directory.path()).unwrap_err().to_string();
            assert!(error.contains("state.json is damaged") && error.contains(says), "{text}: {error}");
        }
    }
}
