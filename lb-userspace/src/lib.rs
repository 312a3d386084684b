//! The controller, the control API and the command line of `lb`.

pub mod dataplane;
pub mod plan;
