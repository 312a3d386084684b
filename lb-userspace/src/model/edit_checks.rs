//! Checks paused and resumed by an operator.

use jiff::Timestamp;

use super::{Backend, Change, Model, Rejection, Service, edit::check_reason, no_such_service};

impl Model {
    /// Pauses the checks of a backend, so that its health stays what it is, or resumes them.
    ///
    /// # Errors
    /// When there is no such backend, or it is not checked.
    pub fn pause(
        &mut self,
        service: &str,
        backend: &str,
        paused: bool,
        reason: Option<&str>,
        actor: &str,
        now: Timestamp,
    ) -> Result<(), Rejection> {
        check_reason(reason)?;
        let service = self.service_mut(service)?;
        let index = service.index(backend)?;
        if !service.is_checked() {
            let message = format!("the backends of service {} are not checked: type = \"none\"", service.spec.name);
            return Err(Rejection::Invalid(message));
        }
        let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        let change = Change::new(now, actor, format!("checks paused by {actor}{reason}"));
        service.backends[index].paused = paused.then_some(change);
        Ok(())
    }

    /// A backend with its service.
    ///
    /// # Errors
    /// When there is no such backend.
    pub fn find(&self, service: &str, backend: &str) -> Result<(&Service, &Backend), Rejection> {
        let Some(found) = self.services.get(service) else {
            let known: Vec<String> = self.services.keys().cloned().collect();
            return Err(no_such_service(service, &known));
        };
        let index = found.index(backend)?;
        Ok((found, &found.backends[index]))
    }
}
