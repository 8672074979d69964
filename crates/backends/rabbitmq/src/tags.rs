//! Which deliveries of a channel have a verdict, and how the broker is told in few words.
//!
//! A channel numbers its deliveries 1, 2, 3, ... One `basic.ack` can settle all up to a number, which is several times
//! cheaper than one each, but only if each of them has that verdict. So acknowledgements at the front of what is held go
//! out together; those behind one that is still being worked on wait a little for it, and then go out one by one.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long an acknowledged delivery waits for those before it.
pub(crate) const PATIENCE: Duration = Duration::from_millis(20);

/// Something to tell the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// This one is done.
    Ack(u64),
    /// This one, and every one before it that the broker still holds for us, is done.
    AckUpTo(u64),
    /// This one is to be delivered again.
    Release(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    /// Without verdict.
    Held,
    /// Acknowledged then; the broker does not know yet.
    Done(Instant),
    /// The broker was told, or is told next.
    Told,
}

/// The deliveries of one channel from the first that the broker was told nothing about.
#[derive(Debug)]
pub(crate) struct Tags {
    first: u64,
    slots: VecDeque<Slot>,
    held: usize,
    done: usize,
    releases: Vec<u64>,
    /// So many acknowledgements are worth telling at once.
    batch: usize,
}

impl Tags {
    pub(crate) fn new(batch: usize) -> Self {
        Self { first: 1, slots: VecDeque::new(), held: 0, done: 0, releases: Vec::new(), batch: batch.max(1) }
    }

    /// A delivery has come.
    pub(crate) fn deliver(&mut self, tag: u64) {
        // Numbers come without gaps. Should one be missing after all, it stays held: nobody acknowledged it.
        while self.first + (self.slots.len() as u64) < tag {
            self.slots.push_back(Slot::Held);
        }
        self.slots.push_back(Slot::Held);
        self.held += 1;
    }

    /// It is done.
    pub(crate) fn ack(&mut self, tag: u64, now: Instant) {
        if self.settle(tag, Slot::Done(now)) {
            self.done += 1;
        }
    }

    /// It is to come again.
    pub(crate) fn release(&mut self, tag: u64) {
        if self.settle(tag, Slot::Told) {
            self.releases.push(tag);
        }
    }

    fn settle(&mut self, tag: u64, verdict: Slot) -> bool {
        let slot = tag.checked_sub(self.first).and_then(|at| self.slots.get_mut(usize::try_from(at).ok()?));
        match slot {
            Some(slot @ Slot::Held) => {
                *slot = verdict;
                self.held -= 1;
                true
            }
            _ => false,
        }
    }

    /// There is something to tell.
    pub(crate) fn is_pending(&self) -> bool {
        self.done > 0 || !self.releases.is_empty()
    }

    /// It should be told at once: somebody waits for what is given back, enough has come together, or nothing is left
    /// that could come to it.
    pub(crate) fn is_urgent(&self) -> bool {
        !self.releases.is_empty() || self.done >= self.batch || (self.done > 0 && self.held == 0)
    }

    /// What to tell now. With `all`, everything; else acknowledgements behind a delivery without verdict only if they
    /// have waited long enough, or are many.
    pub(crate) fn take(&mut self, now: Instant, all: bool) -> Vec<Verdict> {
        let mut verdicts: Vec<Verdict> = self.releases.drain(..).map(Verdict::Release).collect();
        let (mut last, mut count) = (None, 0);
        while let Some(slot) = self.slots.front().filter(|slot| **slot != Slot::Held) {
            if matches!(slot, Slot::Done(_)) {
                (last, count) = (Some(self.first), count + 1);
            }
            self.slots.pop_front();
            self.first += 1;
        }
        self.done -= count;
        // It has to be a delivery that the broker still holds; in between may be some that it does not.
        verdicts.extend(last.map(|tag| if count > 1 { Verdict::AckUpTo(tag) } else { Verdict::Ack(tag) }));
        if self.done > 0 {
            let many = self.done >= self.batch;
            for (at, slot) in self.slots.iter_mut().enumerate() {
                if let Slot::Done(since) = *slot
                    && (all || many || now.saturating_duration_since(since) >= PATIENCE)
                {
                    *slot = Slot::Told;
                    self.done -= 1;
                    verdicts.push(Verdict::Ack(self.first + at as u64));
                }
            }
        }
        verdicts
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// A broker's side of a channel: what it holds for us, and what it was told.
    #[derive(Default)]
    struct Broker {
        held: BTreeMap<u64, ()>,
        acked: Vec<u64>,
        released: Vec<u64>,
    }

    impl Broker {
        fn told(&mut self, verdict: Verdict) {
            let (Verdict::Ack(tag) | Verdict::AckUpTo(tag) | Verdict::Release(tag)) = verdict;
            assert!(self.held.contains_key(&tag), "an unknown number ends the channel: {verdict:?}");
            let up_to: Vec<u64> = self.held.range(..=tag).map(|(t, ())| *t).collect();
            match verdict {
                Verdict::Ack(_) => self.acked.push(tag),
                Verdict::AckUpTo(_) => {
                    up_to.iter().for_each(|t| assert!(self.held.remove(t).is_some()));
                    self.acked.extend(up_to);
                }
                Verdict::Release(_) => self.released.push(tag),
            }
            self.held.remove(&tag);
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Deliver,
        Ack(prop::sample::Index),
        Release(prop::sample::Index),
        Wait(u64),
        Take(bool),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => Just(Step::Deliver),
            3 => any::<prop::sample::Index>().prop_map(Step::Ack),
            1 => any::<prop::sample::Index>().prop_map(Step::Release),
            1 => (0_u64..30).prop_map(Step::Wait),
            2 => any::<bool>().prop_map(Step::Take),
        ]
    }

    proptest! {
        #[test]
        fn each_verdict_reaches_the_broker_once_and_as_it_was(steps in prop::collection::vec(step(), 0..200), batch in 1_usize..20) {
            let (mut tags, mut broker) = (Tags::new(batch), Broker::default());
            let (mut acked, mut released) = (Vec::new(), Vec::new());
            let mut now = Instant::now();
            let mut next = 1_u64;
            for step in steps {
                let any = |index: prop::sample::Index| (next > 1).then(|| index.index(next as usize - 1) as u64 + 1);
                match step {
                    Step::Deliver => {
                        tags.deliver(next);
                        broker.held.insert(next, ());
                        next += 1;
                    }
                    Step::Ack(index) => if let Some(tag) = any(index) {
                        if !acked.contains(&tag) && !released.contains(&tag) { acked.push(tag); }
                        tags.ack(tag, now);
                    },
                    Step::Release(index) => if let Some(tag) = any(index) {
                        if !acked.contains(&tag) && !released.contains(&tag) { released.push(tag); }
                        tags.release(tag);
                    },
                    Step::Wait(milliseconds) => now += Duration::from_millis(milliseconds),
                    Step::Take(all) => tags.take(now, all).into_iter().for_each(|v| broker.told(v)),
                }
            }
            tags.take(now, true).into_iter().for_each(|v| broker.told(v));
            prop_assert!(!tags.is_pending() && !tags.is_urgent());
            for list in [&mut acked, &mut released, &mut broker.acked, &mut broker.released] {
                list.sort_unstable();
            }
            prop_assert_eq!(acked, broker.acked);
            prop_assert_eq!(released, broker.released);
        }
    }

    #[test]
    fn neighbours_go_together_and_a_slow_one_keeps_nobody_for_long() {
        let now = Instant::now();
        let mut tags = Tags::new(10);
        (1..=9).for_each(|tag| tags.deliver(tag));
        (1..=3).for_each(|tag| tags.ack(tag, now));
        assert_eq!(tags.take(now, false), [Verdict::AckUpTo(3)]);
        [5, 6, 8].into_iter().for_each(|tag| tags.ack(tag, now));
        assert!(tags.is_pending() && !tags.is_urgent());
        assert_eq!(tags.take(now, false), [], "4 may be done in a moment");
        assert_eq!(tags.take(now + PATIENCE, false), [5, 6, 8].map(Verdict::Ack));
        tags.ack(4, now);
        assert_eq!(tags.take(now, false), [Verdict::Ack(4)], "5 and 6 were told already");
        tags.release(7);
        assert!(tags.is_urgent());
        tags.ack(9, now);
        assert_eq!(tags.take(now, false), [Verdict::Release(7), Verdict::Ack(9)]);
    }
}
