//! The supervisor's clock on a slot: which plugin runs on which item, and since when.

use std::fs::File;
use std::io::Read;
use std::time::{Duration, Instant};

use crate::job::{Limits, StopReason};
use crate::protocol::Hint;
use crate::protocol::request::Outgoing;

/// All plugins of an item together may take this many times what one may: plugins start again in every round, and a slot
/// that says so without end must not wind back its clock for ever.
const ITEM_FACTOR: u32 = 10;
/// Bytes of hints read at a time, and how often in a row: together as much as a pipe holds.
const HINTS: usize = 4 << 10;
const HINT_READS: usize = 16;
/// Shortest and longest time between two looks at the clock.
const TICKS: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));

/// Follows one batch.
pub(super) struct Watch<'a> {
    limits: &'a Limits,
    items: &'a [Outgoing],
    current: Option<Hint>,
    plugin: Started,
    item: Started,
    ticked: Instant,
}

/// When something started, by both clocks. The slot's CPU clock is first read on the first tick after it.
#[derive(Clone, Copy)]
struct Started {
    wall: Instant,
    cpu: Option<Duration>,
}

impl Started {
    fn now() -> Self {
        Self { wall: Instant::now(), cpu: None }
    }

    fn used(&mut self, cpu: Option<Duration>) -> (Duration, Duration) {
        let since = self.cpu.or(cpu);
        self.cpu = since;
        (self.wall.elapsed(), cpu.unwrap_or_default().saturating_sub(since.unwrap_or_default()))
    }
}

impl<'a> Watch<'a> {
    pub(super) fn new(limits: &'a Limits, items: &'a [Outgoing]) -> Self {
        let now = Started::now();
        Self { limits, items, current: None, plugin: now, item: now, ticked: now.wall }
    }

    /// How often to call [`Watch::tick`].
    pub(super) fn interval(limits: &Limits) -> Duration {
        (limits.plugin_wall.min(limits.plugin_cpu) / 8).clamp(TICKS.0, TICKS.1)
    }

    /// A tick is due, for whoever is too busy to wait for one.
    pub(super) fn is_due(&self) -> bool {
        self.ticked.elapsed() >= Self::interval(self.limits)
    }

    /// Reads the hints that came since the last time.
    pub(super) fn read(&mut self, pipe: &mut File) {
        let mut buffer = [0_u8; HINTS];
        for _ in 0..HINT_READS {
            // Nothing there, or the slot is gone: either way there is no news.
            let read = pipe.read(&mut buffer).unwrap_or(0);
            for bytes in buffer[..read].as_chunks::<{ Hint::SIZE }>().0 {
                self.note(Hint::decode(*bytes));
            }
            if read < HINTS {
                break;
            }
        }
    }

    fn note(&mut self, hint: Hint) {
        // Items come in order, and plugins that were taken off stay off; anything else is not an honest slot's.
        let item = self.current.map_or(0, |h| h.item);
        let asked = self.items.get(usize::from(hint.item)).is_some_and(|i| !i.excluded.contains(&hint.plugin));
        if !asked || hint.item < item {
            return;
        }
        if self.current.is_none() || hint.item > item {
            self.item = Started::now();
        }
        self.current = Some(hint);
        self.plugin = Started::now();
    }

    /// Whether a limit is passed, `cpu` being what the slot has used in its life.
    pub(super) fn tick(&mut self, cpu: Option<Duration>) -> Option<(StopReason, String)> {
        self.ticked = Instant::now();
        let Limits { plugin_wall, plugin_cpu, .. } = *self.limits;
        let (wall, used) = self.plugin.used(cpu);
        let (item_wall, item_used) = self.item.used(cpu);
        let over = |what: &str, limit: Duration| Some((StopReason::Time, format!("more than {limit:?} of {what}")));
        if used > plugin_cpu {
            over("CPU time", plugin_cpu)
        } else if wall > plugin_wall {
            over("time", plugin_wall)
        } else if item_used > plugin_cpu * ITEM_FACTOR {
            over("CPU time for all plugins together", plugin_cpu * ITEM_FACTOR)
        } else if item_wall > plugin_wall * ITEM_FACTOR {
            over("time for all plugins together", plugin_wall * ITEM_FACTOR)
        } else {
            None
        }
    }

    /// Who ran last, as far as the slot said.
    pub(super) fn current(&self) -> Option<Hint> {
        self.current
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::protocol::request::Body;
    use crate::work::UNLIMITED;

    fn items(excluded: [&[u16]; 3]) -> [Outgoing; 3] {
        excluded.map(|excluded| Outgoing {
            header: Bytes::new(),
            body: Body::Inline(Bytes::new()),
            remaining: UNLIMITED,
            excluded: excluded.to_vec(),
        })
    }

    #[test]
    fn only_hints_that_can_be_true_count() {
        let limits = Limits::default();
        let items = items([&[], &[], &[8]]);
        let mut watch = Watch::new(&limits, &items);
        let hints = [(0, 5, (0, 5)), (2, 1, (2, 1)), (1, 9, (2, 1)), (3, 9, (2, 1)), (2, 8, (2, 1)), (2, 7, (2, 7))];
        for (item, plugin, now) in hints {
            watch.note(Hint { item, plugin });
            assert_eq!(watch.current(), Some(Hint { item: now.0, plugin: now.1 }));
        }
    }

    #[test]
    fn starting_again_and_again_does_not_wind_back_the_items_clock() {
        let second = Duration::from_secs(1);
        let limits = Limits { plugin_cpu: second, ..Limits::default() };
        let items = items([&[]; 3]);
        let mut watch = Watch::new(&limits, &items);
        watch.tick(Some(Duration::ZERO));
        let mut stopped_at = None;
        for n in 1..100 {
            watch.note(Hint { item: 0, plugin: 0 });
            if watch.tick(Some(second * n)).is_some() {
                stopped_at = Some(n);
                break;
            }
        }
        // The first hint begins the item, and its clock at the tick after it.
        assert_eq!(stopped_at, Some(ITEM_FACTOR + 2));
        watch.note(Hint { item: 0, plugin: 1 });
        let mut watch = Watch::new(&limits, &items);
        watch.note(Hint { item: 0, plugin: 1 });
        assert!(watch.tick(Some(second)).is_none());
        assert!(watch.tick(Some(second * 2)).is_none());
        assert!(matches!(watch.tick(Some(second * 3)), Some((StopReason::Time, _))));
    }
}
