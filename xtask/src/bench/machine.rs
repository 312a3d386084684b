//! The machine that figures are of.

use std::{fs, thread};

use anyhow::{Context, Result};

/// Its processor, how many cores of it, and the kernel: `AMD EPYC, 2 cores, Linux 6.18.44`.
pub(crate) fn machine() -> Result<String> {
    let read = |file| fs::read_to_string(file).with_context(|| format!("cannot read {file}"));
    let (processors, release) = (read("/proc/cpuinfo")?, read("/proc/sys/kernel/osrelease")?);
    let model = model(&processors).unwrap_or(std::env::consts::ARCH);
    Ok(format!("{model}, {} cores, Linux {}", thread::available_parallelism()?, version(&release)))
}

/// Not every architecture names it.
fn model(processors: &str) -> Option<&str> {
    let line = processors.lines().find(|line| line.starts_with("model name"))?;
    line.split_once(':').map(|(_, name)| name.trim())
}

/// Without what the builder of the kernel appended.
fn version(release: &str) -> &str {
    release.trim().split('-').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_named_by_its_processor_and_its_kernel() {
        assert_eq!(model("processor\t: 0\nmodel name\t: AMD EPYC\nmodel name\t: other\n"), Some("AMD EPYC"));
        assert_eq!(model("processor\t: 0\n"), None);
        assert_eq!((version("6.18.44-fc-v769\n"), version("6.1.0\n")), ("6.18.44", "6.1.0"));
    }
}
