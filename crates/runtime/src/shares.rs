//! Shares: who is next, where several parties want more of something than there is.
//!
//! Start-time fair queueing (Goyal, Vin and Cheng, 1996). Each party has a clock that what it uses moves on, the slower
//! the more weight it has; whose clock is furthest behind comes next. So parties that always want more get it in
//! proportion to their weights, whatever a single use costs. What nobody else wants goes to whoever wants it. A party
//! that was away does not save up: when it comes back its clock is set to that of whoever began last. So it is served at
//! once, but cannot hold up others for what it did not use before.
//!
//! What a use costs is known at its end. Until then it counts as its party's mean, so that one who begins much at once
//! does not look as if it had used nothing.

/// The largest weight.
pub const MAX_WEIGHT: u32 = 1_000;

/// A clock moves by so many units for each unit of cost, divided by the weight: enough to lose nothing by rounding.
const SCALE: u128 = 1 << 32;
/// The mean follows the last cost by one part in so many.
const FOLLOW: u64 = 8;

/// The parties, by number, and what each has used.
#[derive(Clone, Debug)]
pub struct Shares {
    /// The clock of whoever began last, as it was then.
    now: u128,
    begun: u64,
    parties: Vec<Party>,
}

#[derive(Clone, Debug)]
struct Party {
    weight: u32,
    clock: u128,
    /// When it began last, in uses of all.
    last: u64,
    mean: u64,
}

/// A use that has begun, to be ended with [`Shares::end`].
#[derive(Debug)]
#[must_use = "a use that never ends is never paid"]
pub struct Turn {
    party: usize,
    paid: u128,
}

impl Turn {
    /// Whose turn it is.
    pub fn party(&self) -> usize {
        self.party
    }
}

impl Shares {
    /// Parties with these weights, each from 1 to [`MAX_WEIGHT`].
    pub fn new(weights: impl IntoIterator<Item = u32>) -> Self {
        let party = |weight: u32| Party { weight: weight.clamp(1, MAX_WEIGHT), clock: 0, last: 0, mean: 1 };
        Self { now: 0, begun: 0, parties: weights.into_iter().map(party).collect() }
    }

    /// How many parties there are.
    pub fn len(&self) -> usize {
        self.parties.len()
    }

    /// There is no party.
    pub fn is_empty(&self) -> bool {
        self.parties.is_empty()
    }

    /// The party wants something after it wanted nothing and had nothing.
    pub fn come_back(&mut self, party: usize) {
        let of = &mut self.parties[party];
        of.clock = of.clock.max(self.now);
    }

    /// Places a party among others: whose place is lowest comes next. Of those that are even, it is the one that has
    /// waited longest.
    pub fn place(&self, party: usize) -> (u128, u64) {
        let of = &self.parties[party];
        (of.clock, of.last)
    }

    /// Who of `waiting` comes next.
    pub fn next(&self, waiting: impl IntoIterator<Item = usize>) -> Option<usize> {
        waiting.into_iter().min_by_key(|party| self.place(*party))
    }

    /// The party begins to use something.
    pub fn begin(&mut self, party: usize) -> Turn {
        self.begun += 1;
        let of = &mut self.parties[party];
        self.now = self.now.max(of.clock);
        let paid = of.price(of.mean);
        of.clock = of.clock.saturating_add(paid);
        of.last = self.begun;
        Turn { party, paid }
    }

    /// It has ended, and `cost` so much.
    pub fn end(&mut self, turn: Turn, cost: u64) {
        let of = &mut self.parties[turn.party];
        of.clock = of.clock.saturating_add(of.price(cost)).saturating_sub(turn.paid);
        of.mean = (of.mean.saturating_mul(FOLLOW - 1).saturating_add(cost) / FOLLOW).max(1);
    }
}

impl Party {
    fn price(&self, cost: u64) -> u128 {
        u128::from(cost) * SCALE / u128::from(self.weight)
    }
}

#[cfg(test)]
mod tests;
