//! What the kernel says of memory, pressure and load: procfs, and the memory cgroup of the site where it has one.
//!
//! Version 1 and 2 of cgroups (Linux, admin-guide/cgroup-v1/memory.rst, admin-guide/cgroup-v2.rst) and pressure stall
//! information (accounting/psi.rst), which kernels may lack.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
};

use serde::Serialize;

use super::Error;

/// Where a container has its own memory cgroup. On a machine's root there is no limit, or no such file.
const OWN: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/memory"];

/// Where the figures are.
#[derive(Clone, Debug)]
pub struct Sources {
    proc: PathBuf,
    /// The memory cgroup that somebody named.
    named: Option<PathBuf>,
}

/// How a server is.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// The machine's memory.
    pub memory: Memory,
    /// The cgroup with a limit that has the least room, if there is one.
    pub cgroup: Option<Cgroup>,
    /// What was named and is not there.
    pub missing: Option<PathBuf>,
    /// Waiting; the memory's is the cgroup's own where the kernel knows it.
    pub pressure: Pressures,
    /// Tasks that run or wait, over 1, 5 and 15 minutes.
    pub load: [f64; 3],
    /// CPUs that there are to use.
    pub cpus: usize,
}

/// Memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// What there is.
    pub total_bytes: u64,
    /// What can be had without swapping.
    pub available_bytes: u64,
}

/// A memory cgroup with a limit, in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cgroup {
    /// Its directory.
    pub path: PathBuf,
    /// What it may have.
    pub limit_bytes: u64,
    /// What it has.
    pub usage_bytes: u64,
    /// What the kernel takes back from it first: the file cache that nobody has touched lately.
    pub inactive_file_bytes: u64,
}

/// Who waits for what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Pressures {
    /// For memory.
    pub memory: Option<Pressure>,
    /// For a CPU.
    pub cpu: Option<Pressure>,
    /// For a disk.
    pub io: Option<Pressure>,
}

/// The part of the last ten seconds in which tasks waited, in percent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Pressure {
    /// At least one.
    pub some_avg10: f64,
    /// All of them.
    pub full_avg10: f64,
}

impl Memory {
    /// What can be had, in percent.
    pub fn percent(self) -> f64 {
        percent(self.available_bytes, self.total_bytes)
    }
}

impl Cgroup {
    /// What it can still have.
    pub fn available_bytes(&self) -> u64 {
        self.limit_bytes.saturating_sub(self.usage_bytes.saturating_sub(self.inactive_file_bytes))
    }

    /// What it can still have, in percent of its limit.
    pub fn percent(&self) -> f64 {
        percent(self.available_bytes(), self.limit_bytes)
    }
}

impl Reading {
    /// What can be had, in percent: of the machine's memory or within the cgroup, whichever is less.
    pub fn percent(&self) -> f64 {
        let machine = self.memory.percent();
        self.cgroup.as_ref().map_or(machine, |cgroup| cgroup.percent().min(machine))
    }
}

fn percent(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64 * 100.0
}

impl Sources {
    /// Those of this machine, and of a memory cgroup: the one named, or that of the container.
    pub fn new(cgroup: Option<PathBuf>) -> Self {
        Self { proc: "/proc".into(), named: cgroup }
    }

    /// How the server is.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn read(&self) -> Result<Reading, Error> {
        let memory = self.parse("meminfo", meminfo)?;
        let load = self.parse("loadavg", loadavg)?;
        let bounded = |start: &Path| cgroups(start, memory.total_bytes);
        let (cgroups, missing) = match &self.named {
            Some(named) => (bounded(named), Some(named).filter(|named| !is_cgroup(named)).cloned()),
            None => (OWN.iter().flat_map(|own| bounded(own.as_ref())).collect(), None),
        };
        let own = self.named.as_ref().and_then(|named| pressure_in(&named.join("memory.pressure")));
        let pressure = |what: &str| pressure_in(&self.proc.join("pressure").join(what));
        Ok(Reading {
            memory,
            cgroup: cgroups.into_iter().min_by(|a, b| a.percent().total_cmp(&b.percent())),
            missing,
            pressure: Pressures {
                memory: own.or_else(|| pressure("memory")),
                cpu: pressure("cpu"),
                io: pressure("io"),
            },
            load,
            cpus: thread::available_parallelism().map_or(1, usize::from),
        })
    }

    fn parse<T>(&self, file: &str, parse: fn(&str) -> Option<T>) -> Result<T, Error> {
        let path = self.proc.join(file);
        let read = fs::read_to_string(&path);
        let odd = || io::Error::new(io::ErrorKind::InvalidData, "it is not as proc(5) says");
        read.and_then(|text| parse(&text).ok_or_else(odd)).map_err(|source| Error::Unreadable { path, source })
    }
}

/// The cgroup at a path and those around it, as far as they have a limit below the machine's memory.
fn cgroups(path: &Path, total: u64) -> Vec<Cgroup> {
    path.ancestors().take_while(|path| is_cgroup(path)).filter_map(|path| cgroup(path, total)).collect()
}

fn is_cgroup(path: &Path) -> bool {
    path.join("memory.max").exists() || path.join("memory.limit_in_bytes").exists()
}

/// A cgroup, if it has a limit. Above `memory.high` the kernel slows its tasks down until they are below: a limit as well.
fn cgroup(path: &Path, total: u64) -> Option<Cgroup> {
    let number = |file: &str| fs::read_to_string(path.join(file)).ok()?.trim().parse::<u64>().ok();
    let v2 = path.join("memory.max").exists();
    let (limits, usage, inactive) = if v2 {
        (["memory.max", "memory.high"], "memory.current", "inactive_file")
    } else {
        // The sum over the cgroup and those in it, as the usage is.
        (["memory.limit_in_bytes"; 2], "memory.usage_in_bytes", "total_inactive_file")
    };
    let limit_bytes = limits.into_iter().filter_map(number).min().filter(|limit| *limit < total)?;
    let stat = fs::read_to_string(path.join("memory.stat")).ok()?;
    Some(Cgroup {
        path: path.to_owned(),
        limit_bytes,
        usage_bytes: number(usage)?,
        inactive_file_bytes: value(&stat, inactive).unwrap_or(0),
    })
}

/// The number after a name at the start of a line.
fn value(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix([' ', ':']))?;
    line.split_whitespace().next()?.parse().ok()
}

/// proc_meminfo(5): kibibytes.
fn meminfo(text: &str) -> Option<Memory> {
    let bytes = |name| Some(value(text, name)? * 1024);
    Some(Memory { total_bytes: bytes("MemTotal")?, available_bytes: bytes("MemAvailable")? })
}

/// proc_loadavg(5).
fn loadavg(text: &str) -> Option<[f64; 3]> {
    let mut fields = text.split_whitespace().map(|field| field.parse::<f64>().ok());
    Some([fields.next()??, fields.next()??, fields.next()??])
}

fn pressure_in(path: &Path) -> Option<Pressure> {
    pressure(&fs::read_to_string(path).ok()?)
}

/// "some avg10=0.12 avg60=…" and the same of "full", which older kernels lack for CPUs.
fn pressure(text: &str) -> Option<Pressure> {
    let avg10 = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind))?;
        line.split_whitespace().find_map(|field| field.strip_prefix("avg10="))?.parse::<f64>().ok()
    };
    Some(Pressure { some_avg10: avg10("some ")?, full_avg10: avg10("full ").unwrap_or(0.0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A directory with files, each under its name in it.
    fn files(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        directory
    }

    const MACHINE: [(&str, &str); 2] = [
        ("meminfo", "MemTotal:        1024000 kB\nMemFree: 1 kB\nMemAvailable:     512000 kB\n"),
        ("loadavg", "0.80 0.50 0.25 1/92 11658\n"),
    ];

    fn read(proc: &[(&str, &str)], cgroup: Option<&Path>) -> Result<Reading, Error> {
        let proc = files(proc);
        Sources { proc: proc.path().to_owned(), named: cgroup.map(Path::to_owned) }.read()
    }

    #[test]
    fn a_machine_without_cgroup_and_without_pressure_is_read() {
        let reading = read(&MACHINE, Some("/nowhere".as_ref())).unwrap();
        assert_eq!(reading.memory, Memory { total_bytes: 1_048_576_000, available_bytes: 524_288_000 });
        assert_eq!((reading.percent(), reading.load), (50.0, [0.8, 0.5, 0.25]));
        assert_eq!((reading.cgroup, reading.missing), (None, Some("/nowhere".into())));
        assert_eq!(reading.pressure, Pressures::default());
    }

    #[test]
    fn a_machine_that_says_nothing_is_an_error_that_names_the_file() {
        for (broken, text) in [("meminfo", "MemTotal: 5 kB\n"), ("loadavg", "1 2\n")] {
            let proc: Vec<_> =
                MACHINE.iter().map(|(name, known)| (*name, if *name == broken { text } else { known })).collect();
            let error = read(&proc, None).unwrap_err().to_string();
            assert!(error.contains(&format!("/{broken}: it is not as")), "{error}");
        }
    }

    #[test]
    fn cgroups_of_both_versions_bound_memory() {
        // Files of a cgroup and of the one around it; limit, usage and percent of the one that counts.
        let check = |files_: &[(&str, &str)], expected: Option<(u64, u64, f64)>| {
            let root = files(files_);
            let reading = read(&MACHINE, Some(&root.path().join("slice/site"))).unwrap();
            assert_eq!(reading.missing, None);
            let found = reading.cgroup.as_ref().map(|cgroup| {
                (cgroup.limit_bytes / MIB, cgroup.usage_bytes / MIB, (cgroup.percent() * 10.0).round() / 10.0)
            });
            assert_eq!(found, expected, "{files_:?}");
            let least = expected.map_or(50.0, |(.., percent)| f64::min(percent, 50.0));
            assert_eq!((reading.percent() * 10.0).round() / 10.0, least, "{files_:?}");
        };
        let stat = "anon 1\ninactive_file 10485760\ntotal_inactive_file 20971520\n";
        let v1 = |limit: &'static str| {
            [
                ("slice/site/memory.limit_in_bytes", limit),
                ("slice/site/memory.usage_in_bytes", "94371840\n"),
                ("slice/site/memory.stat", stat),
            ]
        };
        check(&v1("104857600\n"), Some((100, 90, 30.0)));
        check(&v1("9223372036854771712\n"), None);
        let v2 = |high: &'static str| {
            [
                ("slice/site/memory.max", "104857600\n"),
                ("slice/site/memory.high", high),
                ("slice/site/memory.current", "94371840\n"),
                ("slice/site/memory.stat", stat),
            ]
        };
        check(&v2("max\n"), Some((100, 90, 20.0)));
        check(&v2("83886080\n"), Some((80, 90, 0.0)));
        let around = [
            ("slice/memory.max", "209715200\n"),
            ("slice/memory.high", "max\n"),
            ("slice/memory.current", "199229440\n"),
            ("slice/memory.stat", "inactive_file 0\n"),
        ];
        check(&[&v2("max\n")[..], &around].concat(), Some((200, 190, 5.0)));
    }

    #[test]
    fn pressure_is_that_of_the_last_ten_seconds() {
        let check = |text: &str, expected: Option<(f64, f64)>| {
            assert_eq!(pressure(text).map(|found| (found.some_avg10, found.full_avg10)), expected, "{text:?}");
        };
        check("some avg10=4.50 avg60=1.00 avg300=0.00 total=9\nfull avg10=1.25 avg60=0 total=9\n", Some((4.5, 1.25)));
        check("some avg10=4.50 avg60=1.00 avg300=0.00 total=9\n", Some((4.5, 0.0)));
        check("", None);
        let proc = [&MACHINE[..], &[("pressure/memory", "some avg10=4.50 avg60=1.00\n")]].concat();
        let of_machine = read(&proc, None).unwrap().pressure.memory.unwrap();
        assert_eq!(of_machine.some_avg10, 4.5);
        let site = files(&[("memory.max", "max\n"), ("memory.pressure", "some avg10=9.00 avg60=1.00\n")]);
        assert_eq!(read(&proc, Some(site.path())).unwrap().pressure.memory.unwrap().some_avg10, 9.0);
    }

    #[test]
    fn this_machine_is_read() {
        let reading = Sources::new(None).read().unwrap();
        let Memory { total_bytes, available_bytes } = reading.memory;
        assert!(available_bytes > 0 && available_bytes < total_bytes && reading.cpus > 0, "{reading:?}");
    }
}
