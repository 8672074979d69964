//! Pools and threads with plugins that behave.

use std::io::Write;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use libtest_mimic::Trial;
use stoq_api::scanner::Remaining;
use stoq_api::{Content, Sha256};
use stoq_jail::{Inline, JailError, JobItem, Mode, Pool, PoolConfig, Runner, Sharing, StopReason, memfd};

use crate::plugins;
use crate::support::{config, elsewhere, item, pool, ran, run, shared, trial};

static ONE: LazyLock<Pool> = LazyLock::new(|| pool(config()));

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        shared("pool::a_batch_is_answered_in_order", &ONE, |p| batch_in_order(p)),
        shared("pool::large_content_is_mapped", &ONE, |p| large_content(p)),
        shared("pool::children_are_hashed_and_spooled", &ONE, |p| children(p)),
        shared("pool::budgets_are_told_to_the_plugin", &ONE, |p| budgets(p)),
        shared("pool::the_sandbox_is_whole_here", &ONE, |p| assert!(p.applied().seccomp && p.applied().unprivileged)),
        trial("inline::the_same_answers", inline),
        trial("inline::a_panic_costs_one_plugin", inline_panic),
        shared("pool::a_death_while_looking_ahead_costs_nothing", &ONE, |p| ahead(p, "abort")),
        shared("pool::a_panic_while_looking_ahead_costs_nothing", &ONE, |p| ahead(p, "panic")),
        trial("inline::a_panic_while_looking_ahead_costs_nothing", inline_ahead),
        shared("pool::content_may_be_larger_than_a_slots_memory", &ONE, larger_than_memory),
        trial("pool::slots_are_recycled", recycled),
        trial("pool::a_slot_never_sees_two_tenants", kept_per_tenant),
        trial("pool::surroundings_that_fail_are_not_blamed_on_a_plugin", surroundings),
        trial("pool::many_callers", many_callers),
        trial("pool::reload_builds_anew_and_keeps_the_old_on_failure", reload),
        trial("pool::refusals_say_why", refusals),
    ];
    trials.extend(elsewhere("pool::what_was_killed_is_started_again", killed));
    trials.extend(elsewhere("pool::slots_stand_back_behind_their_supervisor", stands_back));
    trials.extend(elsewhere("pool::without_seccomp_only_where_that_is_allowed", no_seccomp));
    trials.extend(elsewhere("pool::slots_may_be_the_fork_servers_children", no_siblings));
    trials
}

fn batch_in_order(runner: &dyn Runner) {
    let items = (0..40).map(|n| item("ok upper len", format!("payload {n}").as_bytes())).collect();
    let answers = run(runner, items);
    assert_eq!(answers.len(), 40);
    for (n, answer) in answers.iter().enumerate() {
        assert_eq!(ran(answer), "0 1 2 ");
        assert_eq!(answer.children[0].content.to_bytes().unwrap(), format!("PAYLOAD {n}").as_bytes());
        assert_eq!(answer.children[0].plugin, 1);
        assert_eq!(answer.children[1].meta.get().filename(), Some(&*format!("payload {n}").len().to_string()));
        assert!(answer.stopped.is_empty());
    }
    assert!(run(runner, Vec::new()).is_empty());
    assert_eq!(ran(&run(runner, vec![item("len", b"")])[0]), "0 ");
}

fn large_content(runner: &dyn Runner) {
    let mut writer = memfd::Writer::new().unwrap();
    let mut bytes = vec![b'a'; 9_000_000];
    bytes[8_999_999] = b'z';
    writer.write_all(&bytes).unwrap();
    let sealed = writer.finish().unwrap();
    let Content::File { file, .. } = &sealed else { panic!("not a file") };
    let part = Content::File { file: Arc::clone(file), offset: 1_000_001, len: 7_999_999 };
    for (content, len) in [(Content::from(bytes), 9_000_000), (sealed, 9_000_000), (part, 7_999_999)] {
        let answers = run(runner, vec![JobItem { content, ..item("ends len", b"") }]);
        assert_eq!(answers[0].children[0].content.to_bytes().unwrap(), &b"az"[..]);
        assert_eq!(answers[0].children[1].meta.get().filename(), Some(&*len.to_string()));
    }
}

fn children(runner: &dyn Runner) {
    let answers = run(runner, vec![item("many discard large ok", b"x"), item("ok", b"")]);
    let children = &answers[0].children;
    assert_eq!(children.len(), 10_001);
    for (n, child) in children[..10_000].iter().enumerate() {
        let bytes = child.content.to_bytes().unwrap();
        assert_eq!(bytes, (n as u32).to_le_bytes().repeat(50));
        assert_eq!(child.sha256, Sha256::of(&bytes));
    }
    let large = &children[10_000];
    assert_eq!((large.plugin, large.content.len()), (2, 8_000_000));
    assert!(matches!(large.content, Content::File { .. }));
    assert_eq!(large.content.sha256().unwrap(), large.sha256);
    assert_eq!((ran(&answers[0]), ran(&answers[1])), ("0 1 2 3 ".into(), "0 ".into()));
}

fn budgets(runner: &dyn Runner) {
    let few = Remaining { children: 3, bytes: 1 << 20 };
    let small = Remaining { children: 100, bytes: 2_500 };
    let items = [few, small].map(|remaining| JobItem { remaining, ..item("greedy ok heavy-meta", b"") });
    let answers = run(runner, items.to_vec());
    assert_eq!((answers[0].children.len(), answers[1].children.len()), (3, 2));
    for answer in &answers {
        assert_eq!(ran(answer), "0 1 2 ");
        assert!(answer.stopped.is_empty());
    }
}

fn larger_than_memory(pool: &Pool) {
    let mut writer = memfd::Writer::new().unwrap();
    let len = 2 * crate::support::limits().memory as usize;
    writer.write_all(&vec![b'm'; len]).unwrap();
    let content = writer.finish().unwrap();
    let answer = run(pool, vec![JobItem { content, ..item("ends len", b"") }]).remove(0);
    assert_eq!(answer.children[0].content.to_bytes().unwrap(), &b"mm"[..]);
    assert_eq!(answer.children[1].meta.get().filename(), Some(&*len.to_string()));
}

fn recycled() {
    for (recycle_after, processes) in [(1, 6), (2, 3), (100, 1)] {
        let pool = pool(PoolConfig { recycle_after, ..config() });
        let process =
            |_| run(&pool, vec![item("process", b"")]).remove(0).children[0].meta.get().filename().unwrap().to_owned();
        let seen: std::collections::BTreeSet<String> = (0..6).map(process).collect();
        assert_eq!(seen.len(), processes, "after {recycle_after}");
    }
}

/// A process that has seen one tenant's payloads sees no other's, and is there again when its tenant comes back.
fn kept_per_tenant() {
    let tenants = ["a", "b", "c", "d", "e"];
    let sharing = Sharing { tenants: tenants.map(|name| (name.into(), 1)).into(), ..Sharing::default() };
    let pool = pool(PoolConfig { sharing, recycle_after: 1_000, ..config() });
    let process = |tenant: Option<&str>| {
        let item = JobItem { tenant: tenant.map(Into::into), ..item("process", b"") };
        run(&pool, vec![item]).remove(0).children[0].meta.get().filename().unwrap().to_owned()
    };
    let mut of = std::collections::BTreeMap::new();
    let order = [Some("a"), Some("b"), None, Some("gone"), Some("also gone")];
    for tenant in order.into_iter().cycle().take(30) {
        let seen: &mut std::collections::BTreeSet<String> = of.entry(tenant).or_default();
        seen.insert(process(tenant));
    }
    for (a, seen) in &of {
        for (b, others) in &of {
            assert!(a == b || seen.is_disjoint(others), "{a:?} and {b:?}: {of:?}");
        }
    }
    let again: std::collections::BTreeSet<String> =
        [Some("a"), Some("b")].into_iter().cycle().take(20).map(process).collect();
    // The pool has a thread more than slots, each with processes of its own.
    assert!(again.len() <= 4, "{again:?}");
}

fn surroundings() {
    let dir = tempfile::tempdir().unwrap();
    let spool_dir = dir.path().join("spool");
    let config = PoolConfig { spool_dir: spool_dir.clone(), ..config() };
    assert!(matches!(Pool::start(config.clone(), Bytes::new()), Err(JailError::Start { .. })));
    std::fs::create_dir(&spool_dir).unwrap();
    let pool = pool(config);
    std::fs::remove_dir(&spool_dir).unwrap();
    let short = Content::File { file: Arc::new(std::fs::File::open("/dev/null").unwrap()), offset: 0, len: 10 };
    let unreadable = JobItem { content: short, ..item("ok", b"") };
    let answers = run(&pool, vec![item("ok large", b""), unreadable, item("ok", b"")]);
    for (answer, ran_there) in answers.iter().zip(["-", "-", "0 "]) {
        assert_eq!(ran(answer), ran_there);
        let stopped: Vec<_> = answer.stopped.iter().map(|s| (s.plugin, s.reason)).collect();
        let expected = if ran_there == "-" { vec![(None, StopReason::Unavailable)] } else { Vec::new() };
        assert_eq!(stopped, expected);
    }
}

fn inline() {
    let dir = std::env::temp_dir();
    let inline = Inline::start(plugins::build, b"rules", 2, dir, &Sharing::default()).unwrap();
    assert_eq!(inline.hello(), &b"rules"[..]);
    batch_in_order(&inline);
    large_content(&inline);
    children(&inline);
    budgets(&inline);
}

/// Whoever is alone is not looked at ahead, so all of them run in the end.
fn ahead(runner: &dyn Runner, how: &str) {
    let answers =
        run(runner, vec![item("ok upper", b"a"), item(&format!("ahead-{how} len ok"), b"b"), item("ok", b"c")]);
    let ran: Vec<_> = answers.iter().map(ran).collect();
    assert_eq!(ran, ["0 1 ", "0 1 ", "0 "]);
    assert!(answers.iter().all(|answer| answer.stopped.is_empty()));
}

fn inline_ahead() {
    let inline = Inline::start(plugins::build, b"rules", 1, std::env::temp_dir(), &Sharing::default()).unwrap();
    ahead(&inline, "panic");
}

fn inline_panic() {
    let inline = Inline::start(plugins::build, b"rules", 1, std::env::temp_dir(), &Sharing::default()).unwrap();
    let answers = run(&inline, vec![item("ok panic upper", b"a"), item("ok", b"")]);
    assert_eq!((ran(&answers[0]), ran(&answers[1])), ("0 2 ".into(), "0 ".into()));
    assert_eq!(answers[0].stopped[0].plugin, Some(1));
    assert_eq!(answers[0].stopped[0].reason, StopReason::Crash);
    assert_eq!(answers[0].children.len(), 1);
}

fn many_callers() {
    let pool = Arc::new(pool(PoolConfig { slots: 2, recycle_after: 7, ..config() }));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let mut calls = tokio::task::JoinSet::new();
        for n in 0..50 {
            let pool = Arc::clone(&pool);
            calls.spawn(async move {
                let text = format!("{n}");
                let answers = pool.run(vec![item("upper", text.as_bytes()), item("ok", b"")]).await;
                assert_eq!(answers[0].children[0].content.to_bytes().unwrap(), text.as_bytes());
            });
        }
        while let Some(done) = calls.join_next().await {
            done.unwrap();
        }
    });
}

fn reload() {
    let pool = pool(config());
    assert_eq!(pool.hello(), &b"rules"[..]);
    pool.reload(Bytes::from_static(b"new rules")).unwrap();
    assert_eq!(pool.hello(), &b"new rules"[..]);
    assert_eq!(ran(&run(&pool, vec![item("ok", b"")])[0]), "0 ");
    let error = pool.reload(Bytes::from_static(b"broken")).unwrap_err();
    assert_eq!(error.to_string(), "rules.yar:3: no such thing");
    assert_eq!(pool.hello(), &b"new rules"[..]);
    assert_eq!(ran(&run(&pool, vec![item("ok", b"")])[0]), "0 ");
}

fn refusals() {
    let start = |config, rules: &'static [u8]| Pool::start(config, Bytes::from_static(rules)).err().unwrap();
    assert!(matches!(start(config(), b"broken"), JailError::Build(text) if text.starts_with("rules.yar:3")));
    assert!(matches!(start(config(), b"panics"), JailError::Build(text) if text.contains("panicked")));
    assert!(matches!(start(config(), b"threads"), JailError::Build(text) if text.contains("2 threads")));
    let demanding = PoolConfig { landlock_min: 200, mode: Mode::Prefer, ..config() };
    assert!(matches!(start(demanding, b""), JailError::Sandbox(text) if text.contains("landlock_min")));
    assert!(matches!(start(PoolConfig { slots: 0, ..config() }, b""), JailError::Config(_)));
}

/// The children of this process, and how nice they are.
fn processes() -> Vec<(rustix::process::Pid, i32)> {
    let ours = std::process::id().to_string();
    let all = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|process| {
        // A process may be gone by the time that it is looked at.
        let status = std::fs::read_to_string(process.path().join("stat")).ok()?;
        // From the state on; the parent and the niceness are the fields 4 and 19 of proc(5).
        let fields: Vec<&str> = status.rsplit(')').next()?.split_whitespace().collect();
        let pid = process.file_name().to_str()?.parse().ok().and_then(rustix::process::Pid::from_raw)?;
        (fields[1] == ours).then(|| (pid, fields[16].parse().unwrap()))
    });
    all.collect()
}

/// Slots let their supervisor go first.
fn stands_back() {
    let pool = pool(PoolConfig { slots: 2, ..config() });
    run(&pool, vec![item("ok", b"")]);
    let ours = rustix::process::getpriority_process(None).unwrap();
    let nicer = processes().iter().filter(|(_, nice)| *nice > ours).count();
    assert!(nicer >= 1, "no slot stands back");
}

/// Somebody kills the fork server and all slots.
fn killed() {
    let pool = pool(PoolConfig { slots: 2, ..config() });
    let processes = processes();
    for (pid, _) in &processes {
        rustix::process::kill_process(*pid, rustix::process::Signal::KILL).unwrap();
    }
    assert!(!processes.is_empty(), "no child of ours");
    for _ in 0..3 {
        let answers = run(&pool, vec![item("ok upper", b"a"), item("ok", b"")]);
        assert_eq!((ran(&answers[0]), ran(&answers[1])), ("0 1 ".into(), "0 ".into()));
        assert!(answers[0].stopped.is_empty());
    }
}

/// A sandbox around us that refuses `CLONE_PARENT`.
fn no_siblings() {
    use seccompiler::{SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};
    let flag = libc::CLONE_PARENT as u64;
    let sibling = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(flag), flag).unwrap();
    refuse(libc::SYS_clone, vec![SeccompRule::new(vec![sibling]).unwrap()]);
    let pool = pool(config());
    for (bad, reason) in [
        ("abort", StopReason::Crash),
        ("socket", StopReason::Policy),
        ("loop", StopReason::Time),
        ("allocate", StopReason::Memory),
    ] {
        let answers = run(&pool, vec![item(&format!("ok {bad} ok"), b""), item("ok", b"")]);
        assert_eq!((ran(&answers[0]), ran(&answers[1])), ("0 2 ".into(), "0 ".into()));
        assert_eq!((answers[0].stopped[0].plugin, answers[0].stopped[0].reason), (Some(1), reason));
    }
}

/// A kernel or a container without `seccomp`.
fn no_seccomp() {
    refuse(libc::SYS_seccomp, Vec::new());
    let error = Pool::start(config(), Bytes::new()).err().unwrap();
    assert!(
        matches!(&error, JailError::Sandbox(text) if text.contains("seccomp") && text.contains("prefer")),
        "{error}"
    );
    let pool = pool(PoolConfig { mode: Mode::Prefer, ..config() });
    assert!(!pool.applied().seccomp);
    assert_eq!(ran(&run(&pool, vec![item("ok", b"")])[0]), "0 ");
}

/// Makes a system call fail in this thread, and in the threads and processes that come from it.
fn refuse(call: i64, rules: Vec<seccompiler::SeccompRule>) {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new([(call, rules)].into(), SeccompAction::Allow, refused, arch).unwrap();
    seccompiler::apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
}
