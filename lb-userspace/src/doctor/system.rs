//! What the system says of itself: files under /proc, and the words of `ip` and `ethtool`.

use std::{fs, process::Command};

use serde_json::Value;

/// A file's text without the white space around it.
pub(super) fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// What `ip -j` answers; an empty list when it fails.
pub(super) fn ip(arguments: &[&str]) -> Vec<Value> {
    let output = Command::new("ip").arg("-j").args(arguments).output();
    let answer = output.ok().filter(|output| output.status.success());
    let parsed = answer.and_then(|output| serde_json::from_slice(&output.stdout).ok());
    parsed.unwrap_or_default()
}

/// What `ethtool` prints; nothing when it is not installed or the driver does not answer.
pub(super) fn ethtool(option: &str, interface: &str) -> Option<String> {
    let output = Command::new("ethtool").args([option, interface]).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The value after "KEY: " on a line of its own.
pub(super) fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix(':').map(str::trim))
}
