//! The frame of an end-to-end test.

use std::{
    env,
    io::{self, Write},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    thread,
};

use anyhow::Result;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    interrupt::remove_labs_on_signal,
    topology::{Lab, Layout, is_root},
};

/// Makes a lab, runs the test in it, and shows the logs of its processes when it fails.
///
/// Without root the test is skipped by name; where `CI` or `LB_LAB` is set it fails instead, so that no run that should
/// have tested passes without.
///
/// # Panics
/// When the test fails.
pub fn test(layout: &Layout, body: impl FnOnce(&Lab) -> Result<()>) {
    if !is_root() {
        let name = thread::current().name().unwrap_or("a test").to_owned();
        assert!(!required(), "{name} needs root; run `cargo xtask test`");
        // Past the capture of the test runner, which keeps what a passing test prints.
        let _ = writeln!(io::stderr(), "skipped {name}: it needs root; run `cargo xtask test`");
        return;
    }
    remove_labs_on_signal();
    raise_file_limit();
    let lab = Lab::new(layout).unwrap_or_else(|error| panic!("cannot make the lab: {error:#}"));
    match catch_unwind(AssertUnwindSafe(|| body(&lab))) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => panic!("{error:#}\n{}", lab.logs()),
        Err(panic) => {
            println!("{}", lab.logs());
            resume_unwind(panic);
        }
    }
}

/// Thousands of connections are open at a time, here and in the servers, which inherit the limit.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    // What the limit allows is tried then.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// Whether a test that cannot run is a failure.
fn required() -> bool {
    env::var_os("CI").is_some() || env::var_os("LB_LAB").is_some()
}
