//! The BPF toolchain: a Rust compiler with `core` for the BPF target, and a linker of the same LLVM.
//!
//! Where the distribution has both (Debian), its compiler is linked into rustup under a name of our own, and the linker
//! is built against its LLVM. Elsewhere rustup's nightly builds `core` from source, and the linker is the one that its
//! authors publish. `lb-userspace/build.rs` takes whichever is there.

use std::{env, fs, process::Command};

use anyhow::{Context, Result, bail};

use super::{announced, packages};
use crate::shell::{cargo, find, workspace};

/// The distribution's compiler for the browsers it packages: newer than its `rustc`, and with `core` for BPF.
const COMPILER: &[&str] = &["rustc-web", "libstd-rust-web-dev-bpf", "cargo-web"];

/// The name that the packaged compiler has in rustup.
const TOOLCHAIN: &str = "lb-bpf";

const LINKER_VERSION: &str = "0.13.0";

/// Installs what is missing of the toolchain.
pub(crate) fn ensure() -> Result<()> {
    let linker = workspace().join("target/bpf/bin/bpf-linker");
    let packaged = is_complete(TOOLCHAIN, "bpfel-unknown-none");
    let nightly = is_complete("nightly", "src/rust/library/core");
    if (packaged || nightly) && linker.exists() {
        return Ok(());
    }
    println!("setup: the BPF toolchain is missing; installing it");
    if find("rustup").is_none() {
        bail!("rustup is missing; install it from https://rustup.rs, then run `cargo xtask setup` again");
    }
    if packaged || debian_has_it()? {
        if !packaged {
            packages::ensure_installed(COMPILER)?;
            announced(Command::new("rustup").args(["toolchain", "link", TOOLCHAIN, "/usr"]))?;
        }
        return build_linker();
    }
    if !nightly {
        let install = ["toolchain", "install", "nightly", "--profile", "minimal", "--component", "rust-src"];
        announced(Command::new("rustup").args(install))?;
    }
    download_linker()
}

/// Whether the packages are to be had; the lists may be missing or old.
fn debian_has_it() -> Result<bool> {
    if find("apt-get").is_none() {
        return Ok(false);
    }
    if !packages::available(COMPILER) {
        packages::refresh()?;
    }
    Ok(packages::available(COMPILER))
}

/// Whether rustup knows the toolchain and `part` is in its sysroot.
fn is_complete(toolchain: &str, part: &str) -> bool {
    let sysroot = Command::new("rustup").args(["run", toolchain, "rustc", "--print", "sysroot"]).output();
    let Some(sysroot) = sysroot.ok().filter(|output| output.status.success()) else { return false };
    let sysroot = String::from_utf8_lossy(&sysroot.stdout);
    fs::exists(format!("{}/lib/rustlib/{part}", sysroot.trim())).unwrap_or(false)
}

/// Builds the linker against the LLVM that the compiler has: neither reads what a newer one writes.
fn build_linker() -> Result<()> {
    let version = Command::new("rustup").args(["run", TOOLCHAIN, "rustc", "-vV"]).output()?;
    let version = String::from_utf8_lossy(&version.stdout);
    let llvm = version.lines().find_map(|line| line.strip_prefix("LLVM version: ")?.split('.').next());
    let llvm = llvm.with_context(|| format!("the compiler does not name its LLVM: {version}"))?;
    packages::ensure_installed(&[&format!("llvm-{llvm}-dev"), &format!("libpolly-{llvm}-dev"), "g++"])?;
    announced(
        cargo(&["install", "bpf-linker", "--version", LINKER_VERSION, "--locked", "--root", "target/bpf"])
            .args(["--no-default-features", "--features", &format!("llvm-{llvm}")])
            .env("LLVM_PREFIX", format!("/usr/lib/llvm-{llvm}")),
    )
}

/// The published binary carries its LLVM, which reads what nightly's writes.
fn download_linker() -> Result<()> {
    packages::ensure_installed(&["curl", "ca-certificates", "zstd", "tar"])?;
    let archive = format!("bpf-linker-{}-unknown-linux-musl.tar.zst", env::consts::ARCH);
    let url = format!("https://github.com/aya-rs/bpf-linker/releases/download/v{LINKER_VERSION}/{archive}");
    let bin = workspace().join("target/bpf/bin");
    fs::create_dir_all(&bin).with_context(|| format!("cannot create {}", bin.display()))?;
    let archive = workspace().join("target/bpf").join(archive);
    announced(
        Command::new("curl")
            .args(["--fail", "--silent", "--show-error", "--location", "--output"])
            .arg(&archive)
            .arg(url),
    )?;
    announced(Command::new("tar").args(["--zstd", "--extract", "--file"]).arg(&archive).arg("--directory").arg(&bin))
}
