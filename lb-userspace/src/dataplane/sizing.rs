//! How large the maps are made, and which ports NAT takes.

use std::{fs, io, ops::RangeInclusive};

use lb_common::{
    flow,
    layout::{Config, MAX_BACKENDS, MAX_SERVICES, VERSION, WAYS},
};

use super::{Error, Options, clock};

/// The kernel's own ports: what sockets get that ask for any.
const EPHEMERAL: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// Ports below are for daemons that bind them.
const FIRST_PORT: u16 = 1024;

/// Idle time of an established flow.
const ESTABLISHED_SECONDS: u32 = 2 * 60 * 60;

/// Idle time of a UDP flow: what Linux's connection tracking gives a stream.
const DATAGRAM_SECONDS: u32 = 120;

/// Packets whose fragments are under way at the same time.
const FRAGMENTS: u32 = 8192;

/// One set of so many is filled first: 4 MB of the table for a million flows, which is a processor's own cache.
const NEAR_PART: u32 = 8;

/// The logarithm of what is at least the number of ports there are.
const FEWEST_NAT_SLOTS: u32 = 16;

/// The logarithm of a third of the most that there are: 402 MB, for 4 million flows. A program reaches half a gigabyte behind an
/// address (Linux, include/linux/bpf_verifier.h, `BPF_MAX_VAR_OFF`).
const MOST_NAT_SLOTS: u32 = 21;

/// Words of the ring space: 8 million entries, 64 bytes for each of a million flows' worth of backends.
const RING_WORDS: u32 = 1 << 22;

/// The configuration of new maps: room for twice the services and backends configured, and some.
pub(super) fn config(options: &Options, cpus: u32) -> Result<Config, Error> {
    let services = (options.services.saturating_mul(4)).clamp(1024, MAX_SERVICES).next_power_of_two();
    let backends = (options.backends.saturating_mul(2)).clamp(4096, MAX_BACKENDS).next_power_of_two();
    let sets = (options.flows.saturating_mul(2) / WAYS as u32).max(16).next_power_of_two();
    let ephemeral = fs::read_to_string(EPHEMERAL).and_then(|text| {
        parse_range(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("not a range: {text:?}")))
    });
    let ephemeral = ephemeral.map_err(|source| Error::System { what: format!("cannot read {EPHEMERAL}"), source })?;
    let (nat_port_base, nat_port_count) = nat_ports(&ephemeral).ok_or_else(|| Error::System {
        what: format!("no room for NAT ports beside the ephemeral range {}-{}", ephemeral.start(), ephemeral.end()),
        source: io::Error::other(format!("leave at least 1000 ports free in {EPHEMERAL}")),
    })?;
    let mut secrets = [[0; 6]; 3];
    random(bytemuck::bytes_of_mut(&mut secrets))
        .map_err(|source| Error::System { what: "cannot get random bytes from the kernel".into(), source })?;
    let [flow_key, tag_key, place_key] = secrets;
    let clock = clock::ask()?;
    Ok(Config {
        version: VERSION,
        service_mask: services - 1,
        near_mask: sets / NEAR_PART - 1,
        flow_sets: sets,
        nat_shift: (options.flows.next_power_of_two().trailing_zeros().saturating_sub(1))
            .clamp(FEWEST_NAT_SLOTS, MOST_NAT_SLOTS),
        backends,
        rings: RING_WORDS * 2,
        cpus,
        nat_port_base,
        nat_port_count,
        jiffy_ns: clock.jiffy_ns,
        first_jiffy: clock.first_jiffy,
        timeouts: timeouts(),
        fragment_mask: FRAGMENTS - 1,
        flow_key,
        tag_key,
        place_key,
    })
}

/// The configuration of maps that are there: as it was, but that flows may have states by now that they had not then.
pub(super) fn adopt(config: Config) -> Config {
    Config { timeouts: timeouts(), ..config }
}

fn timeouts() -> flow::Timeouts {
    flow::timeouts(flow::ticks(ESTABLISHED_SECONDS), flow::ticks(DATAGRAM_SECONDS))
}

/// The longest run of unprivileged ports outside the ephemeral range: first port, and how many.
fn nat_ports(ephemeral: &RangeInclusive<u16>) -> Option<(u16, u16)> {
    let below = (FIRST_PORT, ephemeral.start().saturating_sub(FIRST_PORT));
    let above = (ephemeral.end().saturating_add(1), u16::MAX - ephemeral.end());
    [below, above].into_iter().max_by_key(|&(_, count)| count).filter(|&(_, count)| count >= 1000)
}

fn parse_range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut numbers = text.split_whitespace().map(str::parse);
    match (numbers.next()?, numbers.next()?) {
        (Ok(first), Ok(last)) => Some(first..=last),
        _ => None,
    }
}

fn random(bytes: &mut [u8]) -> io::Result<()> {
    use io::Read;
    fs::File::open("/dev/urandom")?.read_exact(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nat_ports_stay_outside_the_ephemeral_range() {
        let check = |range, expected| assert_eq!(nat_ports(&range), expected, "{range:?}");
        check(32768..=60999, Some((1024, 31744)));
        check(1024..=20000, Some((20001, 45535)));
        check(1024..=65535, None);
        check(0..=65535, None);
        check(1500..=65000, None);
    }

    #[test]
    fn maps_that_are_there_keep_their_sizes_and_get_the_idle_times_of_today() {
        let there = Config { nat_shift: 9, timeouts: [56; 16], ..bytemuck::Zeroable::zeroed() };
        assert_eq!(adopt(there), Config { timeouts: timeouts(), ..there });
    }

    #[test]
    fn ranges_are_two_numbers() {
        assert_eq!(parse_range("32768\t60999\n"), Some(32768..=60999));
        assert_eq!(parse_range("32768"), None);
        assert_eq!(parse_range("a b"), None);
    }
}
