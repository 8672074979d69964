//! Whether a process is alive and whether it can work, as probes ask.
//!
//! *Alive* means that its loops turn: each loop runs [`around`](Health::around) a pulse, which beats as long as the loop's
//! task is given its turns. A loop that waits for work beats; one that is stuck in a call that never returns does not.
//! *Ready* means that everything the process needs can be used. Nothing is asked by a probe itself: others say what
//! they found, and the probe reads it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::escape::visible;

/// How often a loop's pulse beats.
const BEAT: Duration = Duration::from_secs(1);
/// Without a beat for so long a loop stands still. Far above what a loaded machine needs for a turn.
const STILL: Duration = Duration::from_secs(60);

/// What is known of this process. Cheap to clone; clones share everything.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// When each loop's pulse beat last.
    beats: BTreeMap<u64, (String, Instant)>,
    pulses: u64,
    /// What each thing that the process needs said last: nothing, or why it cannot be used.
    needs: BTreeMap<String, Option<String>>,
    /// What each thing that the process can do without for a while said last.
    hints: BTreeMap<String, Option<String>>,
}

/// An answer to a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The probe holds.
    pub ok: bool,
    /// One line for each thing looked at.
    pub text: String,
}

impl Health {
    /// Runs a loop that belongs to the process: from this call until it ends, the process is alive only if it is given its
    /// turns. One that is never polled counts as well, as a loop that stands still.
    pub fn around<T, F: Future<Output = T>>(&self, name: &str, work: F) -> impl Future<Output = T> + use<T, F> {
        let pulse = self.pulse(name);
        async move {
            let mut beat = interval(BEAT);
            beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
            tokio::pin!(work);
            loop {
                tokio::select! {
                    biased;
                    done = &mut work => return done,
                    _ = beat.tick() => pulse.beat(),
                }
            }
        }
    }

    fn pulse(&self, name: &str) -> Pulse {
        let mut inner = self.0.lock();
        inner.pulses += 1;
        let number = inner.pulses;
        inner.beats.insert(number, (name.to_owned(), Instant::now()));
        Pulse { health: self.clone(), number }
    }

    /// Something that the process needs can be used, or cannot for this reason.
    pub fn says(&self, what: &str, trouble: Option<String>) {
        self.0.lock().needs.insert(what.to_owned(), trouble);
    }

    /// Something that only a part of the process's work needs can be used, or cannot for this reason. Readiness names it and
    /// does not depend on it.
    pub fn hints(&self, what: &str, trouble: Option<String>) {
        self.0.lock().hints.insert(what.to_owned(), trouble);
    }

    /// Whether every loop turns.
    pub fn alive(&self) -> Answer {
        let inner = self.0.lock();
        let mut answer = Answer { ok: true, text: String::new() };
        for (name, last) in inner.beats.values() {
            let still = last.elapsed();
            let trouble = (still > STILL).then(|| format!("stands still since {} s", still.as_secs()));
            answer.add(name, trouble.as_deref());
        }
        answer
    }

    /// Whether everything that the process needs can be used. Not before anything was said.
    pub fn ready(&self) -> Answer {
        let inner = self.0.lock();
        let mut answer = Answer { ok: !inner.needs.is_empty(), text: String::new() };
        inner.needs.iter().for_each(|(what, trouble)| answer.add(what, trouble.as_deref()));
        let ok = answer.ok;
        inner.hints.iter().for_each(|(what, trouble)| answer.add(what, trouble.as_deref()));
        Answer { ok, ..answer }
    }
}

impl Answer {
    fn add(&mut self, what: &str, trouble: Option<&str>) {
        self.ok &= trouble.is_none();
        // Writing to a text cannot fail.
        writeln!(self.text, "{}: {}", visible(what), visible(trouble.unwrap_or("ok"))).ok();
    }
}

/// One loop's pulse; a loop that has ended is looked at no more.
struct Pulse {
    health: Health,
    number: u64,
}

impl Pulse {
    fn beat(&self) {
        if let Some((_, last)) = self.health.0.lock().beats.get_mut(&self.number) {
            *last = Instant::now();
        }
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.health.0.lock().beats.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::pin::pin;

    use tokio::time::{advance, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_gets_no_turn_is_found() {
        let health = Health::default();
        {
            let mut idle = pin!(health.around("worker", pending::<()>()));
            assert_eq!(health.alive().text, "worker: ok\n", "known before its first turn");
            assert!(timeout(STILL * 3, &mut idle).await.is_err());
            assert_eq!(health.alive(), Answer { ok: true, text: "worker: ok\n".to_owned() }, "waiting is no fault");
            advance(STILL + BEAT * 2).await;
            let still = health.alive();
            assert!(!still.ok && still.text.starts_with("worker: stands still since 6"), "{still:?}");
            assert!(timeout(BEAT * 2, &mut idle).await.is_err());
            assert!(health.alive().ok, "it turns again");
        }
        advance(STILL * 2).await;
        assert_eq!(health.alive(), Answer { ok: true, text: String::new() }, "it has ended");
    }

    #[test]
    fn ready_when_all_can_be_used() {
        let health = Health::default();
        assert!(!health.ready().ok, "nothing is known yet");
        health.says("ledger", None);
        health.says("broker", Some("refused\nledger: ok".to_owned()));
        let answer = health.ready();
        assert!(!answer.ok);
        assert_eq!(answer.text.lines().count(), 2, "one line each: {answer:?}");
        health.says("broker", None);
        health.hints("connector siem", Some("away".to_owned()));
        let text = "broker: ok\nledger: ok\nconnector siem: away\n".to_owned();
        assert_eq!(health.ready(), Answer { ok: true, text }, "named, and no reason to be unready");
        health.0.lock().hints.clear();
        assert_eq!(health.ready(), Answer { ok: true, text: "broker: ok\nledger: ok\n".to_owned() });
    }
}
