//! The machine as a whole: kernel, privileges, bpffs, forwarding.

use std::path::Path;

use rustix::system::uname;

use super::{Finding, system::read};
use crate::{config::Global, privileges};

/// Atomic instructions of BPF came with 5.12, bpf_link for XDP with 5.9; 5.15 is the oldest that is still maintained.
const OLDEST: (u32, u32) = (5, 15);

pub(super) fn examine(global: &Global) -> Vec<Finding> {
    let release = uname().release().to_string_lossy().into_owned();
    let mounts = read("/proc/self/mounts").unwrap_or_default();
    let forwarding = read("/proc/sys/net/ipv4/ip_forward").unwrap_or_default();
    vec![kernel(&release), privileges(), bpffs(&global.pin_dir, &mounts), forward(&forwarding)]
}

fn kernel(release: &str) -> Finding {
    let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let found = format!("Linux {release}");
    if version >= OLDEST {
        return Finding::ok("kernel", found);
    }
    let why = "the XDP program uses instructions and links that Linux 5.15 and later have";
    Finding::problem("kernel", found, why).fixed_by("apt install linux-generic && reboot")
}

fn privileges() -> Finding {
    if privileges::suffice().unwrap_or(false) {
        return Finding::ok("privileges", "CAP_NET_ADMIN, CAP_BPF and CAP_PERFMON");
    }
    let why = "loading and attaching an XDP program needs CAP_NET_ADMIN, CAP_BPF and CAP_PERFMON; some of what follows was not seen";
    Finding::warning("privileges", "not root", why).fixed_by("sudo lb doctor")
}

fn bpffs(pin_dir: &Path, mounts: &str) -> Finding {
    let mounted = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let (point, kind, options) = (fields.nth(1)?, fields.next()?, fields.next()?);
        (kind == "bpf").then_some((Path::new(point), options.split(',').any(|option| option == "ro")))
    });
    let subject = "pin_dir";
    // What is mounted last lies on top.
    match mounted.into_iter().rfind(|(point, _)| pin_dir.starts_with(point)) {
        Some((point, true)) => {
            let why = "nothing can be pinned there, and what is pinned cannot be written";
            Finding::problem(subject, format!("the BPF file system at {} is read-only", point.display()), why)
                .fixed_by(format!("mount -o remount,rw {}", point.display()))
        }
        Some((point, false)) => {
            Finding::ok(subject, format!("{} is on the BPF file system at {}", pin_dir.display(), point.display()))
        }
        None => {
            let why = "what is pinned outlives the daemon only on a BPF file system";
            let found = format!("{} is on no BPF file system", pin_dir.display());
            Finding::problem(subject, found, why).fixed_by("mount -t bpf bpf /sys/fs/bpf")
        }
    }
}

fn forward(enabled: &str) -> Finding {
    match enabled {
        "1" => Finding::ok("ip_forward", "on: what is for no service is routed by the kernel"),
        _ => Finding::ok("ip_forward", "off: not needed, services are forwarded before the kernel routes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn a_kernel_is_new_enough_or_not() {
        for (release, level) in [
            ("6.18.44-generic", Level::Ok),
            ("5.15.0-91", Level::Ok),
            ("5.14.21", Level::Problem),
            ("4.19", Level::Problem),
            ("10.0", Level::Ok),
            ("odd", Level::Problem),
        ] {
            assert_eq!(kernel(release).level, level, "{release}");
        }
    }

    #[test]
    fn pins_belong_on_a_bpf_file_system() {
        let mounts = "sysfs /sys sysfs rw 0 0\nbpf /sys/fs/bpf bpf rw 0 0\n";
        assert_eq!(bpffs("/sys/fs/bpf/lb".as_ref(), mounts).level, Level::Ok);
        assert_eq!(bpffs("/sys/fs/bpfx/lb".as_ref(), mounts).level, Level::Problem);
        assert_eq!(bpffs("/sys/fs/bpf/lb".as_ref(), "").level, Level::Problem);
        let read_only = bpffs("/sys/fs/bpf/lb".as_ref(), &mounts.replace("bpf rw", "bpf ro,relatime"));
        assert_eq!(
            (read_only.level, read_only.fix.as_deref()),
            (Level::Problem, Some("mount -o remount,rw /sys/fs/bpf"))
        );
    }
}
