//! What the daemon may do: it keeps the capabilities that it needs and gives up all others before it does anything.
//!
//! CAP_NET_ADMIN attaches XDP, CAP_BPF makes maps and loads programs, CAP_PERFMON lets a program compare packet pointers.
//! CAP_SYS_ADMIN stands for the last two where it is all there is.

use std::io;

use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_no_new_privs};

const NEEDED: CapabilitySet = CapabilitySet::NET_ADMIN.union(CapabilitySet::BPF).union(CapabilitySet::PERFMON);
const INSTEAD: CapabilitySet = CapabilitySet::NET_ADMIN.union(CapabilitySet::SYS_ADMIN);

/// Whether this process may load and attach an XDP program.
///
/// # Errors
/// When the kernel does not tell.
pub fn suffice() -> io::Result<bool> {
    Ok(kept_of(capabilities(None)?.effective).is_some())
}

/// Gives up what is not needed, for this thread and those that it starts, for good.
///
/// # Errors
/// When the kernel refuses.
pub fn reduce() -> io::Result<()> {
    let held = capabilities(None)?;
    let kept = kept_of(held.effective).unwrap_or(CapabilitySet::empty());
    set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() })?;
    Ok(set_no_new_privs(true)?)
}

/// Those to keep of those held; nothing when they do not suffice.
fn kept_of(held: CapabilitySet) -> Option<CapabilitySet> {
    [NEEDED, INSTEAD].into_iter().find(|needed| held.contains(*needed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_needed_is_kept() {
        let all = CapabilitySet::all();
        assert_eq!(kept_of(all), Some(NEEDED));
        assert_eq!(kept_of(INSTEAD), Some(INSTEAD));
        assert_eq!(kept_of(NEEDED.difference(CapabilitySet::PERFMON)), None);
        assert_eq!(kept_of(all.difference(CapabilitySet::NET_ADMIN)), None);
    }
}
