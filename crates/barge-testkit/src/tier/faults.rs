//! What goes wrong with a cache.

use std::fmt;
use std::time::Duration;

use super::State;
use crate::fault::SplitMix;

/// What goes wrong, each with a chance in a thousand: of calls, or of keys where it says so. Defaults to nothing.
///
/// `Display` prints it with its seed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TierFaults {
    /// From which all chances are drawn.
    pub seed: u64,
    /// The call fails and does nothing.
    pub fail: u16,
    /// The call does what it should and says that it failed.
    pub fail_after: u16,
    /// The call says that it failed, and does what it should up to `delay` later.
    pub late: u16,
    /// The call takes up to `delay` longer, before and after it does what it should.
    pub slow: u16,
    /// The call does nothing and is never answered: the caller has to give up.
    pub hang: u16,
    /// The call succeeds, and what it was to do for a key is not done; a lease is granted and not kept. Of keys.
    pub lose: u16,
    /// What is set expires before its time. Of keys.
    pub expire_early: u16,
    /// One value, lease or bar is forgotten before the call.
    pub evict: u16,
    /// The longest that anything is delayed.
    pub delay: Duration,
}

/// The longest that anything is kept: no clock counts further.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// What becomes of a call.
pub(super) enum Fate {
    Spared,
    Fail,
    FailAfter,
    Late(Duration),
    /// How long before its effect, and how long behind it.
    Slow(Duration, Duration),
    Hang,
}

impl TierFaults {
    /// Some of all faults, each seldom, with delays of up to half a second. One seed always means the same.
    pub fn from_seed(seed: u64) -> Self {
        let mut random = SplitMix(seed);
        // Many caches have but some of the faults, so that each is also met alone.
        let mut chance = |most: u64| match random.below(2) {
            0 => 0,
            _ => random.below(most + 1) as u16,
        };
        TierFaults {
            seed,
            fail: chance(200),
            fail_after: chance(150),
            late: chance(150),
            slow: chance(300),
            hang: chance(50),
            lose: chance(150),
            expire_early: chance(200),
            evict: chance(300),
            delay: Duration::from_millis(1 + random.below(500)),
        }
    }

    /// The same without calls that are never answered, for callers that have no limit of their own.
    #[must_use]
    pub fn answering(mut self) -> Self {
        self.hang = 0;
        self
    }
}

impl fmt::Display for TierFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cache fault seed {}", self.seed)?;
        let mut separator = ": ";
        for (name, chance) in [
            ("fail", self.fail),
            ("fail after", self.fail_after),
            ("late", self.late),
            ("slow", self.slow),
            ("hang", self.hang),
            ("lose", self.lose),
            ("expire early", self.expire_early),
            ("evict", self.evict),
        ] {
            if chance > 0 {
                write!(f, "{separator}{name} {chance}")?;
                separator = ", ";
            }
        }
        write!(f, "{separator}delays up to {:?}", self.delay)
    }
}

impl State {
    /// Draws what becomes of a call.
    pub(super) fn fate(&mut self) -> Fate {
        match () {
            () if self.strikes(self.faults.hang) => Fate::Hang,
            () if self.strikes(self.faults.fail) => Fate::Fail,
            () if self.strikes(self.faults.fail_after) => Fate::FailAfter,
            () if self.strikes(self.faults.late) => Fate::Late(self.some_delay()),
            () if self.strikes(self.faults.slow) => {
                let whole = self.some_delay();
                let before = self.part_of(whole);
                Fate::Slow(before, whole - before)
            }
            () => Fate::Spared,
        }
    }

    /// Draws whether what is done for a key is lost.
    pub(super) fn loses(&mut self) -> bool {
        self.strikes(self.faults.lose)
    }

    /// Draws for how long something is kept that should be kept for a time.
    pub(super) fn lifetime(&mut self, time: Duration) -> Duration {
        let time = time.min(LONGEST);
        if self.strikes(self.faults.expire_early) { self.part_of(time) } else { time }
    }

    pub(super) fn evict_some(&mut self) {
        if self.strikes(self.faults.evict) {
            let number = self.random.below(u64::MAX);
            self.contents.evict_nth(number);
        }
    }

    fn some_delay(&mut self) -> Duration {
        self.part_of(self.faults.delay)
    }

    /// A random time up to another.
    fn part_of(&mut self, time: Duration) -> Duration {
        let microseconds = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.random.below(microseconds.saturating_add(1).max(1)))
    }

    fn strikes(&mut self, chance: u16) -> bool {
        chance > 0 && self.random.below(1_000) < u64::from(chance)
    }
}
