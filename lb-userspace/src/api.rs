//! The control API: HTTP and JSON over a Unix socket that only its owner can open.
//!
//! | method and path | body | answer |
//! |---|---|---|
//! | GET /v1/status | | [`StatusDocument`] |
//! | GET /v1/status/{service} | | [`StatusDocument`] of one service |
//! | GET /v1/services/{service}/backends | | [`BackendsDocument`] |
//! | POST /v1/services/{service}/backends | [`NewBackend`] | 201 and [`BackendDocument`] |
//! | GET /v1/services/{service}/backends/{backend} | | [`BackendDocument`] |
//! | PATCH /v1/services/{service}/backends/{backend} | [`BackendPatch`] | [`BackendDocument`] |
//! | DELETE /v1/services/{service}/backends/{backend}?force=true | | [`BackendsDocument`] of those left |
//! | GET /v1/services, /v1/services/{service} | | [`StatusDocument`] |
//! | POST /v1/services | [`NewService`] | 201 and [`StatusDocument`] of the service |
//! | PATCH /v1/services/{service} | an object: keys as in the file; null restores a default | [`StatusDocument`] of the service |
//! | DELETE /v1/services/{service}?force=true | | [`StatusDocument`] of those left |
//! | GET /v1/health | | [`HealthDocument`] |
//! | POST /v1/services/{service}/backends/{backend}/check | | [`CheckDocument`], after one check that counts for nothing |
//! | GET /v1/alarms | | [`AlarmsDocument`] |
//! | POST /v1/alarms/silences | [`NewSilence`] | [`AlarmsDocument`] |
//! | POST /v1/alarms/test | [`AlarmTest`] | [`AlarmTestDocument`] |
//! | PUT /v1/xdp/log | [`PacketLog`] | [`PacketLogDocument`] |
//! | GET /v1/config | | [`ConfigDocument`] |
//! | GET /v1/config/diff | | [`DriftDocument`] |
//! | POST /v1/config/reload?discard=true | | [`ReloadDocument`] |
//! | GET /v1/events?after=N&since=TIME&service=S&backend=B&wait=SECONDS | | [`EventsDocument`] |
//!
//! Whatever goes wrong is answered with an [`ErrorDocument`].
//!
//! [`StatusDocument`]: types::StatusDocument
//! [`BackendsDocument`]: types::BackendsDocument
//! [`BackendDocument`]: types::BackendDocument
//! [`NewBackend`]: types::NewBackend
//! [`BackendPatch`]: types::BackendPatch
//! [`HealthDocument`]: types::HealthDocument
//! [`CheckDocument`]: types::CheckDocument
//! [`NewService`]: types::NewService
//! [`AlarmsDocument`]: types::AlarmsDocument
//! [`NewSilence`]: types::NewSilence
//! [`AlarmTest`]: types::AlarmTest
//! [`AlarmTestDocument`]: types::AlarmTestDocument
//! [`PacketLog`]: types::PacketLog
//! [`PacketLogDocument`]: types::PacketLogDocument
//! [`ConfigDocument`]: types::ConfigDocument
//! [`DriftDocument`]: types::DriftDocument
//! [`ReloadDocument`]: types::ReloadDocument
//! [`EventsDocument`]: types::EventsDocument
//! [`ErrorDocument`]: types::ErrorDocument

mod alarms;
mod body;
mod config;
mod events;
mod health;
mod routes;
mod services;
mod socket;
pub mod types;

pub use routes::serve;
pub use socket::{Error as SocketError, Socket};
