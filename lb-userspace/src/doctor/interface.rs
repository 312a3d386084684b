//! An interface that XDP attaches to.

use serde_json::Value;

use super::{
    Finding,
    system::{ethtool, ip, read, value},
};
use crate::{
    config::Global,
    dataplane::{XdpMode, attachments},
};

/// Drivers with native XDP that also transmits (kernel documentation and driver sources, `ndo_xdp_xmit`).
const NATIVE: &[&str] = &[
    "veth",
    "virtio_net",
    "ixgbe",
    "ixgbevf",
    "i40e",
    "ice",
    "igb",
    "igc",
    "mlx4_en",
    "mlx5_core",
    "ena",
    "bnxt_en",
    "nfp",
    "qede",
    "sfc",
    "gve",
    "mana",
    "hv_netvsc",
    "tun",
    "bonding",
    "dpaa2-eth",
    "mvneta",
    "mvpp2",
    "stmmac",
    "xen-netfront",
];
/// What fits a page beside the headroom of XDP.
const MTU: u64 = 3498;

/// What is known of an interface.
#[derive(Clone, Debug, Default)]
struct Facts {
    name: String,
    driver: Option<String>,
    mtu: u64,
    up: bool,
    /// Somebody else's program.
    foreign: bool,
    lro: bool,
    gro: bool,
    /// Receive queues in use, and as many as there may be.
    queues: Option<(u32, u32)>,
    cpus: u32,
    rp_filter: u32,
    mode: XdpMode,
    several: bool,
}

pub(super) fn examine(name: &str, global: &Global) -> Vec<Finding> {
    let links = ip(&["-d", "link", "show", "dev", name]);
    let Some(link) = links.first() else {
        let why = "XDP attaches to interfaces of this machine only";
        return vec![Finding::problem(name, "there is no such interface", why).fixed_by("ip link")];
    };
    judge(&facts(name, link, global))
}

fn facts(name: &str, link: &Value, global: &Global) -> Facts {
    let features = ethtool("-k", name).unwrap_or_default();
    let channels = ethtool("-l", name).unwrap_or_default();
    let ours = attachments(&global.pin_dir).unwrap_or_default().iter().any(|found| found.interface == name);
    // The strictest of all and of the interface holds (ip-sysctl, rp_filter).
    let filter = |of: &str| read(&format!("/proc/sys/net/ipv4/conf/{of}/rp_filter"))?.parse::<u32>().ok();
    Facts {
        name: name.to_owned(),
        driver: ethtool("-i", name).as_deref().and_then(|text| value(text, "driver")).map(str::to_owned),
        mtu: link["mtu"].as_u64().unwrap_or(0),
        up: link["flags"].as_array().is_some_and(|flags| flags.iter().any(|flag| flag == "UP")),
        foreign: link["xdp"].is_object() && !ours,
        lro: value(&features, "large-receive-offload").is_some_and(|state| state.starts_with("on")),
        gro: value(&features, "generic-receive-offload").is_none_or(|state| state.starts_with("on")),
        queues: queues(&channels),
        cpus: std::thread::available_parallelism().map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(u32::MAX)),
        rp_filter: filter("all").max(filter(name)).unwrap_or(0),
        mode: global.xdp_mode,
        several: global.interfaces.len() > 1,
    }
}

/// "Combined: 4" twice: as many as there may be, then as many as there are.
fn queues(channels: &str) -> Option<(u32, u32)> {
    let of = |key: &str| -> Option<(u32, u32)> {
        let mut found = channels.lines().filter_map(|line| line.trim().strip_prefix(key)?.trim().parse::<u32>().ok());
        let most = found.next()?;
        Some((found.next()?, most))
    };
    of("Combined:").or_else(|| of("RX:"))
}

fn judge(facts: &Facts) -> Vec<Finding> {
    let Facts { name, driver, mtu, .. } = facts;
    let driver_name = driver.as_deref().unwrap_or("unknown");
    let mut findings = Vec::new();
    let native = NATIVE.contains(&driver_name);
    match (native, facts.mode) {
        (true, _) => findings.push(Finding::ok(name, format!("driver {driver_name} runs XDP natively"))),
        (false, XdpMode::Native) => {
            let why = "xdp_mode = \"native\" needs a driver with XDP, and this one is not known to have it";
            findings.push(
                Finding::warning(name, format!("driver {driver_name}"), why)
                    .fixed_by("xdp_mode = \"auto\" in [global]"),
            );
        }
        (false, _) => {
            let why = "without XDP in the driver the program runs in the network stack, several times slower";
            findings.push(Finding::warning(name, format!("driver {driver_name}"), why));
        }
    }
    if !facts.up {
        let why = "an interface that is down receives nothing";
        findings.push(Finding::problem(name, "it is down", why).fixed_by(format!("ip link set {name} up")));
    }
    if facts.foreign {
        let why = "an interface has room for one XDP program, and another one is there";
        findings.push(
            Finding::problem(name, "another XDP program is attached", why)
                .fixed_by(format!("ip link set {name} xdp off")),
        );
    }
    if *mtu > MTU && facts.mode != XdpMode::Generic {
        let why = "a native XDP program sees a frame in one page; most drivers refuse it with a larger MTU";
        findings
            .push(Finding::warning(name, format!("MTU {mtu}"), why).fixed_by(format!("ip link set {name} mtu 1500")));
    }
    if facts.lro {
        let why = "with LRO the card merges packets before XDP sees them; most drivers refuse XDP then";
        findings.push(Finding::problem(name, "LRO is on", why).fixed_by(format!("ethtool -K {name} lro off")));
    }
    if !facts.gro && driver_name == "veth" {
        let why = "a veth takes redirected packets only with NAPI, which GRO switches on";
        findings.push(Finding::warning(name, "GRO is off", why).fixed_by(format!("ethtool -K {name} gro on")));
    }
    if let Some((used, most)) = facts.queues.filter(|(used, most)| used < most && *used < facts.cpus) {
        let why = "packets are spread over processors by receive queues, and some processors have none";
        let wanted = most.min(facts.cpus);
        let found = format!("{used} receive queues for {} processors", facts.cpus);
        findings.push(Finding::warning(name, found, why).fixed_by(format!("ethtool -L {name} combined {wanted}")));
    }
    if facts.rp_filter == 1 && facts.several {
        let why = "answers to checks that come in by another interface than they left by are dropped";
        findings.push(
            Finding::warning(name, "rp_filter is strict", why)
                .fixed_by(format!("sysctl -w net.ipv4.conf.{name}.rp_filter=2")),
        );
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    fn good() -> Facts {
        Facts {
            name: "eth0".into(),
            driver: Some("mlx5_core".into()),
            mtu: 1500,
            up: true,
            gro: true,
            queues: Some((4, 8)),
            cpus: 4,
            ..Facts::default()
        }
    }

    #[test]
    fn each_obstacle_is_found_with_its_remedy() {
        assert_eq!(judge(&good()).len(), 1);
        assert_eq!(judge(&good())[0].level, Level::Ok);
        let check = |facts: Facts, level: Level, found: &str, fix: Option<&str>| {
            let findings = judge(&facts);
            let worst = findings.iter().max_by_key(|finding| finding.level).unwrap();
            assert_eq!((worst.level, worst.found.as_str(), worst.fix.as_deref()), (level, found, fix));
            assert!(worst.why.is_some());
        };
        use Level::{Problem, Warning};
        check(Facts { up: false, ..good() }, Problem, "it is down", Some("ip link set eth0 up"));
        check(
            Facts { foreign: true, ..good() },
            Problem,
            "another XDP program is attached",
            Some("ip link set eth0 xdp off"),
        );
        check(Facts { lro: true, ..good() }, Problem, "LRO is on", Some("ethtool -K eth0 lro off"));
        check(Facts { mtu: 9000, ..good() }, Warning, "MTU 9000", Some("ip link set eth0 mtu 1500"));
        check(Facts { driver: Some("r8169".into()), ..good() }, Warning, "driver r8169", None);
        check(
            Facts { driver: Some("veth".into()), gro: false, ..good() },
            Warning,
            "GRO is off",
            Some("ethtool -K eth0 gro on"),
        );
        let few = Facts { queues: Some((1, 8)), ..good() };
        check(few, Warning, "1 receive queues for 4 processors", Some("ethtool -L eth0 combined 4"));
        let strict = Facts { rp_filter: 1, several: true, ..good() };
        check(strict, Warning, "rp_filter is strict", Some("sysctl -w net.ipv4.conf.eth0.rp_filter=2"));
        assert_eq!(judge(&Facts { rp_filter: 1, ..good() }).len(), 1);
        assert_eq!(judge(&Facts { mtu: 9000, mode: XdpMode::Generic, ..good() }).len(), 1);
    }

    #[test]
    fn queues_are_read_from_ethtool() {
        let channels = "Channel parameters for eth0:\nPre-set maximums:\nRX:\t\tn/a\nCombined:\t8\nCurrent hardware settings:\nCombined:\t2\n";
        assert_eq!(queues(channels), Some((2, 8)));
        assert_eq!(queues("netlink error: Operation not supported"), None);
    }
}
