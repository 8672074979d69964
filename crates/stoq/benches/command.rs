//! What the whole command costs: a cold scan of one small file, an archive of many members, and a run on a data directory
//! against a scan in memory.
//!
//! `cargo bench -p stoq --bench command`. CPU times are those of the command and all its processes, as the kernel counts
//! them once they have ended; each scenario runs several times and the median is shown.
#![expect(clippy::unwrap_used, reason = "a measurement stops at the first surprise")]
#![expect(clippy::print_stdout, reason = "a measurement is printed")]

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const STOQ: &str = env!("CARGO_BIN_EXE_stoq");
const MEMBERS: u32 = 10_000;
const FILES: u32 = 20_000;
/// Cold scans.
const COLD: u32 = 40;
const FILE_SIZE: usize = 12 << 10;

/// CPU and wall time of one command, and the most memory that its first process held.
struct Cost {
    cpu: Duration,
    wall: Duration,
    peak_kib: u64,
}

fn main() {
    let dir = tempfile::tempdir().unwrap();
    cold(dir.path());
    archive(dir.path());
    data_directory(dir.path());
}

fn cold(dir: &Path) {
    let file = dir.join("small");
    fs::write(&file, vec![b'a'; 1024]).unwrap();
    let scan = || run(&["scan", file.to_str().unwrap(), "--set", "routes.dispatchers=", "-a", "hash"]);
    // The kernel counts in hundredths of a second, more than one run takes: only a sum tells anything.
    let costs: Vec<Cost> = (0..COLD).map(|_| scan()).collect();
    let cpu = costs.iter().map(|cost| cost.cpu).sum::<Duration>() / COLD;
    let wall = costs.iter().map(|cost| cost.wall).sum::<Duration>() / COLD;
    println!("cold scan of 1 KiB, hash only: {:.1} ms CPU, {:.1} ms", ms(cpu), ms(wall));
}

fn archive(dir: &Path) {
    let (small, large) = (dir.join("thousand.zip"), dir.join("many.zip"));
    zip(&small, MEMBERS / 10);
    zip(&large, MEMBERS);
    let scan = |path: &Path, workers: &[&str]| {
        let path = path.to_str().unwrap();
        let mut arguments = vec!["scan", path, "--set", "routes.dispatchers=", "-a"];
        arguments.extend(workers);
        median(5, || run(&arguments))
    };
    let (few, many) =
        (scan(&small, &["mimetype", "decompress", "hash"]), scan(&large, &["mimetype", "decompress", "hash"]));
    let each = (many.cpu.saturating_sub(few.cpu)).as_secs_f64() * 1e6 / f64::from(MEMBERS - MEMBERS / 10);
    println!("zip members, each unpacked, admitted, identified, hashed: {each:.1} us CPU");
    println!(
        "peak memory: {} MiB with {} members, {} MiB with {MEMBERS}",
        few.peak_kib >> 10,
        MEMBERS / 10,
        many.peak_kib >> 10
    );
}

fn data_directory(dir: &Path) {
    let files = dir.join("files");
    fs::create_dir(&files).unwrap();
    let mut content = vec![0_u8; FILE_SIZE];
    for number in 0..FILES {
        content[..4].copy_from_slice(&number.to_le_bytes());
        fs::write(files.join(number.to_string()), &content).unwrap();
    }
    let source = files.to_str().unwrap();
    let workers = ["--set", "routes.dispatchers=", "-a", "hash", "mimetype"];
    let scan = median(3, || run(&[&["scan", source][..], &workers].concat()));
    let mut number = 0;
    let run = median(3, || {
        number += 1;
        let (data, out) = (dir.join(format!("data{number}")), dir.join(format!("out{number}")));
        let options = [format!("filedir:source_dir={source}"), format!("filedir:results_dir={}", out.display())];
        // Responses go to standard output on both sides: what differs is where work is kept.
        let data = data.to_str().unwrap();
        let arguments = ["run", "--data-dir", data, "-P", "filedir", "-C", "stdout", "--plugin-opts", &options[0]];
        run(&[&arguments[..], &workers].concat())
    });
    let rate = |cost: &Cost| f64::from(FILES) / cost.wall.as_secs_f64();
    println!("scan in memory:      {:.0} payloads/s, {:.0} us CPU each", rate(&scan), us_each(&scan));
    println!("run on SQLite:       {:.0} payloads/s, {:.0} us CPU each", rate(&run), us_each(&run));
    println!("rate of run to scan: {:.2}", rate(&run) / rate(&scan));
}

fn us_each(cost: &Cost) -> f64 {
    cost.cpu.as_secs_f64() * 1e6 / f64::from(FILES)
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn zip(path: &Path, members: u32) {
    let mut zip = zip::ZipWriter::new(fs::File::create(path).unwrap());
    for number in 0..members {
        zip.start_file(format!("member-{number:05}"), zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(format!("the content of member {number}\n").repeat(20).as_bytes()).unwrap();
    }
    zip.finish().unwrap();
}

fn median(times: usize, mut run: impl FnMut() -> Cost) -> Cost {
    let mut all: Vec<Cost> = (0..times).map(|_| run()).collect();
    all.sort_by_key(|cost| cost.cpu);
    all.swap_remove(times / 2)
}

/// Runs the command, which must succeed, with an empty home and nothing to read.
fn run(arguments: &[&str]) -> Cost {
    let before = children_used();
    let started = Instant::now();
    let mut child = Command::new(STOQ)
        .args(arguments)
        .env("STOQ_HOME", "/nonexistent")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut peak_kib = 0;
    let status = loop {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let held = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).map(str::trim);
        peak_kib = held.and_then(|kib| kib.trim_end_matches(" kB").parse().ok()).unwrap_or(peak_kib);
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        // Sampled, because nothing tells the peak of a process that has ended.
        std::thread::sleep(Duration::from_millis(2));
    };
    assert!(status.success(), "{arguments:?}: {status}");
    Cost { cpu: children_used().saturating_sub(before), wall: started.elapsed(), peak_kib }
}

/// CPU time of children that have ended, theirs included: cutime and cstime of proc_pid_stat(5), in hundredths of a second.
fn children_used() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    Duration::from_millis((fields[13].parse::<u64>().unwrap() + fields[14].parse::<u64>().unwrap()) * 10)
}
