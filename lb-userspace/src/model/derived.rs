//! What follows from a model, kept for the services that stay the same: a change of one backend among 100,000 is
//! thought through for its service alone.
//!
//! A service that changes becomes another value at another place: [`Arc::make_mut`] leaves the place that something
//! weakly refers to. So whatever is the same place still is the same value, and nobody has to say what has changed.

use std::sync::{Arc, Weak};

use jiff::Timestamp;

use super::{Model, Overrides, Service, overrides::Changes};
use crate::plan::{Plan, ServicePlan};

/// The plan and the overrides of the last model seen.
#[derive(Debug, Default)]
pub struct Derived {
    plans: Memo<Draft>,
    changes: Memo<Arc<Changes>>,
}

/// A plan, and whether time alone makes it another one.
#[derive(Clone, Debug)]
struct Draft {
    plan: Arc<ServicePlan>,
    growing: bool,
}

impl Derived {
    /// As [`Model::plan`].
    pub fn plan(&mut self, model: &Model, now: Timestamp) -> Plan {
        let draft = |service: &Service| Draft { plan: Arc::new(service.plan(now)), growing: service.is_growing() };
        let drafts = self.plans.follow(model, |draft| !draft.growing, draft);
        Plan { services: drafts.map(|draft| Arc::clone(&draft.plan)).collect() }
    }

    /// As [`Model::overrides`].
    pub fn overrides(&mut self, model: &Model) -> Overrides {
        let changes = self.changes.follow(model, |_| true, |service| Arc::new(service.run_time_changes()));
        model.overrides_of(model.services.keys().zip(changes.map(|changes| &**changes)))
    }
}

/// A value for each service, in the order of the services.
#[derive(Debug)]
struct Memo<T>(Vec<(Weak<Service>, T)>);

impl<T> Default for Memo<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Memo<T> {
    /// The values of the services of a model: those known, where `lasts` says so, and those computed anew.
    fn follow(
        &mut self,
        model: &Model,
        lasts: impl Fn(&T) -> bool,
        compute: impl Fn(&Service) -> T,
    ) -> impl Iterator<Item = &T> {
        let mut known = std::mem::take(&mut self.0).into_iter().peekable();
        self.0.reserve(model.services.len());
        for service in model.services.values() {
            let is_it = |(place, _): &(Weak<Service>, T)| std::ptr::eq(place.as_ptr(), Arc::as_ptr(service));
            // Those that are gone: both are in the order of names.
            while known.next_if(|entry| !is_it(entry) && is_before(entry, service)).is_some() {}
            let value = known.next_if(is_it).map(|(_, value)| value).filter(&lasts);
            self.0.push((Arc::downgrade(service), value.unwrap_or_else(|| compute(service))));
        }
        self.0.iter().map(|(_, value)| value)
    }
}

/// Whether a service that was known no longer is, or comes before another.
fn is_before<T>((place, _): &(Weak<Service>, T), service: &Service) -> bool {
    place.upgrade().is_none_or(|known| known.spec.name < service.spec.name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        config,
        model::tests::{admin, at, entry_of, routes, service, weight},
    };

    fn file(names: &[usize], weights: &[u16]) -> Vec<config::Service> {
        let service = |name: &usize| config::Service {
            name: format!("service-{name}"),
            listen: format!("203.0.113.{name}:80").parse().unwrap(),
            slow_start: (*name == 1).then_some(std::time::Duration::from_secs(10)),
            ..service(weights)
        };
        names.iter().map(service).collect()
    }

    #[test]
    fn a_service_that_stays_the_same_keeps_its_plan() {
        let mut model = Model::new(&file(&[2, 3], &[1, 1]), &Overrides::default(), at(0));
        let mut derived = Derived::default();
        let before = derived.plan(&model, at(1));
        model.set("service-3", "a", &weight(7), "uid 0", at(1)).unwrap();
        let after = derived.plan(&model, at(2));
        assert!(Arc::ptr_eq(&before.services[0], &after.services[0]));
        assert!(!Arc::ptr_eq(&before.services[1], &after.services[1]));
    }

    proptest! {
        #[test]
        fn it_is_what_the_whole_model_says(steps in prop::collection::vec((0u8..8, 1usize..5, 0usize..3), 1..40)) {
            let names = [1, 2, 3, 4];
            let mut model = Model::new(&file(&names, &[1, 2, 3]), &Overrides::default(), at(0));
            let mut derived = Derived::default();
            let mut now = 0;
            for (step, name, index) in steps {
                now += 1;
                let (service, backend) = (format!("service-{name}"), entry_of(index, 1).name);
                let before = model.clone();
                match step {
                    0 => drop(model.observe(&service, &backend, &Ok("connected".into()), at(now))),
                    1 => drop(model.observe(&service, &backend, &Err("refused".into()), at(now))),
                    2 => drop(model.resolve(&routes(&model), at(now))),
                    // A service may be gone by now.
                    3 => drop(model.set(&service, &backend, &weight(now as u16), "uid 0", at(now))),
                    4 => drop(model.set(&service, &backend, &admin(crate::model::Admin::Draining), "uid 0", at(now))),
                    5 => drop(model.remove_service(&service, true)),
                    6 => model = model.reload(&file(&names[..name], &[1, 2, 3]), at(now)),
                    _ => drop(model.tick(at(now))),
                }
                model.start_slowly_since(&before, at(now));
                prop_assert_eq!(derived.plan(&model, at(now)), model.plan(at(now)));
                prop_assert_eq!(derived.overrides(&model), model.overrides());
            }
        }
    }
}
