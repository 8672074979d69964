//! `cargo xtask sizing`: a day of bursty traffic against a pool that is scaled by what waits, as figures and a drawing.
//!
//! A model, not a measurement: arrivals by a curve with bursts, one queue, replicas that start late and are scaled by the
//! rules that the chart sets for KEDA and the autoscaler behind it. docs/sizing.md says what comes out and what follows.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::plot::{self, Curve, Panel};

/// The drawing, beside the page that shows it.
const DRAWING: &str = "docs/sizing.svg";
/// Seconds of a step; also how often KEDA looks (`autoscaling.pollingInterval`).
const STEP: usize = 10;
const DAY: usize = 24 * 3600;
const STEPS: usize = DAY / STEP;
/// Tasks of a message when more wait than one message holds.
const TASKS: f64 = 16.0;
/// Steps that a new replica takes until it works: schedule, start, compile rules, subscribe.
const START: usize = 3;
/// Steps for which the largest wish counts before a pool shrinks (`autoscaling.cooldownPeriod`, 300 s).
const STABLE: usize = 30;
/// Steps between two removals: a tenth of the pool, at least one, a minute.
const SHRINK: usize = 6;
/// How far from the goal the autoscaler does nothing.
const TOLERANCE: f64 = 0.1;
/// Bursts of a day, how long one lasts in steps, and by how much it multiplies.
const BURSTS: usize = 12;
const BURST_STEPS: usize = 60;
const BURST_FACTOR: f64 = 3.0;
/// Steps that are one point of the drawing.
const POINT: usize = 6;
/// How far the day swings about its mean.
const SWING: f64 = 0.6;

/// What may be said on the command line.
#[derive(Clone, Copy)]
struct Plan {
    /// Payloads in the day.
    payloads: f64,
    /// CPU seconds of a payload, in milliseconds.
    cost: f64,
    /// Slots of a replica.
    slots: f64,
    /// Waiting messages that a replica is given.
    messages: f64,
    least: f64,
    most: f64,
}

/// One day of a pool.
struct Run {
    arrivals: Vec<f64>,
    capacity: Vec<f64>,
    waits: Vec<f64>,
    replicas: Vec<f64>,
    left: f64,
}

/// The day that is drawn: a worker of two cores and what a payload of 12 KiB costs it with hash, media type and 70 rules,
/// docs/benchmarks.md.
const MEASURED: Plan = Plan { payloads: 500e6, cost: 0.2, slots: 2.0, messages: 500.0, least: 1.0, most: 12.0 };
/// What other plugins may cost: an assumption.
const HEAVIER: Plan = Plan { cost: 2.0, slots: 4.0, least: 2.0, most: 40.0, ..MEASURED };
/// Other figures for what waits that the page compares.
const MESSAGES: [f64; 4] = [50.0, 200.0, 500.0, 2000.0];

/// Simulates, prints the figures and, without arguments, writes the drawing.
pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<()> {
    let plan = read(MEASURED, arguments)?;
    let day = simulate(&plan);
    if !arguments.is_empty() {
        crate::report(&table(&plan, &day));
        return Ok(());
    }
    std::fs::write(root.join(DRAWING), drawing(&day)).with_context(|| format!("cannot write {DRAWING}"))?;
    for plan in [MEASURED, HEAVIER] {
        for messages in MESSAGES {
            let other = Plan { messages, ..plan };
            crate::report(&table(&other, &simulate(&other)));
        }
    }
    Ok(())
}

fn read(mut plan: Plan, arguments: &[String]) -> Result<Plan> {
    let mut rest = arguments.iter();
    while let Some(flag) = rest.next() {
        let value = rest.next().with_context(|| format!("{flag} needs a value"))?;
        let value: f64 = value.parse().with_context(|| format!("{flag} {value}: not a number"))?;
        if !value.is_finite() || value <= 0.0 {
            bail!("{flag} {value}: must be above 0");
        }
        match flag.as_str() {
            "--payloads" => plan.payloads = value,
            "--cost-ms" => plan.cost = value,
            "--slots" => plan.slots = value,
            "--messages" => plan.messages = value,
            "--min" => plan.least = value,
            "--max" => plan.most = value,
            _ => bail!("unknown flag {flag}; there are --payloads, --cost-ms, --slots, --messages, --min, --max"),
        }
    }
    Ok(plan)
}

/// Payloads of each step: two humps of office hours, bursts at fixed places of a fixed sequence.
fn arrivals(payloads: f64) -> Vec<f64> {
    let mut weights: Vec<f64> = (0..STEPS)
        .map(|step| {
            let turn = share(step) * std::f64::consts::TAU;
            1.0 - SWING * turn.cos() + 0.2 * (3.0 * turn).sin()
        })
        .collect();
    let mut seed: u64 = 0x5DEE_CE66;
    for _ in 0..BURSTS {
        // Knuth's multiplier; anything that spreads will do, as long as it is the same each time.
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let at = usize::try_from(seed >> 33).unwrap_or_default() % STEPS;
        weights.iter_mut().skip(at).take(BURST_STEPS).for_each(|weight| *weight *= BURST_FACTOR);
    }
    let all: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / all * payloads).collect()
}

#[expect(clippy::cast_precision_loss, reason = "there are some ten thousand steps")]
fn share(step: usize) -> f64 {
    step as f64 / STEPS as f64
}

#[expect(clippy::cast_precision_loss, reason = "a step is a few seconds")]
fn simulate(plan: &Plan) -> Run {
    let step = STEP as f64;
    let each = plan.slots / (plan.cost / 1000.0);
    let arrivals = arrivals(plan.payloads);
    let mut run = Run { arrivals, capacity: vec![], waits: vec![], replicas: vec![], left: 0.0 };
    let mut asked = vec![plan.least; START];
    let mut wishes = vec![plan.least; STABLE];
    let mut shrunk = 0;
    let mut backlog = 0.0;
    for (at, arriving) in run.arrivals.iter().enumerate() {
        let now = asked[asked.len() - 1];
        let working = asked[asked.len() - START].min(now);
        let ratio = backlog / TASKS / plan.messages / now;
        let wish =
            if (ratio - 1.0).abs() <= TOLERANCE { now } else { (ratio * now).ceil().clamp(plan.least, plan.most) };
        wishes.push(wish);
        let steady = wishes.iter().rev().take(STABLE).copied().fold(0.0, f64::max);
        let next = if wish > now {
            // By 100 of 100 or four pods in 15 s, whichever is more.
            wish.min((now * 2.0).max(now + 4.0))
        } else if steady < now && at >= shrunk + SHRINK {
            shrunk = at;
            steady.max(now - (now * 0.1).ceil()).max(plan.least)
        } else {
            now
        };
        asked.push(next);
        let capacity = working * each * step;
        let done = capacity.min(backlog + arriving);
        backlog += arriving - done;
        run.waits.push(backlog / (working * each));
        run.capacity.push(capacity);
        run.replicas.push(now);
    }
    run.left = backlog;
    run
}

fn percentile(values: &[f64], hundredths: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get((sorted.len() * hundredths / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "a step is a few seconds")]
fn table(plan: &Plan, day: &Run) -> String {
    let hours = |steps: f64| steps * STEP as f64 / 3600.0;
    let most = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
    let used: f64 = hours(day.replicas.iter().sum());
    let peak = most(&day.replicas);
    let needed = most(&day.arrivals) / STEP as f64 * plan.cost / 1000.0 / plan.slots;
    format!(
        "{:.0} million payloads of {} ms, replicas of {} slots, {} messages each: peak {:.0} payloads/s, {:.0} replicas at \
         most, {:.0} replica hours ({:.0} for the peak all day), wait median {:.1} s, 99 of 100 {:.0} s, longest {:.0} s, {:.0} left",
        plan.payloads / 1e6,
        plan.cost,
        plan.slots,
        plan.messages,
        most(&day.arrivals) / STEP as f64,
        peak,
        used,
        needed.ceil() * 24.0,
        percentile(&day.waits, 50),
        percentile(&day.waits, 99),
        most(&day.waits),
        day.left,
    )
}

/// Two panels over the hours: payloads a second that come and could be done, and how long the newest has to wait.
fn drawing(day: &Run) -> String {
    // A point for each minute, the highest of it.
    let curve = |values: &[f64], by: f64, colour| {
        let minutes = values.chunks(POINT).enumerate();
        let points = minutes.map(|(n, of)| (share(n * POINT), of.iter().copied().fold(0.0, f64::max) * by));
        Curve { colour, points: points.collect() }
    };
    let rate = 1.0 / 10.0;
    let panels = [
        Panel {
            title: "payloads a second: that come (blue), that the pool could do (orange)",
            height: 280.0,
            curves: vec![curve(&day.capacity, rate, "#e08214"), curve(&day.arrivals, rate, "#2166ac")],
        },
        Panel {
            title: "seconds that the newest payload has to wait",
            height: 130.0,
            curves: vec![curve(&day.waits, 1.0, "#b2182b")],
        },
    ];
    let labels: Vec<_> = (0..=24).step_by(4).map(|hour| (f64::from(hour) / 24.0, format!("{hour} h"))).collect();
    plot::draw(&panels, &labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: Plan = Plan { messages: 50.0, ..HEAVIER };

    #[test]
    fn everything_that_comes_is_done_or_left() {
        let day = simulate(&PLAN);
        assert_eq!(day.arrivals.len(), STEPS);
        assert!((day.arrivals.iter().sum::<f64>() - PLAN.payloads).abs() < 1.0);
        assert!(day.capacity.iter().sum::<f64>() + day.left >= PLAN.payloads);
        assert!(day.replicas.iter().all(|n| (PLAN.least..=PLAN.most).contains(n)));
    }

    #[test]
    fn a_pool_that_is_too_small_leaves_work() {
        let day = simulate(&Plan { most: 2.0, ..PLAN });
        assert!(day.left > 0.0, "two replicas cannot do it");
        assert!(simulate(&PLAN).left < day.left);
    }
}
