//! What the log says of changes. Lost redundancy is a warning each time, so that nobody need remember it.

use crate::{
    dataplane::{Attachment, XdpMode},
    model::{Event, Model, What},
};

pub(super) fn attached(attachment: &Attachment) {
    let interface = &attachment.interface;
    let how = if attachment.adopted { "replaced" } else { "attached" };
    let mode = if attachment.mode == XdpMode::Generic { "generic" } else { "native" };
    tracing::info!("{interface}: program {how} in {mode} mode");
}

/// Where every service stands.
pub(super) fn standings(model: &Model) {
    for service in model.services.values() {
        let (name, in_rotation, total) = (&service.spec.name, service.in_rotation(), service.total());
        tracing::info!("service {name} on {}: {in_rotation} of {total} backends in rotation", service.spec.listen);
        for backend in &service.backends {
            let standing = service.standing(backend);
            if !standing.in_rotation {
                tracing::warn!("{name}/{} is out of rotation: {}", backend.name, standing.change.cause);
            }
        }
    }
}

/// A line for each event; those that cost redundancy are warnings, those that leave too little of it errors.
pub(super) fn events(model: &Model, events: &[Event]) {
    for event in events {
        let Event { what, service, backend, from, to, cause, .. } = event;
        let subject: Vec<&str> = [service, backend].into_iter().flatten().map(String::as_str).collect();
        let subject = subject.join("/");
        let known = service.as_ref().and_then(|name| model.services.get(name));
        let count = known.map(|service| service.count()).unwrap_or_default();
        match (what, to.as_str()) {
            (What::Rotation, "in") => tracing::info!("{subject} is in rotation: {cause}; {count}"),
            (What::Rotation, _) => {
                tracing::warn!("{subject} is out of rotation: {cause}; {count}");
                let (left, wanted) = known.map_or((0, 0), |service| (service.in_rotation(), service.spec.min_healthy));
                if left < wanted {
                    tracing::error!(
                        "service {} has {left} backends in rotation, fewer than min_healthy = {wanted}",
                        service.as_deref().unwrap_or_default()
                    );
                }
            }
            (What::Backend | What::Service, "present") => tracing::info!("{subject} added: {cause}"),
            (What::Backend | What::Service, _) => tracing::info!("{subject} removed: {cause}"),
            (What::Detachment, "overdue") => tracing::warn!("{subject}: {cause}; {count}"),
            (What::Passive, to) if to != "ok" => tracing::warn!("{subject}: {to}: {cause}; {count}"),
            // Nobody knows how it is, and its check may pass all the same.
            (What::Agent, to) if to.starts_with("unknown") => tracing::warn!("{subject}: {cause}"),
            (What::Admin | What::Detachment | What::Weight | What::Passive | What::Checks, _)
            | (What::Agent | What::Limit, _) => {
                tracing::info!("{subject}: {} {from} -> {to}: {cause}", what.word());
            }
            // Told by the rotation that follows.
            (What::Health | What::Route | What::Verdict, _) => {
                tracing::debug!("{subject}: {} {from} -> {to}: {cause}", what.word());
            }
            // The daemon has words of its own for these.
            (What::Config | What::Daemon | What::Alarm | What::Silence, _) => {}
        }
    }
}
