//! What the rules look at: everything about a moment that may be an alarm, as a value.

use std::time::Duration;

use jiff::Timestamp;

use crate::{
    health::Health,
    model::{Admin, Backend, Ending, Model, Service},
};

/// For so long it counts that a backend has failed its clients: another that has its load meanwhile may be next.
const TURN: Duration = Duration::from_secs(30);

/// Everything about a moment that may be an alarm.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// Every service that is not simply well: of ten thousand a few.
    pub services: Vec<ServiceFacts>,
    /// Tables that may fill up.
    pub tables: Vec<TableFacts>,
    /// Why the last reload of the configuration failed, if it did.
    pub reload_failed: Option<String>,
    /// Checks that had gone silent since the last look: "web/web-01".
    pub silent_checks: Vec<String>,
    /// Map entries that the last comparison found changed by somebody else.
    pub drift: usize,
}

/// One service.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceFacts {
    /// Its name.
    pub name: String,
    /// Fewer in rotation than this are too few.
    pub min_healthy: usize,
    /// Its backends.
    pub backends: Vec<BackendFacts>,
}

/// One backend.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendFacts {
    /// Its name.
    pub name: String,
    /// Whether it takes new flows.
    pub in_rotation: bool,
    /// Whether it is a backup that could, and need not.
    pub stands_by: bool,
    /// Since when it is in or out of rotation, by whom and why.
    pub since: Timestamp,
    /// Why.
    pub cause: String,
    /// Whether an operator has taken it out.
    pub detached: bool,
    /// When that ends, or ended.
    pub until: Option<Timestamp>,
    /// When it was enabled again because that had ended, if nobody has touched it since.
    pub returned: Option<Timestamp>,
    /// When it was called back before its time because the service needed it, if nobody has touched it since.
    pub recalled: Option<Timestamp>,
    /// Whether its checks fail.
    pub down: bool,
    /// Whether there is no way to it.
    pub unreachable: bool,
    /// Whether it is out of rotation for what its traffic says.
    pub ejected: bool,
    /// Since when its traffic says that it fails its clients, and how, while it is in rotation.
    pub failing: Option<(Timestamp, String)>,
    /// Since when it fails its clients, in rotation or ejected; when it was well again, where that was not long ago.
    pub failed: Option<Timestamp>,
}

/// A table that may fill up.
#[derive(Clone, Debug, PartialEq)]
pub struct TableFacts {
    /// "the flow table", "source ports".
    pub name: String,
    /// Towards which backend of which service, if it is about one.
    pub towards: Option<(String, String)>,
    /// Entries in use.
    pub used: u64,
    /// Entries that fit.
    pub capacity: u64,
    /// New flows that found no place since the last look.
    pub refused: u64,
}

impl BackendFacts {
    /// Whether it is out of rotation because an operator planned it, for a while that is not over.
    #[must_use]
    pub fn is_planned(&self, now: Timestamp) -> bool {
        self.detached && self.until.is_some_and(|until| now < until)
    }

    /// Whether it takes new flows or would at once.
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.in_rotation || self.stands_by
    }
}

impl Facts {
    /// What there is to be known of services.
    #[must_use]
    pub fn of(model: &Model, now: Timestamp) -> Self {
        let notable = model.services.values().map(|service| &**service).filter(|service| !is_well(service, now));
        Self { services: notable.map(|service| of_service(service, now)).collect(), ..Self::default() }
    }
}

/// Whether no rule has anything to say of a service.
fn is_well(service: &Service, now: Timestamp) -> bool {
    let is_well = |backend: &Backend| {
        backend.is_fit()
            && backend.ended.is_none()
            && backend.judgement.is_clean()
            && backend.failed_within(TURN, now).is_none()
    };
    !service.backends.is_empty() && service.backends.iter().all(is_well)
}

fn of_service(service: &Service, now: Timestamp) -> ServiceFacts {
    ServiceFacts {
        name: service.spec.name.clone(),
        min_healthy: service.spec.min_healthy,
        backends: service.backends.iter().map(|backend| of_backend(service, backend, now)).collect(),
    }
}

fn of_backend(service: &Service, backend: &Backend, now: Timestamp) -> BackendFacts {
    let standing = service.standing(backend);
    let detached = backend.admin.value != Admin::Enabled;
    let ended = |how| backend.ended.as_ref().filter(|ended| ended.value == how).map(|ended| ended.change.at);
    BackendFacts {
        name: backend.name.clone(),
        in_rotation: standing.in_rotation,
        stands_by: backend.backup && backend.is_fit() && !standing.in_rotation,
        since: standing.change.at,
        cause: standing.change.cause,
        detached,
        until: backend.detachment.as_ref().map(|detachment| detachment.until),
        returned: ended(Ending::TimeUp),
        recalled: ended(Ending::Recalled),
        down: backend.health.health() == Health::Down,
        unreachable: backend.route.value.is_err(),
        ejected: backend.is_ejected(),
        failing: backend.failing().filter(|_| standing.in_rotation),
        failed: backend.failed_within(TURN, now),
    }
}
