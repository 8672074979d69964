//! What the whole command costs: a cold scan of one small file, an archive of many members, and a run on a data directory
//! against a scan in memory.
//!
//! `cargo bench -p stoq --bench command [-- cold|archive|data]`. CPU times are those of the command and all its processes, as the kernel counts
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

/// What one command took.
struct Cost {
    cpu: Duration,
    wall: Duration,
    /// The most memory that all its processes held together, as far as samples tell.
    peak_kib: u64,
    /// The most that its first process held.
    first_kib: u64,
    /// Bytes that it wrote to standard output.
    written: u64,
}

/// `cargo bench … -- PART` runs one part only.
fn main() {
    let dir = tempfile::tempdir().unwrap();
    let part = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    for (name, measure) in [("cold", cold as fn(&Path)), ("archive", archive), ("data", data_directory)] {
        if part.as_ref().is_none_or(|part| part == name) {
            measure(dir.path());
        }
    }
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

/// What each member costs, and what is in memory at most: by the number of members, and by their size.
fn archive(dir: &Path) {
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    for (members, lines) in [(MEMBERS / 10, 20), (MEMBERS, 20), (MEMBERS * 4, 20), (MEMBERS / 10, 2_000)] {
        zip(Path::new(&path(&format!("{members}x{lines}"))), members, lines);
    }
    for jail in ["require", "off"] {
        let scan = |members: u32, lines: usize| {
            let (file, jail) = (path(&format!("{members}x{lines}")), format!("scan.jail={jail}"));
            let (payloads, most) =
                (format!("budgets.max_payloads={members}"), format!("decompress:max_members={members}"));
            let options = [
                "scan",
                file.as_str(),
                "--set",
                "routes.dispatchers=",
                "--set",
                jail.as_str(),
                "--set",
                payloads.as_str(),
                "--plugin-opts",
                most.as_str(),
            ];
            median(5, || run(&[&options[..], &["-a", "mimetype", "decompress", "hash"]].concat()))
        };
        let (few, many, most) = (scan(MEMBERS / 10, 20), scan(MEMBERS, 20), scan(MEMBERS * 4, 20));
        let each = |cost: &Cost, members| {
            cost.cpu.saturating_sub(few.cpu).as_secs_f64() * 1e6 / f64::from(members - MEMBERS / 10)
        };
        println!("jail = {jail}: zip members of 600 bytes, each unpacked, admitted, identified, hashed:");
        println!("  {:.1} us CPU a member with {MEMBERS}", each(&many, MEMBERS));
        println!("  {:.1} us CPU a member with {}", each(&most, MEMBERS * 4), MEMBERS * 4);
        let large = scan(MEMBERS / 10, 2_000);
        println!("  peak memory of all processes (first process), MiB, by members:");
        for (cost, what) in [
            (&few, "1,000 of 600 bytes"),
            (&many, "10,000 of 600 bytes"),
            (&most, "40,000 of 600 bytes"),
            (&large, "1,000 of 60,000 bytes"),
        ] {
            let mib = |kib: u64| kib as f64 / 1024.0;
            let response = mib(cost.written >> 10);
            println!("    {:6.1} ({:5.1}) {what}; response {response:.1}", mib(cost.peak_kib), mib(cost.first_kib));
        }
    }
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

fn zip(path: &Path, members: u32, lines: usize) {
    let mut zip = zip::ZipWriter::new(fs::File::create(path).unwrap());
    for number in 0..members {
        zip.start_file(format!("member-{number:05}"), zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(format!("the content of member {number}\n").repeat(lines).as_bytes()).unwrap();
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
    let out = tempfile::NamedTempFile::new().unwrap();
    let mut child = Command::new(STOQ)
        .args(arguments)
        .env("STOQ_HOME", "/nonexistent")
        .stdin(Stdio::null())
        .stdout(out.reopen().unwrap())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let (mut peak_kib, mut first_kib) = (0, 0);
    let status = loop {
        first_kib = value(child.id(), "status", "VmHWM:").unwrap_or(first_kib);
        peak_kib = peak_kib.max(held(child.id()));
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        // Sampled, because nothing tells the peak of processes that have ended.
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(status.success(), "{arguments:?}: {status}");
    let written = out.as_file().metadata().unwrap().len();
    Cost { cpu: children_used().saturating_sub(before), wall: started.elapsed(), peak_kib, first_kib, written }
}

/// What a process and all below it hold, in KiB: what several of them share counts once.
fn held(process: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let below: u64 = children
        .flat_map(|c| c.split_whitespace().filter_map(|id| id.parse().ok()).map(held).collect::<Vec<_>>())
        .sum();
    below + value(process, "smaps_rollup", "Pss:").unwrap_or(0)
}

/// A figure in KiB of a file of a process.
fn value(process: u32, file: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/{file}")).ok()?;
    let figure = text.lines().find_map(|line| line.strip_prefix(name))?;
    figure.trim().trim_end_matches(" kB").parse().ok()
}

/// CPU time of children that have ended, theirs included: cutime and cstime of proc_pid_stat(5), in hundredths of a second.
fn children_used() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    Duration::from_millis((fields[13].parse::<u64>().unwrap() + fields[14].parse::<u64>().unwrap()) * 10)
}
