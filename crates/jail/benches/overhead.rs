//! What the jail adds to a payload, in CPU time of the supervisor and its slots together.
//!
//! `cargo bench -p stoq-jail` prints, for each way of asking, the microseconds that a payload costs beyond a direct call of
//! the same work. Wall-clock figures would mostly tell how idle the machine was.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark's report")]

use bytes::Bytes;
use stoq_api::scanner::Remaining;
use stoq_api::{Content, PayloadMeta, Sha256};
use stoq_jail::{Hello, Item, JobItem, Pool, PoolConfig, Runner, Wire, Workload};

/// Plugins that each payload meets.
const PLUGINS: u16 = 3;
/// Children of a payload that has some.
const CHILDREN: usize = 10_000;
/// Payloads of one measurement.
const PAYLOADS: usize = 64_000;

struct Hashes;

impl Workload for Hashes {
    fn run(&self, item: &Item<'_>, wire: &mut dyn Wire) -> Vec<u8> {
        if item.header == b"children" {
            wire.starting(0);
            return (0..CHILDREN).map(|n| u8::from(emit(wire.sink(), item.content, n).is_ok())).collect();
        }
        let mut report = Vec::with_capacity(96);
        for plugin in 0..PLUGINS {
            wire.starting(plugin);
            report.extend(Sha256::of(item.content).as_bytes());
        }
        report
    }
}

fn emit(sink: &mut dyn stoq_api::scanner::Sink, content: &[u8], n: usize) -> std::io::Result<()> {
    sink.open(PayloadMeta::with("filename", format!("member {n}")))?;
    sink.write(content)?;
    sink.close(true)
}

fn build(_: &[u8]) -> Result<Hello, String> {
    Ok(Hello { workload: Box::new(Hashes), message: Vec::new() })
}

fn main() {
    stoq_jail::enter_if_asked(build);
    println!("added CPU time for each payload, {PLUGINS} plugins");
    for size in [4 << 10, 12 << 10, 64 << 10, 1 << 20] {
        let content = Bytes::from(vec![7; size]);
        let payloads = (PAYLOADS * (4 << 10) / size).clamp(200, PAYLOADS);
        let direct = direct(&content, payloads);
        for (batch, callers) in [(1, 1), (16, 1), (16, 2)] {
            let jailed = jailed(b"", &content, payloads, batch, callers);
            let added = (jailed - direct) / payloads as f64;
            println!(
                "{:>5} KiB, {batch:>2} at a time, {callers} callers: {added:>6.1} µs more than {:.1} µs",
                size >> 10,
                direct / payloads as f64
            );
        }
    }
    for size in [200, 20_000] {
        let micros = jailed(b"children", &Bytes::from(vec![7; size]), 10, 1, 1);
        println!("a child of {size} bytes: {:.1} µs", micros / 10.0 / CHILDREN as f64);
    }
}

/// Microseconds of CPU time of this process and of its children that have ended.
fn cpu() -> f64 {
    [libc::RUSAGE_SELF, libc::RUSAGE_CHILDREN].into_iter().map(usage).sum()
}

#[expect(unsafe_code, reason = "getrusage has no safe wrapper here")]
fn usage(who: libc::c_int) -> f64 {
    // SAFETY: writes to the local whose address it gets; all zero is a value of it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(who, &raw mut usage), 0);
        usage
    };
    let micros = |t: libc::timeval| t.tv_sec as f64 * 1e6 + t.tv_usec as f64;
    micros(usage.ru_utime) + micros(usage.ru_stime)
}

struct Nowhere;

impl stoq_api::scanner::Sink for Nowhere {
    fn remaining(&self) -> Remaining {
        stoq_jail::work::UNLIMITED
    }

    fn open(&mut self, _: stoq_api::PayloadMeta) -> std::io::Result<()> {
        Ok(())
    }

    fn write(&mut self, _: &[u8]) -> std::io::Result<()> {
        Ok(())
    }

    fn close(&mut self, _: bool) -> std::io::Result<()> {
        Ok(())
    }
}

impl Wire for Nowhere {
    fn starting(&mut self, _: u16) {}

    fn sink(&mut self) -> &mut dyn stoq_api::scanner::Sink {
        self
    }
}

fn direct(content: &[u8], payloads: usize) -> f64 {
    let before = cpu();
    for _ in 0..payloads {
        std::hint::black_box(Hashes.run(&Item { serial: 0, header: b"", content, excluded: &[] }, &mut Nowhere));
    }
    cpu() - before
}

/// The whole life of a pool, less that of one that has nothing to do.
fn jailed(header: &'static [u8], content: &Bytes, payloads: usize, batch: usize, callers: usize) -> f64 {
    life(header, content, payloads, batch, callers) - life(header, content, 0, batch, callers)
}

fn life(header: &'static [u8], content: &Bytes, payloads: usize, batch: usize, callers: usize) -> f64 {
    let before = cpu();
    let config = PoolConfig { slots: callers, recycle_after: u32::MAX, ..PoolConfig::default() };
    let pool = Pool::start(config, Bytes::new()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let one = || async {
            for _ in 0..payloads / batch / callers {
                let item = JobItem {
                    header: Bytes::from_static(header),
                    content: Content::Bytes(content.clone()),
                    remaining: Remaining { children: CHILDREN as u64, bytes: 1 << 30 },
                    tenant: None,
                };
                let answers = pool.run(vec![item; batch]).await;
                assert!(answers.iter().all(|a| a.report.is_some()));
            }
        };
        match callers {
            1 => one().await,
            _ => drop(tokio::join!(one(), one())),
        }
    });
    drop(pool);
    // Dropping it has reaped the slots, so that their time counts.
    cpu() - before
}
