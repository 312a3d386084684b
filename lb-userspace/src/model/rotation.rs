//! Which backends of a service take new flows: those that are fit, backups only while no other is.

use super::{Admin, Backend, Change, Service, Standing, Verdict};
use crate::{config::Fail, health::Health};

impl Service {
    /// How many backends take new flows.
    pub fn in_rotation(&self) -> usize {
        let stand_by = self.primary_serves();
        self.backends.iter().filter(|backend| backend.serves(stand_by)).count()
    }

    /// How many are to serve: backups that stand by are not.
    pub fn total(&self) -> usize {
        let stand_by = self.primary_serves();
        self.backends.iter().filter(|backend| !backend.stands_by(stand_by)).count()
    }

    /// In a word.
    pub fn verdict(&self) -> Verdict {
        match self.in_rotation() {
            0 => Verdict::Down,
            all if all == self.total() && all >= self.spec.min_healthy => Verdict::Ok,
            _ => Verdict::Degraded,
        }
    }

    /// "1 of 2 serve".
    pub fn count(&self) -> String {
        format!("{} of {} serve", self.in_rotation(), self.total())
    }

    /// Whether none is in rotation and so all get traffic.
    pub fn fails_open(&self) -> bool {
        let open = self.spec.fail == Fail::Open && self.in_rotation() == 0 && !self.is_last_resort();
        open && self.backends.iter().any(Backend::is_reachable)
    }

    /// Whether a backend takes new flows, since when and why.
    pub fn standing(&self, backend: &Backend) -> Standing {
        let fitness = backend.fitness();
        if !fitness.in_rotation || !backend.backup {
            return fitness;
        }
        let primaries = self.backends.iter().filter(|other| !other.backup).map(Backend::fitness);
        let (serving, out): (Vec<_>, Vec<_>) = primaries.partition(|standing| standing.in_rotation);
        // With the first that came the backup stood by, with the last that left it serves.
        let first = serving.into_iter().map(|standing| standing.change).min_by_key(|change| change.at);
        let last = out.into_iter().map(|standing| standing.change).max_by_key(|change| change.at);
        let (in_rotation, change, cause) = match first {
            Some(change) => (false, change, "backup: stands by while others serve"),
            None => (true, last.unwrap_or(fitness.change.clone()), "backup: no other serves"),
        };
        let at = change.at.max(fitness.change.at);
        Standing { in_rotation, change: Change { at, cause: cause.into(), ..change } }
    }

    /// What keeps a backend out of rotation, in a word: of several causes the one that an operator must undo first. Nothing
    /// for a backup that stands by.
    pub fn obstacle(&self, backend: &Backend) -> Option<&'static str> {
        if backend.is_fit() {
            return None;
        }
        match backend.health.health() {
            _ if backend.admin.value != Admin::Enabled => Some(backend.admin.value.word()),
            _ if backend.weight.value == 0 => Some("weight"),
            _ if backend.route.value.is_err() => Some("unreachable"),
            health @ (Health::Down | Health::Unknown) => Some(health.word()),
            Health::Up if backend.is_ejected() => Some("ejected"),
            Health::Up => Some("agent"),
        }
    }

    /// Whether one that is no backup takes new flows; then backups do not.
    pub(super) fn primary_serves(&self) -> bool {
        self.backends.iter().any(|backend| !backend.backup && backend.is_fit())
    }
}

#[cfg(test)]
mod tests;
