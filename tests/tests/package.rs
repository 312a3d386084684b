//! The Debian package on a copy of this machine's file system that is thrown away: installed, run with the capabilities
//! of its unit, upgraded, removed and purged, with connections all the time.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lab::{Family, Json, Lab, Layout, Nginx, Outcome, Process, Service, configuration, eventually, run, test};
use rustix::process::Signal;

#[test]
fn forwarding_outlives_upgrade_and_removal_and_ends_with_the_purge() {
    check("/sys/fs/bpf/lb", &["--remove", "--purge"]);
}

#[test]
fn a_purge_at_once_finds_pins_where_the_configuration_had_them() {
    check("/sys/fs/bpf/other/front", &["--purge"]);
}

fn check(pin_dir: &str, goodbye: &[&str]) {
    let Some(package) = package() else {
        let required = std::env::var_os("CI").is_some();
        assert!(!required, "there is no package; run `cargo xtask dist`");
        eprintln!("skipped: there is no package; run `cargo xtask dist`");
        return;
    };
    test(&Layout::default(), |lab| {
        let root = Root::new(lab, &package)?;
        let dpkg = |arguments: &[&str]| run(root.command("dpkg").args(arguments), "").map(drop);
        dpkg(&["--install", "/lb.deb"])?;
        for file in [
            "/usr/share/man/man1/lb.1.gz",
            "/usr/share/man/man1/lb-backend-drain.1.gz",
            "/usr/share/bash-completion/completions/lb",
            "/usr/share/lb/lb.schema.json",
            "/usr/share/lb/lb.rules.yml",
            "/usr/share/lb/lb.dashboard.json",
            "/usr/lib/systemd/system/lb.service",
            "/usr/lib/systemd/system/lb-agent.service",
            "/usr/share/man/man1/lb-agent.1.gz",
        ] {
            assert!(root.has(file), "{file}");
        }
        let shipped = Outcome::of(root.command("lb").args(["config", "check"]))?;
        assert_eq!(shipped.code, Some(0), "{shipped:?}");

        let _servers = Nginx::start_all(lab)?;
        fs::write(root.path("/etc/lb/lb.toml"), settings(lab, pin_dir))?;
        let mut daemon = root.daemon(lab)?;
        eventually("two backends in rotation", Duration::from_secs(20), || {
            ensure!(daemon.exited()?.is_none(), "{}", daemon.log());
            let status = Outcome::of(root.command("lb").args(["status", "-o", "json"]))?;
            let Ok(status) = status.stdout.parse::<Json>() else { return Ok(None) };
            Ok((status["services"][0]["in_rotation"] == 2).then_some(()))
        })?;
        let capabilities = fs::read_to_string(format!("/proc/{}/status", daemon.pid()))?;
        // NET_ADMIN, PERFMON and BPF: bits 12, 38 and 39 (capability.h).
        assert!(capabilities.contains("CapPrm:\t000000c000001000"), "{capabilities}");

        dpkg(&["--install", "/lb.deb"])?;
        forwards(lab)?;
        assert!(daemon.end(Signal::TERM)?.success());
        forwards(lab)?;
        let (last, before) = goodbye.split_last().context("there is one")?;
        for action in before {
            dpkg(&[action, "lb"])?;
            assert!(!root.has("/usr/bin/lb") && root.has("/etc/lb/lb.toml") && root.has(pin_dir), "{action}");
            forwards(lab)?;
        }
        assert!(is_attached(lab)?);
        dpkg(&[last, "lb"])?;
        for left in ["/usr/bin/lb", "/etc/lb", "/var/lib/lb", pin_dir] {
            assert!(!root.has(left), "{left}");
        }
        assert!(!is_attached(lab)?);
        let tally = lab.client().curl(Lab::VIP.url(Family::V4), 1)?;
        assert_eq!((tally.total(), tally.failures.len()), (0, 1), "{tally:?}");
        Ok(())
    });
}

/// The configuration of the lab's daemon, with every path but that of the pins as the package has it.
fn settings(lab: &Lab, pin_dir: &str) -> String {
    let text = configuration(lab, &[Service::web(lab, Family::V4)]);
    let ours = |line: &&str| !["socket", "state_dir", "pin_dir"].iter().any(|key| line.starts_with(key));
    let lines: Vec<&str> = text.lines().filter(ours).collect();
    lines.join("\n").replacen("[global]", &format!("[global]\npin_dir = \"{pin_dir}\""), 1)
}

fn forwards(lab: &Lab) -> Result<()> {
    let tally = lab.client().curl(Lab::VIP.url(Family::V4), 20)?;
    ensure!((tally.total(), tally.failures.len()) == (20, 0), "{tally:?}");
    Ok(())
}

fn is_attached(lab: &Lab) -> Result<bool> {
    Ok(run(lab.front().command("ip").args(["-details", "link"]), "")?.contains("xdp"))
}

/// This machine's file system with changes that only memory keeps, and a BPF file system of its own: mounts of one process,
/// gone with it.
struct Root {
    keeper: Process,
    path: PathBuf,
}

const MOUNTS: &str = r#"
set -e
mount --make-rprivate /
mount -t tmpfs lb-test "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" lb-test "$1/root"
mount -t proc proc "$1/root/proc"
mount --rbind /dev "$1/root/dev"
mount --bind /sys "$1/root/sys"
mount -t bpf bpf "$1/root/sys/fs/bpf"
mount -t tmpfs lb-test "$1/root/run"
mkdir "$1/root/run/lock"
cp "$2" "$1/root/lb.deb"
touch "$1/root/ready"
exec sleep infinity
"#;

impl Root {
    fn new(lab: &Lab, package: &Path) -> Result<Self> {
        let base = lab.dir().join("system");
        fs::create_dir(&base)?;
        let mut keeper = Process::start(lab.front(), Path::new("unshare"), &lab.dir().join("root.log"), |command| {
            command.args(["--mount", "sh", "-c", MOUNTS, "sh"]).arg(&base).arg(package);
        })?;
        let path = PathBuf::from(format!("/proc/{}/root{}", keeper.pid(), base.join("root").display()));
        eventually("the copy of the file system", Duration::from_secs(10), || {
            ensure!(keeper.exited()?.is_none(), "{}", keeper.log());
            Ok(path.join("ready").exists().then_some(()))
        })?;
        Ok(Self { keeper, path })
    }

    /// Where the rest of the system sees one of its files.
    fn path(&self, file: &str) -> PathBuf {
        self.path.join(file.trim_start_matches('/'))
    }

    fn has(&self, file: &str) -> bool {
        fs::symlink_metadata(self.path(file)).is_ok()
    }

    /// A command in it, in the front node.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(self.entry()).arg(program).env_remove("LB_SOCKET");
        command
    }

    fn entry(&self) -> Vec<String> {
        let of = |what: &str| format!("/proc/{}/{what}", self.keeper.pid());
        let root = self.path.strip_prefix(of("root")).expect("it is below").display().to_string();
        let (mount, net) = (format!("--mount={}", of("ns/mnt")), format!("--net={}", of("ns/net")));
        vec![mount, net, "--".into(), "chroot".into(), format!("/{root}")]
    }

    /// `lb run` as the unit has it.
    fn daemon(&self, lab: &Lab) -> Result<Process> {
        let unit = fs::read_to_string(self.path("/usr/lib/systemd/system/lb.service"))?;
        let held =
            unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).context("it is bounded")?;
        let held: Vec<_> = held.split(' ').map(|name| name.replace("CAP_", "+").to_lowercase()).collect();
        Process::start(lab.front(), Path::new("nsenter"), &lab.dir().join("package.log"), |command| {
            command.args(self.entry()).arg("setpriv").arg(format!("--bounding-set=-all,{}", held.join(",")));
            command.args(["--no-new-privs", "lb", "run"]);
        })
    }
}

/// The newest package that was built.
fn package() -> Option<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/debian").canonicalize().ok()?;
    let packages = fs::read_dir(directory).ok()?.flatten().map(|entry| entry.path());
    let packages = packages.filter(|path| path.extension().is_some_and(|extension| extension == "deb"));
    packages.max_by_key(|path| path.metadata().and_then(|metadata| metadata.modified()).ok())
}
