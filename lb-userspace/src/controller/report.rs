//! What the log says of changes. Lost redundancy is a warning each time, so that nobody need remember it.

use crate::{
    dataplane::{Attachment, XdpMode},
    model::{Model, Transition},
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
        let (name, in_rotation, total) = (&service.spec.name, service.in_rotation(), service.backends.len());
        tracing::info!("service {name} on {}: {in_rotation} of {total} backends in rotation", service.spec.listen);
        for backend in &service.backends {
            let standing = backend.standing();
            if !standing.in_rotation {
                tracing::warn!("{name}/{} is out of rotation: {}", backend.name, standing.change.cause);
            }
        }
    }
}

pub(super) fn transition(model: &Model, transition: &Transition) {
    let Transition { service, backend, standing, in_rotation, total } = transition;
    let cause = &standing.change.cause;
    if standing.in_rotation {
        tracing::info!("{service}/{backend} is in rotation: {cause}; {in_rotation} of {total} serve");
        return;
    }
    tracing::warn!("{service}/{backend} is out of rotation: {cause}; {in_rotation} of {total} serve");
    let min_healthy = model.services.get(service).map_or(0, |service| service.spec.min_healthy);
    if *in_rotation < min_healthy {
        tracing::error!(
            "service {service} has {in_rotation} backends in rotation, fewer than min_healthy = {min_healthy}"
        );
    }
}
