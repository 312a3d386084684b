//! What the packet path learns by itself, and how long that is believed.
//!
//! A router on the way to a backend says what it lets through, and the packet path writes that into the backend's value, where
//! senders of larger packets are answered from it. The controller leaves it there for as long as hosts do (RFC 8201,
//! section 4: ten minutes), then tries again what the link lets through.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use lb_common::layout::Backend;

/// How long a learnt MTU is believed.
const BELIEVED: Duration = Duration::from_secs(600);

/// Since when backends have a learnt MTU, by their index.
#[derive(Debug, Default)]
pub(super) struct Learnt(HashMap<u32, Instant>);

impl Learnt {
    /// Notes what a reconciliation found at `now`: whether the backend's MTU is learnt. True where it is to be forgotten.
    pub(super) fn is_stale(&mut self, index: u32, learnt: bool, now: Instant) -> bool {
        if !learnt {
            self.0.remove(&index);
            return false;
        }
        let since = *self.0.entry(index).or_insert(now);
        let stale = now.duration_since(since) >= BELIEVED;
        if stale {
            self.0.remove(&index);
        }
        stale
    }
}

/// Whether the MTU that a backend has in the maps is one that the packet path learnt on the way that is planned.
pub(super) fn is_learnt(current: &Backend, planned: &Backend) -> bool {
    let same_way = current.address == planned.address && current.path == planned.path;
    same_way && current.mtu != 0 && (planned.mtu == 0 || current.mtu < planned.mtu)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_learnt_mtu_is_forgotten_after_ten_minutes() {
        let mut learnt = Learnt::default();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(!learnt.is_stale(7, true, start));
        assert!(!learnt.is_stale(7, true, after(599)));
        assert!(learnt.is_stale(7, true, after(600)));
        assert!(!learnt.is_stale(7, true, after(610)), "learnt once more");
        assert!(!learnt.is_stale(7, false, after(620)));
        assert!(!learnt.is_stale(7, true, after(1300)), "and once more");
    }

    #[test]
    fn a_smaller_mtu_is_learnt_only_on_the_same_way() {
        let planned = Backend { mtu: 1500, address: [1, 0], path: [2, 3], ..Backend::default() };
        let rows = [
            (Backend { mtu: 1400, ..planned }, true),
            (Backend { mtu: 1500, ..planned }, false),
            (Backend { mtu: 9000, ..planned }, false),
            (Backend { mtu: 0, ..planned }, false),
            (Backend { mtu: 1400, address: [9, 0], ..planned }, false),
            (Backend { mtu: 1400, path: [2, 4], ..planned }, false),
        ];
        for (current, expected) in rows {
            assert_eq!(is_learnt(&current, &planned), expected, "{current:?}");
        }
    }
}
