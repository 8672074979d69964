//! Plugins that are bugs or worse: each must be contained and named, and cost nobody else an answer.

use std::hint::black_box;
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use libtest_mimic::Trial;
use stoq_api::scanner::{Remaining, Sink};
use stoq_jail::StopReason::{Budget, Crash, Memory, Policy, Protocol, Time};
use stoq_jail::{JobItem, Limits, Pool, PoolConfig, StopReason};

use crate::plugins::emit;
use crate::support::{again_as, config, item, limits, pool, ran, run, shared, trial};

/// Each behaviour, and what it is stopped for.
const BAD: &[(&str, StopReason)] = &[
    ("loop", Time),
    ("allocate", Memory),
    ("reserve", Memory),
    ("overflow", Crash),
    ("abort", Crash),
    ("panic", Crash),
    ("null", Crash),
    ("exit", Crash),
    ("socket", Policy),
    ("connect", Policy),
    ("exec", Policy),
    ("fork", Policy),
    ("thread", Policy),
    ("ptrace", Policy),
    ("kill-parent", Policy),
    ("kill-all", Policy),
    ("abort-parent", Policy),
    ("stop", Policy),
    ("truncate", Policy),
    ("vm-read", Policy),
    ("io-uring", Policy),
    ("unshare", Policy),
    ("memfd", Policy),
    ("executable", Policy),
    ("shared-memory", Policy),
    ("send-fd", Policy),
    ("setuid", Policy),
    ("mount", Policy),
    ("bpf", Policy),
    #[cfg(target_arch = "x86_64")]
    ("i386", Policy),
    #[cfg(target_arch = "x86_64")]
    ("x32", Policy),
    ("garbage", Protocol),
    ("other-item", Protocol),
    ("end-early", Protocol),
    ("huge-frame", Protocol),
    ("huge-report", Protocol),
    ("child-in-child", Protocol),
    ("close-and-spin", Protocol),
    ("flood", Budget),
    ("children", Budget),
    ("blame-item", Crash),
];

static TWO: LazyLock<Pool> = LazyLock::new(|| pool(PoolConfig { slots: 2, ..config() }));

pub(crate) fn trials() -> Vec<Trial> {
    let contained = BAD
        .iter()
        .map(|(name, reason)| shared(&format!("escapes::{name}"), &TWO, move |pool| contained(pool, name, *reason)));
    contained
        .chain([
            shared("escapes::files_and_environment_are_closed", &TWO, closed),
            shared("escapes::two_bad_plugins_cost_two_plugins", &TWO, two_bad),
            shared("escapes::all_bad_is_said", &TWO, all_bad),
            shared("escapes::a_lie_about_a_plugin_costs_that_plugin", &TWO, lie),
            trial("escapes::hang", hang),
            trial("escapes::an_answer_given_while_running_on", running_on),
            trial("escapes::saying_who_runs_for_ever", hints_for_ever),
            trial("escapes::the_same_as_an_ordinary_user", ordinary_user),
        ])
        .collect()
}

/// A payload with a bad plugin between two good ones, in a batch between two good payloads.
fn contained(pool: &Pool, name: &str, reason: StopReason) {
    let bad = JobItem {
        remaining: Remaining { children: 10, bytes: 1 << 20 },
        content: vec![b'x'; if name == "truncate" { 5 << 20 } else { 10 }].into(),
        ..item(&format!("len {name} len"), b"")
    };
    let answers = run(pool, vec![item("ok upper", b"a"), bad, item("ok upper", b"b")]);
    for good in [&answers[0], &answers[2]] {
        assert_eq!(ran(good), "0 1 ");
        assert_eq!(good.children.len(), 1);
        assert_eq!(good.stopped, []);
    }
    let bad = &answers[1];
    let stopped: Vec<_> = bad.stopped.iter().map(|s| (s.plugin, s.reason)).collect();
    assert_eq!(stopped, [(Some(1), reason)], "{:?}", bad.stopped);
    assert!(!bad.stopped[0].detail.is_empty());
    assert_eq!(ran(bad), "0 2 ");
    let by: Vec<_> = bad.children.iter().map(|c| c.plugin).collect();
    assert_eq!(by, [0, 2]);
}

fn closed(pool: &Pool) {
    let answer = run(pool, vec![item("denied", b"")]).remove(0);
    assert_eq!((ran(&answer), &*answer.stopped), ("0 ".into(), &[][..]));
}

fn two_bad(pool: &Pool) {
    let answer = run(pool, vec![item("abort ok panic ok", b"")]).remove(0);
    assert_eq!(ran(&answer), "1 3 ");
    let stopped: Vec<_> = answer.stopped.iter().map(|s| s.plugin).collect();
    assert_eq!(stopped, [Some(0), Some(2)]);
    assert!(answer.stopped[1].detail.contains("as it was told"), "{:?}", answer.stopped);
}

fn all_bad(pool: &Pool) {
    let script = "abort ".repeat(40);
    let answers = run(pool, vec![item(&script, b""), item("ok", b"")]);
    assert_eq!((ran(&answers[0]), ran(&answers[1])), ("-".into(), "0 ".into()));
    assert_eq!(answers[0].stopped.last().unwrap().plugin, None);
    assert!(answers[0].stopped.last().unwrap().detail.contains("given up"));
}

/// A plugin can name another one of the same payload, once: one that is taken off cannot have been running.
fn lie(pool: &Pool) {
    let answer = run(pool, vec![item("ok blame-plugin upper", b"a")]).remove(0);
    assert_eq!(ran(&answer), "2 ");
    let stopped: Vec<_> = answer.stopped.iter().map(|s| s.plugin).collect();
    assert_eq!(stopped, [Some(0), Some(1)]);
}

/// A plugin answers in the slot's name and goes on: what it says of its own payload is taken, the next payload is safe.
fn running_on() {
    let pool = pool(config());
    let answer = run(&pool, vec![item("ok answer-and-spin", b"")]).remove(0);
    assert_eq!((ran(&answer), &*answer.stopped), ("forged".into(), &[][..]));
    let answer = run(&pool, vec![item("ok upper", b"a")]).remove(0);
    assert_eq!((ran(&answer), answer.children.len(), &*answer.stopped), ("0 1 ".into(), 1, &[][..]));
}

/// It uses no CPU time, so only the clock on the wall finds it.
fn hang() {
    let limits = Limits { plugin_wall: Duration::from_secs(3), ..limits() };
    contained(&pool(PoolConfig { limits, ..config() }), "hang", Time);
}

fn hints_for_ever() {
    let limits = Limits { plugin_cpu: Duration::from_millis(100), ..limits() };
    contained(&pool(PoolConfig { limits, ..config() }), "hints", Time);
}

/// Root becomes nobody in a slot; anybody else has to be held by the rest of the sandbox alone.
fn ordinary_user() {
    if rustix::process::geteuid().is_root() {
        again_as(Some(65_534), &["escapes::", "--skip", "ordinary_user"]);
    }
}

/// What the bad plugins do. They run with the jail's own means only: raw system calls and the slot's descriptors.
#[expect(unsafe_code, reason = "attacks")]
pub(crate) fn plugin(name: &str, content: &[u8], sink: &mut dyn Sink) {
    let parent = 1; // Any process that is not the slot; its parent's number is not told inside.
    // SAFETY: these calls are made in a process that is there to be killed for them.
    unsafe {
        match name {
            "loop" => loop {
                black_box(0);
            },
            "hang" => tried(libc::read(socket(), [0_u8; 8].as_mut_ptr().cast(), 8)),
            "allocate" => {
                let mut all = Vec::new();
                loop {
                    all.push(black_box(vec![1_u8; 1 << 20]));
                }
            }
            "reserve" => tried(black_box(Vec::<u8>::with_capacity(64 << 30))),
            "overflow" => tried(black_box(overflow(content.len() as u64))),
            "abort" => std::process::abort(),
            "panic" => panic!("as it was told"),
            "null" => tried(black_box(std::ptr::read_volatile(std::ptr::without_provenance::<u64>(black_box(64))))),
            "exit" => libc::_exit(0),
            "socket" => tried(libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0)),
            "connect" => tried(libc::connect(socket(), std::ptr::null(), 0)),
            "exec" => tried(Command::new("/bin/true").status()),
            "fork" => tried(libc::fork()),
            "thread" => tried(std::thread::Builder::new().spawn(|| ())),
            "ptrace" => tried(libc::ptrace(libc::PTRACE_ATTACH, parent, 0, 0)),
            "kill-parent" => tried(libc::kill(parent, libc::SIGKILL)),
            "kill-all" => tried(libc::kill(-1, libc::SIGKILL)),
            "abort-parent" => tried(libc::syscall(libc::SYS_tgkill, parent, parent, libc::SIGABRT)),
            "stop" => tried(libc::raise(libc::SIGSTOP)),
            "truncate" => tried((3..64).map(|fd| libc::ftruncate(fd, 0)).min()),
            "vm-read" => tried(libc::process_vm_readv(parent, std::ptr::null(), 0, std::ptr::null(), 0, 0)),
            "io-uring" => tried(libc::syscall(libc::SYS_io_uring_setup, 8, 0)),
            "unshare" => tried(libc::unshare(libc::CLONE_NEWUSER)),
            "memfd" => tried(libc::memfd_create(c"x".as_ptr(), 0)),
            "executable" => tried(map(libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE)),
            "shared-memory" => tried(map(libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED)),
            "send-fd" => tried(libc::sendmsg(socket(), &raw const EMPTY.0, 0)),
            "setuid" => tried(libc::syscall(libc::SYS_setuid, 0)),
            "mount" => tried(libc::mount(c"/".as_ptr(), c"/".as_ptr(), std::ptr::null(), 0, std::ptr::null())),
            "bpf" => tried(libc::syscall(libc::SYS_bpf, 0, 0, 0)),
            #[cfg(target_arch = "x86_64")]
            "i386" => std::arch::asm!("int 0x80", inout("eax") 20 => _),
            #[cfg(target_arch = "x86_64")]
            "x32" => tried(libc::syscall(0x4000_0000 + libc::SYS_getpid)),
            "garbage" => write_all(socket(), &[0xa5; 100]),
            "other-item" => write_all(socket(), &frame(6, &[40, 0])),
            "end-early" => write_all(socket(), &frame(7, &[])),
            "huge-frame" => write_all(socket(), &[255, 255, 255, 127, 4, 0, 0, 0]),
            "huge-report" => write_all(socket(), &frame(6, &vec![0; 2 << 20])),
            "answer-and-spin" => {
                write_all(socket(), &[frame(6, b"\0\0forged"), frame(7, &[])].concat());
                loop {
                    black_box(0);
                }
            }
            "child-in-child" => write_all(socket(), &[frame(3, b"\x01\0{}"), frame(3, b"\x01\0{}")].concat()),
            "close-and-spin" => {
                (3..64).for_each(|fd| tried(libc::close(fd)));
                loop {
                    black_box(0);
                }
            }
            "flood" => {
                write_all(socket(), &frame(3, b"\x01\0{}"));
                let data = frame(4, &[7; 60_000]);
                (0..170_000).for_each(|_| write_all(socket(), &data));
            }
            "children" => {
                let child = [frame(3, b"\x01\0{}"), frame(5, &[1])].concat();
                (0..1_000_000).for_each(|_| write_all(socket(), &child));
            }
            "blame-item" => {
                write_all(hints(), &[2, 0, 0, 0]);
                std::process::abort();
            }
            "blame-plugin" => {
                write_all(hints(), &[0, 0, 0, 0]);
                std::process::abort();
            }
            "hints" => loop {
                libc::write(hints(), [0_u8, 0, 1, 0].as_ptr().cast(), 4);
            },
            "denied" => denied(sink),
            other => panic!("no plugin {other}"),
        }
    }
    // A hang or an attack that comes back was not contained by what it met; let it be seen as the wrong outcome.
}

/// The attempt is what counts.
fn tried<T>(_: T) {}

fn overflow(n: u64) -> u64 {
    let room = black_box([n; 1000]);
    if n == u64::MAX { 0 } else { overflow(n + 1) + room[(n % 1000) as usize] }
}

/// What is refused without being fatal: opening anything, and looking around.
fn denied(sink: &mut dyn Sink) {
    for path in ["/etc/shadow", "/etc/passwd", "/proc/self/environ", "/proc/1/mem", "/dev/null", "/"] {
        assert!(std::fs::File::open(path).is_err(), "{path} opens");
        assert!(std::fs::metadata(path).is_err(), "{path} can be looked at");
    }
    assert!(std::fs::File::create("/tmp/jail-was-here").is_err());
    assert_eq!(std::env::vars_os().count(), 0);
    emit(sink, "denied", b"").unwrap();
}

struct Empty(libc::msghdr);
#[expect(unsafe_code, reason = "attacks")]
// SAFETY: nothing behind its pointers, which are all null.
unsafe impl Sync for Empty {}
#[expect(unsafe_code, reason = "attacks")]
// SAFETY: all zero is an empty message.
static EMPTY: Empty = Empty(unsafe { std::mem::zeroed() });

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = (body.len() as u32 + 1).to_le_bytes().to_vec();
    frame.push(kind);
    frame.extend(body);
    frame
}

#[expect(unsafe_code, reason = "attacks")]
fn map(protection: i32, flags: i32) -> *mut libc::c_void {
    // SAFETY: a new mapping where the kernel likes.
    unsafe { libc::mmap(std::ptr::null_mut(), 4096, protection, flags | libc::MAP_ANONYMOUS, -1, 0) }
}

/// The slot's socket, found as somebody would who took the slot over: the descriptor that can be read and written.
fn socket() -> i32 {
    descriptor(libc::O_RDWR)
}

/// The slot's pipe of hints: one that can only be written.
fn hints() -> i32 {
    descriptor(libc::O_WRONLY)
}

#[expect(unsafe_code, reason = "attacks")]
fn descriptor(mode: i32) -> i32 {
    // SAFETY: only asks for flags.
    let flags = |fd| unsafe { libc::fcntl(fd, libc::F_GETFL) };
    (3..64).find(|fd| flags(*fd) >= 0 && flags(*fd) & libc::O_ACCMODE == mode).unwrap()
}

#[expect(unsafe_code, reason = "attacks")]
fn write_all(fd: i32, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        // SAFETY: writes from a slice.
        match unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) } {
            n if n > 0 => bytes = &bytes[n as usize..],
            _ => return,
        }
    }
}
