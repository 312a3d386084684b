//! How often something bad happened, and what that is evidence for.

/// How many standard errors a bound is away from what was seen: one time in forty it is wrong.
const Z: f64 = 2.0;

/// Something bad in so many of so many cases.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Proportion {
    pub(super) bad: f64,
    pub(super) of: f64,
    /// What is taken off first, as it may be chance that the proportion itself does not show.
    pub(super) margin: f64,
}

impl Proportion {
    pub(super) fn new(bad: u64, of: u64) -> Self {
        Self { bad: bad.min(of) as f64, of: of as f64, margin: 0.0 }
    }

    /// What was seen; nothing of nothing is none.
    pub(super) fn share(self) -> f64 {
        if self.of > 0.0 { self.bad / self.of } else { 0.0 }
    }

    /// The bad cases that are not within the margin.
    pub(super) fn beyond_margin(self) -> f64 {
        (self.bad - self.margin).max(0.0)
    }

    /// What there is at least, so that a few cases condemn nobody.
    pub(super) fn at_least(self) -> f64 {
        let bad = self.beyond_margin();
        if bad == 0.0 { 0.0 } else { self.bounds(bad).0 }
    }

    /// What there is at most: of nothing that may be all.
    pub(super) fn at_most(self) -> f64 {
        if self.of > 0.0 { self.bounds(self.bad).1 } else { 1.0 }
    }

    /// Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927).
    fn bounds(self, bad: f64) -> (f64, f64) {
        let (n, z2) = (self.of, Z * Z);
        let share = bad / n;
        let centre = share + z2 / (2.0 * n);
        let width = Z * (share * (1.0 - share) / n + z2 / (4.0 * n * n)).sqrt();
        let whole = 1.0 + z2 / n;
        (((centre - width) / whole).max(0.0), ((centre + width) / whole).min(1.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn few_cases_are_little_evidence() {
        for (bad, of, least, most) in [
            (0, 0, 0.0, 1.0),
            (1, 1, 0.2, 1.0),
            (3, 3, 0.429, 1.0),
            (3, 10, 0.106, 0.609),
            (30, 100, 0.217, 0.398),
            (300, 1000, 0.272, 0.330),
            (0, 1000, 0.0, 0.004),
        ] {
            let seen = Proportion::new(bad, of);
            assert!((seen.at_least() - least).abs() < 1e-3, "{bad} of {of}: {}", seen.at_least());
            assert!((seen.at_most() - most).abs() < 1e-3, "{bad} of {of}: {}", seen.at_most());
        }
    }

    proptest! {
        #[test]
        fn what_was_seen_is_within_its_bounds_and_more_cases_narrow_them(bad in 0u64..1000, good in 0u64..1000) {
            prop_assume!(bad + good > 0);
            let seen = Proportion::new(bad, bad + good);
            let more = Proportion::new(10 * bad, 10 * (bad + good));
            prop_assert!((0.0..=seen.share() + 1e-12).contains(&seen.at_least()));
            prop_assert!((seen.share() - 1e-12..=1.0).contains(&seen.at_most()));
            prop_assert!(more.at_least() >= seen.at_least() - 1e-12 && more.at_most() <= seen.at_most() + 1e-12);
            let doubtful = Proportion { margin: 1.0, ..seen };
            prop_assert!(doubtful.at_least() <= seen.at_least());
        }
    }
}
