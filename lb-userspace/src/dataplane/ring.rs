//! The order in which a service's backends stand in the ring space.

use lb_common::hash;

/// A backend that takes new flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// Its index in the backend map.
    pub index: u32,
    /// At least 1.
    pub weight: u16,
    /// Stands for its address, on every node alike.
    pub identity: u64,
}

/// Slots of a Maglev ring: a prime over a hundred times the backends expected (Maglev, NSDI 2016, section 5.3).
pub(crate) const MAGLEV_SLOTS: u32 = 65_537;

/// Turns: each backend as often as its weight, spread evenly.
pub(crate) fn round_robin(members: &[Member]) -> Vec<u32> {
    let divisor = members.iter().fold(0, |divisor, member| gcd(divisor, member.weight)).max(1);
    let mut turns: Vec<(f64, u32)> = members
        .iter()
        .flat_map(|member| {
            let weight = member.weight / divisor;
            (0..weight).map(move |turn| ((f64::from(turn) + 0.5) / f64::from(weight), member.index))
        })
        .collect();
    turns.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    turns.into_iter().map(|(_, index)| index).collect()
}

fn gcd(a: u16, b: u16) -> u16 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// A Maglev ring of `slots` (a prime): backends take turns, heavier ones more often, to take the next free slot of their
/// own permutation (NSDI 2016, section 3.4). Which slots a backend prefers follows from its identity alone.
pub(crate) fn maglev(members: &[Member], slots: u32) -> Vec<u32> {
    const FREE: u32 = u32::MAX;
    let heaviest = members.iter().map(|member| u32::from(member.weight)).max().unwrap_or(0);
    let mut ring = vec![FREE; slots as usize];
    let mut taken = 0;
    let mut order: Vec<&Member> = members.iter().collect();
    order.sort_by_key(|member| (member.identity, member.index));
    let mut walks: Vec<Walk> = order.iter().map(|member| Walk::new(member.identity, slots)).collect();
    let mut credit = vec![0; order.len()];
    while taken < slots && heaviest > 0 {
        for ((member, walk), credit) in order.iter().zip(&mut walks).zip(&mut credit) {
            *credit += u32::from(member.weight);
            if *credit < heaviest {
                continue;
            }
            *credit -= heaviest;
            let slot = loop {
                let slot = walk.next(slots);
                if ring[slot as usize] == FREE {
                    break slot;
                }
            };
            ring[slot as usize] = member.index;
            taken += 1;
            if taken == slots {
                break;
            }
        }
    }
    if taken == 0 { Vec::new() } else { ring }
}

/// A backend's permutation of the slots: `offset + i * skip`.
struct Walk {
    next: u32,
    skip: u32,
}

impl Walk {
    fn new(identity: u64, slots: u32) -> Self {
        Self { next: hash::scale(identity, slots), skip: 1 + hash::scale(identity << 32, slots - 1) }
    }

    fn next(&mut self, slots: u32) -> u32 {
        let slot = self.next;
        self.next += self.skip;
        if self.next >= slots {
            self.next -= slots;
        }
        slot
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn members(weights: &[u16]) -> Vec<Member> {
        let member = |(index, &weight): (usize, &u16)| Member {
            index: index as u32,
            weight,
            identity: hash::nh(&hash::PUBLIC_KEY, [index as u64, 7], 80),
        };
        weights.iter().enumerate().filter(|(_, weight)| **weight > 0).map(member).collect()
    }

    fn count(ring: &[u32]) -> HashMap<u32, usize> {
        ring.iter().fold(HashMap::new(), |mut counts, &index| {
            *counts.entry(index).or_default() += 1;
            counts
        })
    }

    #[test]
    fn turns_are_spread() {
        let check = |weights: &[u16], expected: &[u32]| assert_eq!(round_robin(&members(weights)), expected);
        check(&[], &[]);
        check(&[1], &[0]);
        check(&[1, 1], &[0, 1]);
        check(&[3, 1], &[0, 0, 1, 0]);
        check(&[100, 200], &[1, 0, 1]);
        check(&[0, 5], &[1]);
    }

    proptest! {
        #[test]
        fn any_window_of_the_ring_gives_each_its_weight(weights in prop::collection::vec(1u16..=256, 1..20), start: usize) {
            let members = members(&weights);
            let ring = round_robin(&members);
            let divisor = weights.iter().copied().fold(0, gcd);
            let start = start % ring.len();
            let window: Vec<u32> = ring.iter().cycle().skip(start).take(ring.len()).copied().collect();
            for (index, count) in count(&window) {
                prop_assert_eq!(count, usize::from(weights[index as usize] / divisor));
            }
        }

        #[test]
        fn maglev_shares_follow_the_weights(weights in prop::collection::vec(1u16..=10, 1..30)) {
            let ring = maglev(&members(&weights), MAGLEV_SLOTS);
            let total: u32 = weights.iter().copied().map(u32::from).sum();
            for (index, count) in count(&ring) {
                let fair = f64::from(MAGLEV_SLOTS) * f64::from(weights[index as usize]) / f64::from(total);
                prop_assert!((count as f64 - fair).abs() <= fair * 0.02 + 2.0, "{} of {}", count, fair);
            }
        }

        #[test]
        fn a_new_backend_moves_few_slots_but_its_own(backends in 2usize..50) {
            let before = maglev(&members(&vec![1; backends]), MAGLEV_SLOTS);
            let after = maglev(&members(&vec![1; backends + 1]), MAGLEV_SLOTS);
            let newcomer = backends as u32;
            let moved = before.iter().zip(&after).filter(|(old, new)| old != new && **new != newcomer).count();
            prop_assert!(moved <= MAGLEV_SLOTS as usize * 6 / 100, "{} slots moved between old backends", moved);
        }
    }
}
