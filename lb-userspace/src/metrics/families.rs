//! The families of metrics, each with its name, its help and its rows.

use std::fmt::Error;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeMetric as _, NoLabelSet},
    metrics::{MetricType, info::Info},
    registry::Unit,
};

use super::{Scrape, process::Process};
use crate::{
    api::types::{AgentState, AgentStatus, BackendStatus, ServiceStatus},
    dataplane::{Counters, ServiceCounters, Sight, XdpMode},
    health::Health,
    model::{Admin, Passive, Verdict},
};

/// Whose what removed backends had counted is.
const REMOVED: &str = "(removed)";

type Labels = Vec<(&'static str, String)>;

/// Writes families.
struct Families<'a>(DescriptorEncoder<'a>);

impl Families<'_> {
    fn counter<V: EncodeCounterValue>(
        &mut self,
        name: &str,
        unit: Option<&Unit>,
        help: &str,
        rows: impl IntoIterator<Item = (Labels, V)>,
    ) -> Result<(), Error> {
        let mut family = self.0.encode_descriptor(name, help, unit, MetricType::Counter)?;
        for (labels, value) in rows {
            if labels.is_empty() {
                family.encode_counter::<NoLabelSet, _, f64>(&value, None)?;
            } else {
                family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&value, None)?;
            }
        }
        Ok(())
    }

    fn gauge<V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        unit: Option<&Unit>,
        help: &str,
        rows: impl IntoIterator<Item = (Labels, V)>,
    ) -> Result<(), Error> {
        let mut family = self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for (labels, value) in rows {
            if labels.is_empty() {
                family.encode_gauge(&value)?;
            } else {
                family.encode_family(&labels)?.encode_gauge(&value)?;
            }
        }
        Ok(())
    }

    fn histogram(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (Labels, f64, u64, Vec<(f64, u64)>)>,
    ) -> Result<(), Error> {
        let mut family = self.0.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        for (labels, sum, count, buckets) in rows {
            family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut families = Families(encoder);
        traffic(&mut families, self)?;
        sight(&mut families, self)?;
        rotation(&mut families, &self.overview.services, self)?;
        agents(&mut families, &self.overview.services)?;
        health(&mut families, self)?;
        services(&mut families, &self.overview.services)?;
        tables(&mut families, self)?;
        daemon(&mut families, self)?;
        alarms(&mut families, self)?;
        process(&mut families)
    }
}

fn of(service: &str, backend: &str) -> Labels {
    vec![("service", service.to_owned()), ("backend", backend.to_owned())]
}

fn with(mut labels: Labels, key: &'static str, value: impl Into<String>) -> Labels {
    labels.push((key, value.into()));
    labels
}

/// Every backend in the maps, and for each service what removed ones had counted: the sum never goes back.
fn counted(scrape: &Scrape) -> Vec<(Labels, Counters)> {
    let service = |service: &ServiceCounters| {
        let mut removed = service.totals;
        let mut rows = Vec::new();
        for backend in &service.backends {
            removed -= backend.totals;
            let labels = with(of(&service.name, &backend.name), "address", backend.address.to_string());
            rows.push((labels, backend.totals));
        }
        if removed != Counters::default() {
            rows.push((with(of(&service.name, REMOVED), "address", ""), removed));
        }
        rows
    };
    scrape.snapshot.services.iter().flat_map(service).collect()
}

/// The same of what packets tell, for services whose packets tell it.
fn seen(scrape: &Scrape, tells: fn(&ServiceCounters) -> bool) -> Vec<(Labels, Sight)> {
    let service = |service: &ServiceCounters| {
        let mut removed = service.sight;
        let mut rows = Vec::new();
        for backend in &service.backends {
            removed -= backend.sight;
            let labels = with(of(&service.name, &backend.name), "address", backend.address.to_string());
            rows.push((labels, backend.sight));
        }
        if removed != Sight::default() {
            rows.push((with(of(&service.name, REMOVED), "address", ""), removed));
        }
        rows
    };
    scrape.snapshot.services.iter().filter(|service| tells(service)).flat_map(service).collect()
}

/// What cannot be seen has no row: with direct return the packets of backends do not come by here.
fn sight(families: &mut Families<'_>, scrape: &Scrape) -> Result<(), Error> {
    let requests = seen(scrape, ServiceCounters::sees_handshakes);
    let answers = seen(scrape, ServiceCounters::sees_answers);
    let repeated = requests.iter().map(|(labels, sight)| (labels.clone(), sight.repeated));
    let help = "SYNs that came again while the backend had not accepted: it was silent, or its refusal was kept from the client";
    families.counter("lb_syn_retransmissions", None, help, repeated)?;
    let refused = answers.iter().map(|(labels, sight)| (labels.clone(), sight.refused));
    families.counter("lb_connections_refused", None, "RSTs in answer to a SYN", refused)?;
    let by = |by: &'static str, rows: &[(Labels, Sight)], value: fn(&Sight) -> u64| -> Vec<(Labels, u64)> {
        rows.iter().map(|(labels, sight)| (with(labels.clone(), "by", by), value(sight))).collect()
    };
    let resets = by("backend", &answers, |sight| sight.reset).into_iter();
    let resets = resets.chain(by("client", &requests, |sight| sight.aborted));
    let help = "Established connections that were reset by whoever had not closed them";
    families.counter("lb_connections_reset", None, help, resets)?;
    let asked = answers.iter().map(|(labels, sight)| (labels.clone(), sight.requests));
    let help = "HTTP/1.x requests seen at the start of a segment; nothing of what is encrypted";
    families.counter("lb_http_requests", None, help, asked)?;
    let responses = answers.iter().flat_map(|(labels, sight)| {
        let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"].into_iter().zip(sight.responses);
        classes.map(|(class, count)| (with(labels.clone(), "class", class), count))
    });
    let help = "HTTP/1.x responses seen at the start of a segment, by class; nothing of what is encrypted";
    families.counter("lb_http_responses", None, help, responses.collect::<Vec<_>>())?;
    let handshakes = answers.iter().map(|(labels, sight)| {
        let bounds = Sight::bounds().map(|bound| bound.as_secs_f64()).chain([f64::MAX]);
        let (sum, buckets) = (sight.handshake_ns as f64 / 1e9, bounds.zip(sight.handshakes).collect());
        (labels.clone(), sum, sight.handshakes.iter().sum(), buckets)
    });
    families.histogram("lb_handshake", "From a client's SYN to the backend's SYN-ACK", handshakes)
}

fn traffic(families: &mut Families<'_>, scrape: &Scrape) -> Result<(), Error> {
    let counted = counted(scrape);
    let connections = counted.iter().map(|(labels, totals)| (labels.clone(), totals.connections));
    families.counter("lb_connections", None, "Connections given to a backend", connections)?;
    let directed = |both: fn(&Counters) -> [u64; 2]| -> Vec<(Labels, u64)> {
        let rows = counted.iter().flat_map(|(labels, totals)| {
            let [inward, outward] = both(totals);
            [("in", inward), ("out", outward)].map(|(word, value)| (with(labels.clone(), "direction", word), value))
        });
        rows.collect()
    };
    let packets = directed(|totals| [totals.packets_in, totals.packets_out]);
    families.counter("lb_packets", None, "Packets forwarded: in from clients, out from backends", packets)?;
    let bytes = directed(|totals| [totals.bytes_in, totals.bytes_out]);
    families.counter(
        "lb_bytes",
        None,
        "Bytes forwarded, Ethernet headers included: in from clients, out from backends",
        bytes,
    )?;
    let drops = scrape.snapshot.drops.iter().map(|drop| (vec![("reason", drop.reason.to_owned())], drop.packets));
    families.counter("lb_drops", None, "Packets of services that were dropped, by reason", drops)?;
    let open = backends(&scrape.overview.services, |backend| backend.connections);
    families.gauge("lb_backend_connections", None, "Connections that are open", open)
}

fn backends<V>(services: &[ServiceStatus], value: impl Fn(&BackendStatus) -> V) -> Vec<(Labels, V)> {
    let rows = services
        .iter()
        .flat_map(|service| service.backends.iter().map(|backend| (of(&service.name, &backend.name), value(backend))));
    rows.collect()
}

/// A row for each word there is, 1 for the one that holds.
fn states<const N: usize>(
    services: &[ServiceStatus],
    key: &'static str,
    words: [&'static str; N],
    word: impl Fn(&BackendStatus) -> &'static str,
) -> Vec<(Labels, u64)> {
    let rows = backends(services, word)
        .into_iter()
        .flat_map(|(labels, held)| words.map(|word| (with(labels.clone(), key, word), u64::from(word == held))));
    rows.collect()
}

fn rotation(families: &mut Families<'_>, services: &[ServiceStatus], scrape: &Scrape) -> Result<(), Error> {
    let within = backends(services, |backend| u64::from(backend.in_rotation));
    families.gauge("lb_backend_in_rotation", None, "Whether a backend takes new connections", within)?;
    let standby = backends(services, |backend| u64::from(backend.standby));
    families.gauge(
        "lb_backend_standby",
        None,
        "Whether a backend is a backup that could serve, and need not",
        standby,
    )?;
    let out = services.iter().flat_map(|service| {
        service.backends.iter().flat_map(|backend| {
            let known = scrape.overview.tallies.of(&service.name, &backend.name);
            let causes = known.map(|tally| tally.out.clone()).unwrap_or_default();
            causes
                .into_iter()
                .map(|(cause, time)| (with(of(&service.name, &backend.name), "cause", cause), time.as_secs_f64()))
        })
    });
    let help = "Time that a backend has spent out of rotation since the daemon started, by what kept it out";
    families.counter("lb_backend_out_of_rotation", Some(&Unit::Seconds), help, out.collect::<Vec<_>>())?;
    let since = backends(services, |backend| backend.since.as_second());
    let help = "Since when a backend is in or out of rotation";
    families.gauge("lb_backend_rotation_changed_timestamp", Some(&Unit::Seconds), help, since)?;
    let admin = [Admin::Enabled, Admin::Draining, Admin::Disabled].map(Admin::word);
    let rows = states(services, "state", admin, |backend| backend.admin.word());
    families.gauge(
        "lb_backend_admin",
        None,
        "What an operator wants of a backend: 1 for the state that holds",
        rows,
    )?;
    let rows =
        states(services, "state", [Passive::Ok, Passive::Ejected].map(Passive::word), |backend| backend.passive.word());
    families.gauge(
        "lb_backend_passive",
        None,
        "What the traffic says of a backend: 1 for the state that holds",
        rows,
    )?;
    let ejections = backends(services, |backend| backend.ejections_total);
    let help = "How often a backend was ejected for what its traffic says, since the daemon started";
    families.counter("lb_backend_ejections", None, help, ejections)?;
    let failing = backends(services, |backend| u64::from(backend.complaint.is_some()));
    let help = "Whether the traffic of a backend says that users notice: errors, failed connections, or no answers";
    families.gauge("lb_backend_in_trouble", None, help, failing)?;
    let until = services.iter().flat_map(|service| {
        service
            .backends
            .iter()
            .filter_map(|backend| Some((of(&service.name, &backend.name), backend.until?.as_second())))
    });
    let help = "When a planned detachment ends; there is no row for what is not detached";
    families.gauge("lb_backend_detached_until_timestamp", Some(&Unit::Seconds), help, until)?;
    let weight = backends(services, |backend| u64::from(backend.weight));
    families.gauge("lb_backend_weight", None, "The share of new connections that a backend is to get", weight)?;
    let share = backends(services, |backend| f64::from(backend.share.unwrap_or(100)) / 100.0);
    let help = "How much of its weight a backend gets by now: less while it starts slowly, its agent says so or its traffic is bad";
    families.gauge("lb_backend_share", Some(&Unit::Ratios), help, share)
}

fn agents(families: &mut Families<'_>, services: &[ServiceStatus]) -> Result<(), Error> {
    let limits = backends(services, |backend| backend.limit.map(|limit| u64::from(limit.connections)));
    let help = "With so many open connections a backend gets no new one; there is no row where there is no limit";
    let limits = limits.into_iter().filter_map(|(labels, limit)| Some((labels, limit?)));
    families.gauge("lb_backend_max_connections", None, help, limits)?;
    let agents: Vec<(Labels, AgentStatus)> = backends(services, |backend| backend.agent.clone())
        .into_iter()
        .filter_map(|(labels, agent)| Some((labels, agent?)))
        .collect();
    let of = |value: fn(&AgentStatus) -> u64| agents.iter().map(move |(labels, agent)| (labels.clone(), value(agent)));
    let help = "The share of its weight that the agent of a backend says it can take, in percent, as last heard";
    families.gauge("lb_backend_agent_percent", None, help, of(|agent| agent.percent.into()))?;
    let help = "Whether it is known what the agent of a backend says: 0 when it has not been heard for three intervals";
    families.gauge("lb_backend_agent_known", None, help, of(|agent| u64::from(agent.state == AgentState::Known)))?;
    let memory = agents
        .iter()
        .filter_map(|(labels, agent)| Some((labels.clone(), f64::from(agent.memory_available_percent?) / 100.0)));
    let help = "Memory available on a backend, as its agent said last, where it is asked for JSON";
    families.gauge("lb_backend_agent_memory_available", Some(&Unit::Ratios), help, memory)?;
    let heard = agents.iter().filter_map(|(labels, agent)| Some((labels.clone(), agent.heard?.as_second())));
    let help = "When the agent of a backend was last heard";
    families.gauge("lb_backend_agent_heard_timestamp", Some(&Unit::Seconds), help, heard)
}

fn health(families: &mut Families<'_>, scrape: &Scrape) -> Result<(), Error> {
    let services = &scrape.overview.services;
    let words = [Health::Up, Health::Down, Health::Unknown].map(Health::word);
    let rows = states(services, "state", words, |backend| backend.health.word());
    families.gauge("lb_backend_health", None, "What the checks of a backend say: 1 for the state that holds", rows)?;
    let tallies: Vec<_> = services
        .iter()
        .flat_map(|service| service.backends.iter().map(|backend| (&service.name, &backend.name)))
        .filter_map(|(service, backend)| Some((of(service, backend), scrape.overview.tallies.of(service, backend)?)))
        .collect();
    let checks = tallies.iter().flat_map(|(labels, tally)| {
        let [passed, failed] = tally.checks;
        [("passed", passed), ("failed", failed)].map(|(word, count)| (with(labels.clone(), "result", word), count))
    });
    families.counter("lb_health_checks", None, "Health checks made", checks.collect::<Vec<_>>())?;
    let durations = tallies.iter().filter(|(_, tally)| tally.durations.count() > 0).map(|(labels, tally)| {
        let durations = &tally.durations;
        (labels.clone(), durations.sum(), durations.count(), durations.buckets())
    });
    families.histogram("lb_health_check_duration", "How long health checks took", durations)?;
    let checks = &scrape.overview.checks;
    let heartbeat = checks.heartbeat.map(|at| (Labels::new(), at.as_millisecond() as f64 / 1000.0));
    let help = "When the last result of a health check came in";
    families.gauge("lb_health_checks_heartbeat_timestamp", Some(&Unit::Seconds), help, heartbeat)?;
    families.gauge("lb_health_checks_running", None, "Backends that are checked", one(checks.running as u64))?;
    families.gauge("lb_health_checks_overdue", None, "Backends whose check is overdue", one(checks.overdue as u64))?;
    let help = "Checks that had gone silent and were started again";
    families.counter("lb_health_checks_restarted", None, help, one(checks.restarted))
}

fn one<V>(value: V) -> [(Labels, V); 1] {
    [(Labels::new(), value)]
}

fn services(families: &mut Families<'_>, services: &[ServiceStatus]) -> Result<(), Error> {
    let of_service = |value: fn(&ServiceStatus) -> u64| {
        services.iter().map(move |service| (vec![("service", service.name.clone())], value(service)))
    };
    let words = [Verdict::Ok, Verdict::Degraded, Verdict::Down].map(Verdict::word);
    let verdicts = services.iter().flat_map(|service| {
        words.map(|word| {
            let labels = vec![("service", service.name.clone()), ("verdict", word.to_owned())];
            (labels, u64::from(service.verdict.word() == word))
        })
    });
    families.gauge("lb_service_verdict", None, "A service in a word: 1 for the verdict that holds", verdicts)?;
    let help = "Backends that take new connections";
    families.gauge("lb_service_in_rotation", None, help, of_service(|service| service.in_rotation as u64))?;
    let help = "Backends that are to; backups that stand by are not";
    families.gauge("lb_service_backends", None, help, of_service(|service| service.total as u64))?;
    let help = "Fewer backends in rotation than this are too few";
    families.gauge("lb_service_min_healthy", None, help, of_service(|service| service.min_healthy as u64))?;
    let help = "Whether no backend is in rotation and all that can be reached get traffic therefore";
    families.gauge("lb_service_fails_open", None, help, of_service(|service| u64::from(service.fails_open)))
}

fn tables(families: &mut Families<'_>, scrape: &Scrape) -> Result<(), Error> {
    let snapshot = &scrape.snapshot;
    let usage = [("flows", snapshot.flows), ("nat", snapshot.nat)];
    let of_map = |name: &str| vec![("map", name.to_owned())];
    families.gauge("lb_map_entries", None, "Entries in use", usage.map(|(map, usage)| (of_map(map), usage.used)))?;
    let help = "Entries that fit";
    families.gauge("lb_map_capacity", None, help, usage.map(|(map, usage)| (of_map(map), usage.capacity)))?;
    let ports = snapshot.services.iter().flat_map(|service| {
        service.backends.iter().map(|backend| (of(&service.name, &backend.name), backend.nat_ports))
    });
    families.gauge("lb_backend_nat_ports", None, "Source ports in use towards a backend", ports)?;
    let help = "Source ports that there are towards each backend";
    families.gauge("lb_nat_ports_capacity", None, help, one(snapshot.nat_ports_per_backend))?;
    let help = "Map entries that somebody else had changed and that were repaired";
    families.counter("lb_map_drift_repaired", None, help, one(scrape.overview.tallies.repaired))?;
    let help = "Whether the maps say what the daemon wants them to say: 0 while writing them fails";
    families.gauge("lb_maps_current", None, help, one(u64::from(scrape.overview.maps_current)))?;
    let attached = scrape.overview.interfaces.iter().map(|interface| {
        let found = scrape.attachments.iter().find(|attachment| attachment.interface == *interface);
        let mode = found.map_or("none", |found| if found.mode == XdpMode::Generic { "generic" } else { "native" });
        (vec![("interface", interface.clone()), ("mode", mode.to_owned())], u64::from(found.is_some()))
    });
    families.gauge("lb_xdp_attached", None, "Whether the program is attached to an interface, and how", attached)
}

fn daemon(families: &mut Families<'_>, scrape: &Scrape) -> Result<(), Error> {
    let tallies = &scrape.overview.tallies;
    let help = "Whether the last reload of the configuration was taken over";
    let well = u64::from(tallies.reload_failed.is_none());
    families.gauge("lb_config_last_reload_successful", None, help, one(well))?;
    let help = "When the running configuration was read";
    let at = tallies.configured.as_second();
    families.gauge("lb_config_last_reload_success_timestamp", Some(&Unit::Seconds), help, one(at))?;
    let rows = ["taken_over", "refused"].into_iter().zip(tallies.reloads);
    let rows = rows.map(|(result, count)| (vec![("result", result.to_owned())], count));
    families.counter("lb_config_reloads", None, "Reloads of the configuration", rows)?;
    let info = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
    let family = families.0.encode_descriptor("lb_build", "The build that runs", None, MetricType::Info)?;
    info.encode(family)
}

fn alarms(families: &mut Families<'_>, scrape: &Scrape) -> Result<(), Error> {
    let firing = scrape.overview.alarms.iter().map(|alarm| {
        let labels = vec![
            ("alarm", alarm.alarm.word().to_owned()),
            ("service", alarm.service.clone().unwrap_or_default()),
            ("backend", alarm.backend.clone().unwrap_or_default()),
            ("severity", alarm.severity.word().to_owned()),
            ("silenced", alarm.silenced_until.is_some().to_string()),
        ];
        (labels, 1u64)
    });
    families.gauge("lb_alarm_firing", None, "Alarms that fire", firing)?;
    let silences = scrape.overview.silences.len() as u64;
    families.gauge("lb_alarm_silences", None, "Silences that have not ended", one(silences))?;
    let couriers = &scrape.overview.couriers;
    let to = |name: &str| vec![("to", name.to_owned())];
    let deliveries = couriers.iter().flat_map(|(name, tally)| {
        let results = [("delivered", tally.delivered), ("failed", tally.failed), ("lost", tally.lost)];
        results.map(|(result, count)| (with(to(name), "result", result), count))
    });
    let help = "Attempts to deliver alarms: delivered, failed and tried again, lost for good";
    families.counter("lb_alarm_deliveries", None, help, deliveries)?;
    let pending = couriers.iter().map(|(name, tally)| (to(name), tally.pending as u64));
    families.gauge("lb_alarm_pending", None, "Alarms that wait to be delivered", pending)
}

fn process(families: &mut Families<'_>) -> Result<(), Error> {
    // Without /proc there is nothing to say.
    let Ok(process) = Process::read() else { return Ok(()) };
    let help = "Processor time of the daemon";
    families.counter("process_cpu", Some(&Unit::Seconds), help, one(process.cpu_seconds))?;
    let help = "Memory of the daemon that is in use";
    families.gauge("process_resident_memory", Some(&Unit::Bytes), help, one(process.resident_bytes))?;
    families.gauge("process_open_fds", None, "Open descriptors of the daemon", one(process.open_fds))?;
    let help = "When the daemon started";
    families.gauge("process_start_time", Some(&Unit::Seconds), help, one(process.start_seconds))
}
