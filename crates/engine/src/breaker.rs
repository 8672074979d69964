//! A circuit breaker for plugins: one that is stopped on too many payloads is switched off in this worker for a while.
//!
//! Each stop costs a slot, and up to the plugin's whole time. Whatever is left out is said: every payload that the plugin
//! should have seen names it among the workers that did not run. After the pause the plugin gets payloads again, and the
//! first result decides: good, and it is on; stopped again, and it is off for another pause.
//!
//! An operator may switch plugins off as well, for as long as he likes.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;
use stoq_runtime::hold::Hold;
use stoq_runtime::metrics;
use tokio::time::Instant;

/// When a plugin is switched off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakerSettings {
    /// Payloads of the last ones that a plugin may be stopped on; with more it is switched off. Zero: it never is.
    pub kills: usize,
    /// How many of the last payloads are looked at.
    pub payloads: usize,
    /// How long it is off.
    pub pause: Duration,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self { kills: 25, payloads: 100, pause: Duration::from_secs(120) }
    }
}

/// Why an operator's plugin is off, as it stands in responses.
const PAUSED: &str = "it was paused by an operator";

/// The breakers of a worker's plugins.
#[derive(Debug, Default)]
pub struct Breaker {
    settings: BreakerSettings,
    /// By plugin, what operators have to say.
    holds: BTreeMap<String, Hold>,
    plugins: Mutex<BTreeMap<String, State>>,
}

#[derive(Debug, Default)]
struct State {
    /// What became of the last payloads: whether the plugin was stopped.
    last: VecDeque<bool>,
    kills: usize,
    /// When it was switched off; there is no result since.
    off: Option<Instant>,
}

impl Breaker {
    /// Breakers that are all on.
    pub fn new(settings: BreakerSettings) -> Self {
        Self { settings, ..Self::default() }
    }

    /// The same, for plugins that operators may pause.
    #[must_use]
    pub fn with_holds(self, holds: impl IntoIterator<Item = (String, Hold)>) -> Self {
        Self { holds: holds.into_iter().collect(), ..self }
    }

    /// The plugins that are off now, each with the reason as it stands in responses.
    pub fn off(&self) -> BTreeMap<String, String> {
        let plugins = self.plugins.lock();
        let off = plugins.iter().filter(|(_, state)| state.off.is_some_and(|at| at.elapsed() < self.settings.pause));
        let off = off.map(|(plugin, _)| (plugin.clone(), self.reason()));
        let paused = self.holds.iter().filter(|(_, hold)| hold.is_on());
        off.chain(paused.map(|(plugin, _)| (plugin.clone(), PAUSED.to_owned()))).collect()
    }

    /// A plugin saw a payload, and was `stopped` over it or not. Names are those of configured plugins.
    pub fn saw(&self, plugin: &str, stopped: bool) {
        let BreakerSettings { kills, payloads, pause } = self.settings;
        let mut plugins = self.plugins.lock();
        if kills == 0 || (!stopped && !plugins.contains_key(plugin)) {
            // Nothing is kept of a plugin that never was stopped.
            return;
        }
        let state = plugins.entry(plugin.to_owned()).or_default();
        if let Some(at) = state.off {
            if at.elapsed() < pause {
                // It was started before the plugin was switched off.
                return;
            }
            if stopped {
                state.off = Some(Instant::now());
                tracing::warn!(plugin, "stopped again; the plugin stays off");
            } else {
                *state = State::default();
                metrics::plugin_off(plugin, false);
                tracing::info!(plugin, "the plugin is on again");
            }
            return;
        }
        state.last.push_back(stopped);
        state.kills += usize::from(stopped);
        if state.last.len() > payloads && state.last.pop_front() == Some(true) {
            state.kills -= 1;
        }
        if state.kills > kills {
            state.off = Some(Instant::now());
            metrics::plugin_off(plugin, true);
            tracing::error!(
                plugin,
                kills = state.kills,
                of = state.last.len(),
                "the plugin is switched off for a while"
            );
        }
    }

    fn reason(&self) -> String {
        let BreakerSettings { kills, payloads, pause } = &self.settings;
        format!(
            "it was switched off in this worker for {} s: it was stopped on more than {kills} of its last {payloads} \
             payloads",
            pause.as_secs_f64()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(10);

    fn breaker() -> Breaker {
        Breaker::new(BreakerSettings { kills: 2, payloads: 5, pause: PAUSE })
    }

    #[tokio::test(start_paused = true)]
    async fn off_after_its_share_and_on_after_a_good_payload() {
        let breaker = breaker();
        for stopped in [true, false, false, true, false, false, false, true] {
            breaker.saw("bad", stopped);
            breaker.saw("good", false);
            assert!(breaker.off().is_empty(), "never more than two of five");
        }
        breaker.saw("bad", true);
        breaker.saw("bad", true);
        assert_eq!(breaker.off().keys().collect::<Vec<_>>(), ["bad"]);
        assert!(breaker.off()["bad"].contains("more than 2 of its last 5 payloads"));
        breaker.saw("bad", false);
        assert_eq!(breaker.off().len(), 1, "what was started before says nothing");
        tokio::time::advance(PAUSE).await;
        assert!(breaker.off().is_empty(), "it may try");
        breaker.saw("bad", true);
        assert_eq!(breaker.off().len(), 1, "and is off again at once");
        tokio::time::advance(PAUSE).await;
        breaker.saw("bad", false);
        for stopped in [true, true] {
            breaker.saw("bad", stopped);
            assert!(breaker.off().is_empty(), "on, with nothing held against it");
        }
        breaker.saw("bad", true);
        assert_eq!(breaker.off().len(), 1);
    }

    #[test]
    fn zero_switches_nothing_off() {
        let breaker = Breaker::new(BreakerSettings { kills: 0, ..BreakerSettings::default() });
        (0..1_000).for_each(|_| breaker.saw("bad", true));
        assert!(breaker.off().is_empty());
    }
}
