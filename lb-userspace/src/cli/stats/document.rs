//! The JSON of `lb stats`.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use serde::Serialize;

use crate::{
    api::types::SCHEMA_VERSION,
    dataplane::{BackendCounters, Counters, ServiceCounters, Sight, Snapshot, Usage},
    plan::Protocol,
};

/// What `lb stats -o json` prints.
#[derive(Serialize)]
pub(super) struct StatsDocument {
    pub(super) schema_version: u32,
    pub(super) services: Vec<ServiceStats>,
    pub(super) drops: BTreeMap<&'static str, u64>,
    pub(super) flows: Usage,
    pub(super) nat_ports: Usage,
}

#[derive(Serialize)]
pub(super) struct ServiceStats {
    pub(super) name: String,
    pub(super) listen: SocketAddr,
    pub(super) protocol: Protocol,
    #[serde(flatten)]
    pub(super) sums: Sums,
    /// Open at this moment.
    pub(super) connections: u64,
    pub(super) seen: Seen,
    pub(super) backends: Vec<BackendStats>,
}

#[derive(Serialize)]
pub(super) struct BackendStats {
    pub(super) name: String,
    pub(super) address: SocketAddr,
    pub(super) in_rotation: bool,
    #[serde(flatten)]
    pub(super) sums: Sums,
    /// Open at this moment.
    pub(super) connections: u64,
    pub(super) seen: Seen,
}

/// What packets tell. Nothing, rather than zero, where it is not to be seen: over UDP; and with direct return, where the packets of
/// backends do not come by here.
#[derive(Clone, Serialize)]
pub(super) struct Seen {
    pub(super) syn_retransmissions: Option<u64>,
    pub(super) refused: Option<u64>,
    pub(super) reset_by_backend: Option<u64>,
    pub(super) reset_by_client: Option<u64>,
    /// HTTP/1.x requests.
    pub(super) requests: Option<u64>,
    /// HTTP/1.x responses by class.
    pub(super) responses: Option<BTreeMap<&'static str, u64>>,
    pub(super) handshakes: Option<Handshakes>,
}

/// From SYN to SYN-ACK.
#[derive(Clone, Serialize)]
pub(super) struct Handshakes {
    pub(super) count: u64,
    pub(super) seconds: f64,
    /// Upper bounds in seconds; nothing where there is none.
    pub(super) median: Option<f64>,
    pub(super) p99: Option<f64>,
}

impl Seen {
    fn of(service: &ServiceCounters, sight: &Sight) -> Self {
        let (requests, answers) = (service.sees_handshakes(), service.sees_answers());
        let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"];
        let quantile = |part| sight.handshake_quantile(part).map(|bound| bound.as_secs_f64());
        Self {
            syn_retransmissions: requests.then_some(sight.repeated),
            refused: answers.then_some(sight.refused),
            reset_by_backend: answers.then_some(sight.reset),
            reset_by_client: requests.then_some(sight.aborted),
            requests: answers.then_some(sight.requests),
            responses: answers.then(|| classes.into_iter().zip(sight.responses).collect()),
            handshakes: answers.then(|| Handshakes {
                count: sight.handshakes.iter().sum(),
                seconds: sight.handshake_ns as f64 / 1e9,
                median: quantile(0.5),
                p99: quantile(0.99),
            }),
        }
    }
}

/// "in" is from clients to backends, "out" from backends to clients.
#[derive(Serialize)]
pub(super) struct Sums {
    pub(super) connections_total: u64,
    pub(super) packets_in: u64,
    pub(super) bytes_in: u64,
    pub(super) packets_out: u64,
    pub(super) bytes_out: u64,
    pub(super) packets_total: u64,
    pub(super) bytes_total: u64,
}

/// What `lb stats --rate -o json` prints.
#[derive(Serialize)]
pub(super) struct RatesDocument {
    pub(super) schema_version: u32,
    /// Over how long the rates were measured.
    pub(super) seconds: f64,
    pub(super) services: Vec<ServiceRates>,
}

#[derive(Serialize)]
pub(super) struct ServiceRates {
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) rates: Rates,
    pub(super) backends: Vec<BackendRates>,
}

#[derive(Serialize)]
pub(super) struct BackendRates {
    pub(super) name: String,
    pub(super) address: SocketAddr,
    #[serde(flatten)]
    pub(super) rates: Rates,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Rates {
    pub(super) connections_per_second: f64,
    pub(super) packets_in_per_second: f64,
    pub(super) bytes_in_per_second: f64,
    pub(super) packets_out_per_second: f64,
    pub(super) bytes_out_per_second: f64,
}

impl From<&Snapshot> for StatsDocument {
    fn from(snapshot: &Snapshot) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            services: snapshot.services.iter().map(ServiceStats::from).collect(),
            drops: snapshot.drops.iter().map(|drop| (drop.reason, drop.packets)).collect(),
            flows: snapshot.flows,
            nat_ports: snapshot.nat,
        }
    }
}

impl From<&ServiceCounters> for ServiceStats {
    fn from(service: &ServiceCounters) -> Self {
        Self {
            name: service.name.clone(),
            listen: service.listen,
            protocol: service.protocol,
            sums: service.totals.into(),
            connections: service.backends.iter().map(|backend| backend.connections).sum(),
            seen: Seen::of(service, &service.sight),
            backends: service.backends.iter().map(|backend| BackendStats::of(service, backend)).collect(),
        }
    }
}

impl BackendStats {
    fn of(service: &ServiceCounters, backend: &BackendCounters) -> Self {
        Self {
            name: backend.name.clone(),
            address: backend.address,
            in_rotation: backend.in_rotation,
            sums: backend.totals.into(),
            connections: backend.connections,
            seen: Seen::of(service, &backend.sight),
        }
    }
}

impl From<Counters> for Sums {
    fn from(counters: Counters) -> Self {
        let Counters { connections, packets_in, bytes_in, packets_out, bytes_out } = counters;
        Self {
            connections_total: connections,
            packets_in,
            bytes_in,
            packets_out,
            bytes_out,
            packets_total: packets_in + packets_out,
            bytes_total: bytes_in + bytes_out,
        }
    }
}

impl RatesDocument {
    /// What changed per second. What was not there before has no rate yet.
    pub(super) fn between(before: &Snapshot, after: &Snapshot, elapsed: Duration) -> Self {
        let seconds = elapsed.as_secs_f64();
        let services = after.services.iter().map(|service| {
            let known = before.services.iter().find(|known| known.name == service.name);
            let backends = service.backends.iter().map(|backend| {
                let known = known.map_or([].as_slice(), |known| known.backends.as_slice());
                let known = known.iter().find(|known| known.name == backend.name && known.address == backend.address);
                BackendRates {
                    name: backend.name.clone(),
                    address: backend.address,
                    rates: Rates::between(known.map(|known| known.totals), backend.totals, seconds),
                }
            });
            ServiceRates {
                name: service.name.clone(),
                rates: Rates::between(known.map(|known| known.totals), service.totals, seconds),
                backends: backends.collect(),
            }
        });
        Self { schema_version: SCHEMA_VERSION, seconds, services: services.collect() }
    }
}

impl Rates {
    fn between(before: Option<Counters>, after: Counters, seconds: f64) -> Self {
        let Some(before) = before else { return Self::default() };
        let rate = |before: u64, after: u64| after.saturating_sub(before) as f64 / seconds;
        Self {
            connections_per_second: rate(before.connections, after.connections),
            packets_in_per_second: rate(before.packets_in, after.packets_in),
            bytes_in_per_second: rate(before.bytes_in, after.bytes_in),
            packets_out_per_second: rate(before.packets_out, after.packets_out),
            bytes_out_per_second: rate(before.bytes_out, after.bytes_out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_the_difference_over_the_time() {
        let sums = |connections, packets_in| Counters { connections, packets_in, ..Counters::default() };
        let check = |before: Option<Counters>, after: Counters, expected: (f64, f64)| {
            let rates = Rates::between(before, after, 2.0);
            assert_eq!((rates.connections_per_second, rates.packets_in_per_second), expected);
        };
        check(Some(sums(10, 100)), sums(14, 300), (2.0, 100.0));
        check(Some(sums(10, 100)), sums(10, 100), (0.0, 0.0));
        check(None, sums(10, 100), (0.0, 0.0));
        // The maps were made anew in between.
        check(Some(sums(10, 100)), sums(1, 2), (0.0, 0.0));
    }
}
