//! The machine that figures are of.

use std::{fs, thread};

use anyhow::{Context, Result};

/// Its processor, how many cores of it, and the kernel: `AMD EPYC (model 49), 2 cores, Linux 6.18.44`.
///
/// # Errors
///
/// Where the kernel does not tell.
pub fn machine() -> Result<String> {
    let read = |file| fs::read_to_string(file).with_context(|| format!("cannot read {file}"));
    let (processors, release) = (read("/proc/cpuinfo")?, read("/proc/sys/kernel/osrelease")?);
    let model = model(&processors).unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    Ok(format!("{model}, {} cores, Linux {}", thread::available_parallelism()?, version(&release)))
}

/// Not every architecture names it.
fn model(processors: &str) -> Option<String> {
    let field = |name: &str| {
        let line = processors.lines().find(|line| line.starts_with(name))?;
        line.split_once(':').map(|(_, value)| value.trim())
    };
    let number = field("model\t").map_or(String::new(), |number| format!(" (model {number})"));
    field("model name").map(|name| format!("{name}{number}"))
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
        let processors = "processor\t: 0\nmodel\t\t: 49\nmodel name\t: AMD EPYC\nmodel name\t: other\n";
        assert_eq!(model(processors).as_deref(), Some("AMD EPYC (model 49)"));
        assert_eq!(model("model name\t: AMD EPYC\n").as_deref(), Some("AMD EPYC"));
        assert_eq!(model("processor\t: 0\n"), None);
        assert_eq!((version("6.18.44-fc-v769\n"), version("6.1.0\n")), ("6.18.44", "6.1.0"));
    }
}
