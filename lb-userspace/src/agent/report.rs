//! What an agent says: a line in the words of HAProxy's agent-check (HAProxy configuration manual, section 5.2), or JSON.

use std::{
    fmt,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{Cgroup, Curve, Measures, Memory, Pressures, Reading, Steady};
use crate::api::types::SCHEMA_VERSION;

/// A reading, and the share that it leaves.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    reading: Reading,
    percent: u16,
    at: Instant,
}

/// A share in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// The whole share.
    Ready,
    /// Part of it.
    Short,
    /// Nothing new.
    RedLine,
}

/// A report as JSON.
#[derive(Serialize)]
struct Document<'a> {
    schema_version: u32,
    state: Standing,
    percent: u16,
    words: String,
    age_seconds: f64,
    memory: Memory,
    memory_available_percent: f64,
    cgroup: Option<&'a Cgroup>,
    cgroup_missing: Option<String>,
    pressure: Pressures,
    load: [f64; 3],
    cpus: usize,
}

impl Report {
    /// What a reading comes to, after those before.
    pub(super) fn new(reading: Reading, curve: &Curve, steady: &mut Steady) -> Self {
        let measures = Measures {
            memory: reading.percent(),
            pressure: reading.pressure.memory.map_or(0.0, |pressure| pressure.some_avg10),
            load: reading.load[0] / reading.cpus as f64,
        };
        Self { reading, percent: steady.say(curve.share(measures)), at: Instant::now() }
    }

    /// How old it is.
    pub fn age(&self) -> Duration {
        self.at.elapsed()
    }

    /// In a word.
    pub fn standing(&self) -> Standing {
        match self.percent {
            0 => Standing::RedLine,
            1..100 => Standing::Short,
            _ => Standing::Ready,
        }
    }

    /// As JSON.
    pub fn json(&self) -> String {
        let Self { reading, percent, .. } = self;
        let document = Document {
            schema_version: SCHEMA_VERSION,
            state: self.standing(),
            percent: *percent,
            words: self.to_string(),
            age_seconds: self.age().as_secs_f64(),
            memory: reading.memory,
            memory_available_percent: reading.percent(),
            cgroup: reading.cgroup.as_ref(),
            cgroup_missing: reading.missing.as_ref().map(|path| path.display().to_string()),
            pressure: reading.pressure,
            load: reading.load,
            cpus: reading.cpus,
        };
        serde_json::to_string(&document).expect("there are only text and numbers")
    }
}

/// "up ready 63% # memory 14 % available, pressure 4 %, load 0.8": `up` and `ready` take back what an agent said before.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reading, percent, .. } = self;
        let red = if self.standing() == Standing::RedLine { "at the red line: " } else { "" };
        write!(f, "up ready {percent}% # {red}memory {:.0} % available", reading.percent())?;
        if let Some(missing) = &reading.missing {
            write!(f, ", no cgroup {}", missing.display())?;
        }
        if let Some(pressure) = reading.pressure.memory {
            write!(f, ", pressure {:.0} %", pressure.some_avg10)?;
        }
        write!(f, ", load {:.1}", reading.load[0])
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::agent::Pressure;

    /// A machine with so much memory left.
    pub(in crate::agent) fn report(available: u64) -> Report {
        let reading = Reading {
            memory: Memory { total_bytes: 1000, available_bytes: available },
            cgroup: None,
            missing: None,
            pressure: Pressures { memory: Some(Pressure { some_avg10: 4.2, full_avg10: 0.0 }), ..Pressures::default() },
            load: [0.8, 0.5, 0.2],
            cpus: 2,
        };
        Report::new(reading, &Curve::default(), &mut Steady::default())
    }

    #[test]
    fn the_line_has_the_words_of_haproxy_and_the_reason() {
        for (available, expected) in [
            (370, "up ready 100% # memory 37 % available, pressure 4 %, load 0.8"),
            (125, "up ready 50% # memory 12 % available, pressure 4 %, load 0.8"),
            (30, "up ready 0% # at the red line: memory 3 % available, pressure 4 %, load 0.8"),
        ] {
            assert_eq!(report(available).to_string(), expected);
        }
        let mut somewhere = report(370);
        somewhere.reading.missing = Some("/site".into());
        somewhere.reading.pressure.memory = None;
        assert_eq!(somewhere.to_string(), "up ready 100% # memory 37 % available, no cgroup /site, load 0.8");
    }

    #[test]
    fn json_says_the_same_with_the_figures() {
        let document: serde_json::Value = serde_json::from_str(&report(125).json()).unwrap();
        for (pointer, expected) in [
            ("/schema_version", serde_json::json!(1)),
            ("/state", "short".into()),
            ("/percent", 50.into()),
            ("/memory/total_bytes", 1000.into()),
            ("/memory/available_bytes", 125.into()),
            ("/memory_available_percent", 12.5.into()),
            ("/pressure/memory/some_avg10", 4.2.into()),
            ("/pressure/cpu", serde_json::Value::Null),
            ("/load/0", 0.8.into()),
        ] {
            assert_eq!(document.pointer(pointer), Some(&expected), "{pointer} in {document}");
        }
        assert!(document["age_seconds"].as_f64().unwrap() < 5.0);
    }
}
