//! Ctrl-C, SIGTERM and SIGHUP take the lab down before they end the process.

use std::{sync::Once, thread};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
    low_level::emulate_default_handler,
};

use crate::identity;

/// From here on, these signals remove the labs of this process. Call it where nobody else wants to see the signals.
pub(crate) fn remove_labs_on_signal() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let Ok(mut signals) = Signals::new([SIGHUP, SIGINT, SIGTERM]) else { return };
        thread::spawn(move || {
            for signal in signals.forever() {
                identity::remove_live();
                // Does not return: it ends the process as the signal would have.
                let _ = emulate_default_handler(signal);
            }
        });
    });
}
