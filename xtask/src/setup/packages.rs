//! Packages of the distribution.

use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use super::{Purpose, announced};
use crate::shell::{as_root, find};

/// A program or a file, the package that has it, and the first purpose that needs it.
const TOOLS: &[(&str, &str, Purpose)] = &[
    ("ip", "iproute2", Purpose::Lab),
    ("ethtool", "ethtool", Purpose::Lab),
    ("nsenter", "util-linux", Purpose::Lab),
    ("setpriv", "util-linux", Purpose::Lab),
    ("curl", "curl", Purpose::Test),
    ("nginx", "nginx-light", Purpose::Test),
    ("/usr/lib/nginx/modules/ngx_stream_module.so", "libnginx-mod-stream", Purpose::Test),
    ("ping", "iputils-ping", Purpose::Test),
    ("prometheus", "prometheus", Purpose::Test),
    ("nft", "nftables", Purpose::Test),
    // Its service listens nowhere as the package configures it.
    ("haproxy", "haproxy", Purpose::Test),
    ("wrk", "wrk", Purpose::Bench),
];

/// Installs the tools that are missing.
pub(crate) fn ensure(purpose: Purpose) -> Result<()> {
    let missing = TOOLS.iter().filter(|(program, _, from)| *from <= purpose && find(program).is_none());
    let mut packages: Vec<_> = missing.map(|(_, package, _)| *package).collect();
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    if find("apt-get").is_none() {
        bail!("these are missing, and this is no Debian or Ubuntu that could install them: {}", packages.join(" "));
    }
    refresh()?;
    install(&packages)
}

/// Installs those that are not there.
pub(crate) fn ensure_installed(packages: &[&str]) -> Result<()> {
    let query = |package: &&&str| {
        let output = Command::new("dpkg-query").args(["--show", "--showformat=${db:Status-Status}", package]).output();
        !output.is_ok_and(|output| output.stdout == b"installed")
    };
    let missing: Vec<_> = packages.iter().filter(query).copied().collect();
    if missing.is_empty() { Ok(()) } else { install(&missing) }
}

/// Fetches the lists of packages: a bare machine has none.
pub(crate) fn refresh() -> Result<()> {
    announced(&mut as_root("apt-get", &["update", "--quiet"])?)
}

/// Whether the distribution has them all.
pub(crate) fn available(packages: &[&str]) -> bool {
    let show = |package: &&str| {
        let mut command = Command::new("apt-cache");
        let status = command.args(["show", package]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    packages.iter().all(show)
}

/// Installs packages; never at the price of another one.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let mut arguments = vec!["DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "--quiet", "--yes"];
    arguments.extend(["--no-install-recommends", "--no-remove"]);
    arguments.extend(packages);
    announced(&mut as_root("env", &arguments)?)
}
