//! Builds the XDP programs of `lb-ebpf` and leaves the object in `OUT_DIR/lb-ebpf`, to be embedded in the `lb` binary.
//!
//! aya-build would do this but for one thing: it fixes the compiler flags, and the atomics of the packet path need
//! `-Ctarget-cpu=v3`.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

const TARGET: &str = "bpfel-unknown-none";

/// Separated by 0x1f, as CARGO_ENCODED_RUSTFLAGS wants them.
const RUSTFLAGS: &[&str] = &[
    // Fetching atomics and cmpxchg: v3.
    "-Ctarget-cpu=v3",
    // Header fields are byte arrays. Every architecture that has XDP drivers reads them unaligned in one instruction;
    // without this each 32-bit field costs four loads and six shifts.
    "-Ctarget-feature=+allows-misaligned-mem-access",
    "-Cdebuginfo=2",
    "-Clink-arg=--btf",
];

fn main() -> ExitCode {
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    // At run time: a target directory that was copied to another checkout brings this program along, compiled.
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let workspace = package.parent().expect("the crate is in a workspace");
    for input in ["lb-ebpf", "lb-common", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", workspace.join(input).display());
    }
    println!("cargo::rerun-if-changed={}", workspace.join("target/bpf/bin/bpf-linker").display());
    println!("cargo::rerun-if-changed=build.rs");
    match build(workspace, &out_dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            println!("cargo::error={message}");
            ExitCode::FAILURE
        }
    }
}

fn build(workspace: &Path, out_dir: &Path) -> Result<(), String> {
    let linker = workspace.join("target/bpf/bin/bpf-linker");
    let Some(toolchain) = toolchain().filter(|_| linker.exists()) else {
        return Err("the BPF toolchain is missing; run `cargo xtask setup`".into());
    };
    let target_dir = out_dir.join("bpf");
    let mut cargo = toolchain.cargo();
    cargo
        .args(["build", "--locked", "--package", "lb-ebpf", "--release", "--target", TARGET])
        .args(toolchain.build_std())
        .args(if env::var_os("CARGO_FEATURE_REBUILT").is_some() { &["--features", "rebuilt"][..] } else { &[] })
        .arg("--target-dir")
        .arg(&target_dir)
        .current_dir(workspace)
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags())
        .env(format!("CARGO_TARGET_{}_LINKER", TARGET.to_uppercase().replace('-', "_")), &linker)
        .env_remove("RUSTC")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTUP_TOOLCHAIN")
        .env("RUSTC_BOOTSTRAP", "aya_ebpf,lb_ebpf,lb_decap")
        .stdin(Stdio::null());
    let output = cargo.output().map_err(|error| format!("cannot start {cargo:?}: {error}"))?;
    if !output.status.success() {
        for line in String::from_utf8_lossy(&output.stderr).lines() {
            println!("cargo::warning={line}");
        }
        return Err("lb-ebpf does not compile for the BPF target; its messages stand above".into());
    }
    for name in ["lb-ebpf", "lb-decap", "lb-clock", "lb-bench"] {
        let object = target_dir.join(TARGET).join("release").join(name);
        std::fs::copy(&object, out_dir.join(name))
            .map_err(|error| format!("cannot copy {}: {error}", object.display()))?;
    }
    Ok(())
}

/// The flags, and the architecture of the kernel that will run the object, for the bindings of aya-ebpf.
fn rustflags() -> String {
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets CARGO_CFG_TARGET_ARCH");
    format!("{}\x1f--cfg=bpf_target_arch=\"{arch}\"", RUSTFLAGS.join("\x1f"))
}

/// A compiler that has, or can build, `core` for the BPF target.
enum Toolchain {
    /// The distribution's, linked into rustup by `cargo xtask setup`: brings `core` precompiled.
    Packaged,
    /// rustup's nightly with rust-src: builds `core`.
    Nightly,
}

impl Toolchain {
    fn name(&self) -> &'static str {
        match self {
            Self::Packaged => "lb-bpf",
            Self::Nightly => "nightly",
        }
    }

    fn cargo(&self) -> Command {
        let mut command = Command::new("rustup");
        command.args(["run", self.name(), "cargo"]);
        command
    }

    fn build_std(&self) -> &'static [&'static str] {
        match self {
            Self::Packaged => &[],
            Self::Nightly => &["-Zbuild-std=core"],
        }
    }

    /// Whether what `build` needs of the sysroot is there.
    fn is_complete(&self) -> bool {
        let sysroot = Command::new("rustup").args(["run", self.name(), "rustc", "--print", "sysroot"]).output();
        let Ok(sysroot) = sysroot else { return false };
        if !sysroot.status.success() {
            return false;
        }
        let sysroot = PathBuf::from(String::from_utf8_lossy(&sysroot.stdout).trim());
        match self {
            Self::Packaged => sysroot.join("lib/rustlib").join(TARGET).exists(),
            Self::Nightly => sysroot.join("lib/rustlib/src/rust/library/core").exists(),
        }
    }
}

fn toolchain() -> Option<Toolchain> {
    [Toolchain::Packaged, Toolchain::Nightly].into_iter().find(Toolchain::is_complete)
}
