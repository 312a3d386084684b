//! `cargo xtask kernels`: the Debian package under a real systemd, on the kernels of Debian's releases.
//!
//! Each is a virtual machine without hardware acceleration, so that it runs anywhere: minutes, not seconds. Its root file
//! system and QEMU itself are made by mmdebstrap under target/kernels, some 1.5 GB, and kept; no package of this machine is
//! touched but mmdebstrap.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::{
    dist,
    setup::packages,
    shell::{as_root, run, workspace},
};

/// Linux 6.1 with systemd 252, and 6.12 with 257.
const SUITES: &[&str] = &["bookworm", "trixie"];

const GUEST: &str = "systemd,systemd-sysv,dbus,linux-image-cloud-amd64,iproute2,ethtool,curl,nginx-light,netbase";

/// The longest that a machine may take: one that hangs says nothing.
const PATIENCE: &str = "1200";

#[derive(Args)]
pub(crate) struct Arguments {
    /// Only this release of Debian
    #[arg(long, value_name = "SUITE", value_parser = clap::builder::PossibleValuesParser::new(SUITES))]
    suite: Option<String>,
}

/// Builds the package and has it go through its life in each machine.
pub(crate) fn kernels(arguments: &Arguments) -> Result<()> {
    dist::dist()?;
    packages::ensure_installed(&["mmdebstrap", "e2fsprogs"])?;
    let directory = workspace().join("target/kernels");
    fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let qemu = root(&directory, "bookworm", "qemu", "qemu-system-x86")?;
    let disk = files(&directory)?;
    let suites = SUITES.iter().filter(|suite| arguments.suite.as_deref().is_none_or(|wanted| wanted == **suite));
    for suite in suites {
        let guest = root(&directory, suite, suite, GUEST)?;
        println!("==> {suite}: a virtual machine without acceleration; this takes some minutes");
        let log = boot(&qemu, &guest, &disk, &directory)?;
        let text = String::from_utf8_lossy(&fs::read(&log)?).replace('\r', "");
        print!("{text}");
        ensure!(text.contains("guest: end, 0 failed"), "{suite} failed; its log is {}", log.display());
    }
    Ok(())
}

/// A Debian with some packages in a directory of its own, made once.
fn root(directory: &Path, suite: &str, name: &str, packages: &str) -> Result<PathBuf> {
    let root = directory.join(name);
    if !root.join("etc/debian_version").exists() {
        println!("==> {name}: Debian {suite} with {packages}");
        let (include, path) = (format!("--include={packages}"), root.display().to_string());
        run(&mut as_root("mmdebstrap", &["--quiet", "--variant=minbase", &include, suite, &path])?)?;
    }
    Ok(root)
}

/// A disk with the package, one of a later version, and what the guest does with them.
fn files(directory: &Path) -> Result<PathBuf> {
    let files = directory.join("files");
    let _ = fs::remove_dir_all(&files);
    fs::create_dir_all(&files)?;
    fs::write(files.join("guest.sh"), include_str!("kernels/guest.sh"))?;
    let packages = fs::read_dir(workspace().join("target/debian"))?.flatten().map(|entry| entry.path());
    let packages = packages.filter(|path| path.extension().is_some_and(|extension| extension == "deb"));
    let newest = packages.max_by_key(|path| path.metadata().and_then(|metadata| metadata.modified()).ok());
    fs::copy(newest.context("target/debian has no package")?, files.join("lb.deb"))?;
    let next = directory.join("next");
    let _ = fs::remove_dir_all(&next);
    run(Command::new("dpkg-deb").arg("--raw-extract").arg(files.join("lb.deb")).arg(&next))?;
    let control = fs::read_to_string(next.join("DEBIAN/control"))?;
    let later = control.lines().map(|line| {
        let version = line.strip_prefix("Version: ").map(|version| format!("Version: {version}+next"));
        version.unwrap_or_else(|| line.to_owned()) + "\n"
    });
    fs::write(next.join("DEBIAN/control"), later.collect::<String>())?;
    let build = ["--root-owner-group", "-Zgzip", "--build"];
    run(Command::new("dpkg-deb").args(build).arg(&next).arg(files.join("next.deb")))?;
    fs::remove_dir_all(&next)?;
    disk(&files, &directory.join("files.img"), "200M")
}

/// A directory as a disk.
fn disk(from: &Path, image: &Path, size: &str) -> Result<PathBuf> {
    let _ = fs::remove_file(image);
    let (from, to) = (from.display().to_string(), image.display().to_string());
    run(&mut as_root("mke2fs", &["-q", "-t", "ext4", "-d", &from, &to, size])?)?;
    Ok(image.to_owned())
}

/// Runs the machine to its end; the log of what it did.
fn boot(qemu: &Path, guest: &Path, files: &Path, directory: &Path) -> Result<PathBuf> {
    let units = guest.join("etc/systemd/system");
    let unit = directory.join("guest.service");
    fs::write(&unit, include_str!("kernels/guest.service"))?;
    let (from, to) = (unit.display().to_string(), units.join("guest.service").display().to_string());
    run(&mut as_root("cp", &[&from, &to])?)?;
    let wanted = units.join("multi-user.target.wants");
    run(&mut as_root("mkdir", &["-p", &wanted.display().to_string()])?)?;
    run(&mut as_root("ln", &["-sf", "../guest.service", &wanted.display().to_string()])?)?;
    run(&mut as_root("ln", &["-sf", "/dev/null", &units.join("nginx.service").display().to_string()])?)?;
    let image = disk(guest, &guest.with_extension("img"), "1G")?;
    let log = guest.with_extension("log");
    let drive = |image: &Path| format!("file={},format=raw,if=virtio,snapshot=on", image.display());
    let libraries = qemu.join("usr/lib/x86_64-linux-gnu");
    let mut command = Command::new("timeout");
    // Started by its own loader: it has its libraries where this machine has others.
    command.arg(PATIENCE).arg(qemu.join("lib64/ld-linux-x86-64.so.2")).arg("--library-path").arg(&libraries);
    command.arg(qemu.join("usr/bin/qemu-system-x86_64")).env("QEMU_MODULE_DIR", libraries.join("qemu"));
    for data in ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"] {
        command.arg("-L").arg(qemu.join(data));
    }
    command.args([
        "-accel",
        "tcg,thread=multi",
        "-cpu",
        "max",
        "-smp",
        "2",
        "-m",
        "1500",
        "-nic",
        "none",
        "-no-reboot",
    ]);
    command.args(["-display", "none", "-monitor", "none", "-append", "root=/dev/vda rw console=ttyS0 quiet"]);
    command.arg("-kernel").arg(of_kernel(guest, "vmlinuz-")?).arg("-initrd").arg(of_kernel(guest, "initrd.img-")?);
    command.arg("-drive").arg(drive(&image)).arg("-drive").arg(drive(files));
    command.arg("-serial").arg(format!("file:{}", guest.with_extension("console").display()));
    command.arg("-serial").arg(format!("file:{}", log.display()));
    run(&mut command)?;
    fs::remove_file(image)?;
    Ok(log)
}

/// The one file in /boot whose name begins so.
fn of_kernel(guest: &Path, prefix: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(guest.join("boot"))?.flatten();
    let mut found = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    let Some(entry) = found.next() else { bail!("{} has no kernel", guest.display()) };
    Ok(entry.path())
}
