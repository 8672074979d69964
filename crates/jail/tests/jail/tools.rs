//! Tool slots: perl scripts that try what a spoilt tool would, and exiftool where it is installed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use libtest_mimic::Trial;
use stoq_api::{Content, Sha256};
use stoq_jail::tool::{Conversation, LIBRARIES, PERL, Tool, ToolLimits, ToolOutput, ToolProfile, ToolStop};
use stoq_jail::{JailError, Mode, StopReason};

use crate::support::{again_as, trial};

/// Scripts that must be stopped, and what for.
const STOPPED: &[(&str, StopReason, &str)] = &[
    ("loop", StopReason::Time, "1 while 1"),
    ("socket", StopReason::Policy, "use Socket; socket(my $s, PF_INET, SOCK_STREAM, 0); print 'made'"),
    ("fork", StopReason::Policy, "fork; print 'made'"),
    ("system", StopReason::Policy, "system('/bin/true'); print 'made'"),
    ("exec", StopReason::Policy, "exec {'/bin/true'} 'true'; print 'made'"),
    ("kill-parent", StopReason::Policy, "kill 9, getppid; print 'made'"),
    ("kill-all", StopReason::Policy, "kill 9, -1; print 'made'"),
    ("stop", StopReason::Policy, "kill 'STOP', $$; print 'made'"),
    ("pipe", StopReason::Policy, "pipe(my $r, my $w); print 'made'"),
    ("chroot", StopReason::Policy, "chroot '.'; print 'made'"),
    ("flood", StopReason::Budget, "print 'x' x 10000 while 1"),
    ("grow", StopReason::Budget, "open my $f, '>', 'big' or die; print $f 'x' x 65536 while 1"),
    ("pile", StopReason::Budget, "my $n; while (1) { open my $f, '>', $n++ or die; print $f 'x' x 5000 }"),
    ("many", StopReason::Budget, "my $n; while (1) { open my $f, '>', $n++ or die }"),
    #[cfg(target_arch = "x86_64")]
    ("ptrace", StopReason::Policy, "syscall(101, 16, 1, 0, 0); print 'made'"),
    #[cfg(target_arch = "x86_64")]
    ("memfd", StopReason::Policy, "my $e = 'x'; syscall(319, $e, 0); print 'made'"),
    #[cfg(target_arch = "x86_64")]
    ("unshare", StopReason::Policy, "syscall(272, 0x10000000); print 'made'"),
    #[cfg(target_arch = "x86_64")]
    ("io-uring", StopReason::Policy, "my $p = ' ' x 200; syscall(425, 8, $p); print 'made'"),
    #[cfg(target_arch = "x86_64")]
    ("vm-read", StopReason::Policy, "syscall(310, 1, 0, 0, 0, 0, 0); print 'made'"),
    #[cfg(target_arch = "x86_64")]
    ("clone", StopReason::Policy, "syscall(56, 17, 0, 0, 0, 0); print 'made'"),
    #[cfg(target_arch = "x86_64")]
    ("executable", StopReason::Policy, "syscall(9, 0, 4096, 7, 0x22, -1, 0); print 'made'"),
    #[cfg(target_arch = "x86_64")]
    ("abort-parent", StopReason::Policy, "syscall(234, getppid, getppid, 6); print 'made'"),
    #[cfg(target_arch = "x86_64")]
    (
        "exec-other",
        StopReason::Policy,
        "open my $f, '<', $^X; my $e = ''; syscall(322, fileno $f, $e, 0, 0, 0x1000); print 'made'",
    ),
];

/// Scripts that must print nothing but what they print when everything is refused.
const REFUSED: &[(&str, &str, &str)] = &[
    ("read", "", "for (glob '/etc/shadow /etc/passwd /etc/hostname /proc/self/environ /proc/1/maps /dev/mem') { print if open my $f, '<', $_ }"),
    ("list", "", "for ('/', '/etc', '/tmp', '/proc', '..') { print if opendir my $d, $_ }"),
    ("write", "", "for ('/tmp/jail-was-here', '../x', '/usr/lib/x') { print if open my $f, '>', $_ }"),
    ("environment", "A=1", "print join ' ', map { \"$_=$ENV{$_}\" } sort keys %ENV"),
    ("links", "", "print 1 if symlink '/etc/passwd', 'l'; print 2 if link 'input', 'm'; print 3 if rename 'input', 'n'"),
    ("standard-input", "", "print <STDIN>"),
    #[cfg(target_arch = "x86_64")]
    // The one program that it may become is closed, and its number lies above the limit of open files for good.
    ("again", "9 9", "my $e = ''; print 1 if syscall(322, 1000, $e, 0, 0, 0x1000) == 0; print $!+0; open my $f, '<', 'input';
        syscall(33, fileno $f, 1000); print ' ', $!+0; my $r = pack 'QQ', 2000, 2000; print 2 if syscall(302, 0, 7, $r, 0) == 0"),
];

pub(crate) fn trials() -> Vec<Trial> {
    let stopped = STOPPED.iter().map(|(name, reason, script)| {
        trial(&format!("tool::stopped::{name}"), move || {
            let limits = ToolLimits { cpu: Duration::from_millis(500), ..writing() };
            match run(&tool(perl(script, limits)), b"x") {
                Err(ToolStop::Stopped(stopped)) => assert_eq!(stopped.reason, *reason, "{stopped:?}"),
                other => panic!("{other:?}"),
            }
        })
    });
    let refused = REFUSED.iter().map(|(name, printed, script)| {
        trial(&format!("tool::refused::{name}"), move || {
            let output = run(&tool(perl(script, writing())), b"x").unwrap();
            assert_eq!((text(&output.stdout), text(&output.stderr)), ((*printed).into(), String::new()));
        })
    });
    let others: [(&str, fn()); 9] = [
        ("reads_its_input", reads),
        ("hangs", hangs),
        ("memory_ends", memory),
        ("writes_nothing_unasked", no_writing),
        ("leaves_files", leaves_files),
        ("talks_on", talks),
        ("is_replaced_when_spoilt", spoilt),
        ("exiftool", exiftool),
        ("missing", missing),
    ];
    let others = others.into_iter().map(|(name, test)| trial(&format!("tool::{name}"), test));
    let user = trial("tool::the_same_as_an_ordinary_user", || {
        if rustix::process::geteuid().is_root() {
            again_as(Some(65_534), &["tool::", "--skip", "ordinary_user"]);
        }
    });
    stopped.chain(refused).chain(others).chain([user]).collect()
}

fn writing() -> ToolLimits {
    ToolLimits {
        memory: 256 << 20,
        stdout: 1 << 20,
        scratch_bytes: 4 << 20,
        scratch_files: 200,
        ..ToolLimits::default()
    }
}

fn perl(script: &str, limits: ToolLimits) -> ToolProfile {
    ToolProfile {
        program: "/usr/bin/perl".into(),
        arguments: vec!["-e".into(), script.into()],
        environment: vec!["A=1".into()],
        read: LIBRARIES.iter().chain(PERL).map(PathBuf::from).collect(),
        slots: 1,
        scratch_dir: std::env::temp_dir(),
        limits,
        conversation: None,
        mode: Mode::Require,
        landlock_min: 0,
    }
}

fn tool(profile: ToolProfile) -> Tool {
    Tool::new(profile).unwrap()
}

fn run(tool: &Tool, content: &[u8]) -> Result<ToolOutput, ToolStop> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(tool.run(&Content::from(content.to_vec()), None))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn reads() {
    let script = "open my $f, '<', 'input' or die $!; print uc <$f>; print STDERR 'well'; exit 3";
    let tool = tool(perl(script, ToolLimits::default()));
    for content in [&b"some text"[..], b"", &[b'a'; 100_000]] {
        let output = run(&tool, content).unwrap();
        assert_eq!((&output.stdout[..], &output.stderr[..]), (&content.to_ascii_uppercase()[..], &b"well"[..]));
        assert_eq!((output.code, output.files.len()), (Some(3), 0));
    }
}

fn hangs() {
    let limits = ToolLimits { wall: Duration::from_millis(300), ..ToolLimits::default() };
    for script in ["sleep 1000", "close STDOUT; close STDERR; sleep 1000"] {
        match run(&tool(perl(script, limits.clone())), b"") {
            Err(ToolStop::Stopped(stopped)) => assert_eq!(stopped.reason, StopReason::Time),
            other => panic!("{other:?}"),
        }
    }
}

/// Perl says so itself and ends; any other tool ends by a signal.
fn memory() {
    let limits = ToolLimits { memory: 64 << 20, ..ToolLimits::default() };
    let output = run(&tool(perl("my @a; push @a, 'x' x 1000000 while 1", limits)), b"").unwrap();
    assert_ne!(output.code, Some(0));
    assert!(text(&output.stderr).contains("Out of memory"), "{}", text(&output.stderr));
}

fn no_writing() {
    let script = "print 1 if open my $f, '>', 'x'; print 2 if mkdir 'd'; print 3 if unlink 'input'";
    let output = run(&tool(perl(script, ToolLimits::default())), b"").unwrap();
    assert_eq!((text(&output.stdout), output.code), (String::new(), Some(0)));
}

fn leaves_files() {
    let script = "mkdir 'd' or die; mkdir 'd/e' or die;
        for (['d/e/b', 'bee'], ['a', 'x' x 2000000], ['input', 'not this']) {
            open my $f, '>', $_->[0] or next; print $f $_->[1] }";
    let output = run(&tool(perl(script, writing())), b"x").unwrap();
    let files: Vec<_> = output.files.iter().map(|f| (f.path.as_path(), f.content.len())).collect();
    assert_eq!(files, [(Path::new("a"), 2_000_000), (Path::new("d/e/b"), 3)]);
    assert_eq!(output.files[1].content.to_bytes().unwrap(), &b"bee"[..]);
    for file in &output.files {
        assert_eq!(file.content.sha256().unwrap(), file.sha256);
    }
    assert_eq!(output.files[1].sha256, Sha256::of(b"bee"));
}

fn conversation(script: &str) -> ToolProfile {
    let request = vec!["input".to_owned(), "{nonce}".to_owned()];
    let talk = Conversation { request, ready: "ready {nonce}".to_owned(), payloads: 3 };
    ToolProfile { conversation: Some(talk), ..perl(script, ToolLimits::default()) }
}

/// Reads a name and a number, answers with the process and the file, and ends as it should.
const TALK: &str =
    "$| = 1; while (my $name = <STDIN>) { chomp $name; my $n = <STDIN>; open my $f, '<', $name or die $!;
    my $text = <$f> // ''; die if $text eq 'die'; $bad ||= $text eq 'spoil'; die if $bad && $text eq 'x';
    print STDERR \"on $text\"; print \"$$ $text\\nready 1\\nready $n\" }";

fn talks() {
    let tool = tool(conversation(TALK));
    let mut processes = Vec::new();
    for n in 0..5 {
        let output = run(&tool, format!("text {n}").as_bytes()).unwrap();
        let said = text(&output.stdout);
        let (process, rest) = said.split_once(' ').unwrap();
        assert_eq!(rest, format!("text {n}\nready 1\n"));
        assert_eq!(text(&output.stderr), format!("on text {n}"));
        processes.push(process.to_owned());
    }
    // One process for three payloads.
    processes.dedup();
    assert_eq!(processes.len(), 2);
}

fn spoilt() {
    let tool = tool(conversation(TALK));
    run(&tool, b"spoil").unwrap();
    // The spoilt process fails at it, a fresh one does not.
    assert!(text(&run(&tool, b"x").unwrap().stdout).contains(" x\n"));
    match run(&tool, b"die") {
        Err(ToolStop::Stopped(stopped)) => assert_eq!(stopped.reason, StopReason::Crash),
        other => panic!("{other:?}"),
    }
    assert!(run(&tool, b"x").is_ok());
}

fn exiftool() {
    let program = PathBuf::from("/usr/bin/exiftool");
    if !program.is_file() {
        return;
    }
    let gif = b"GIF89a\x03\0\x02\0\x80\0\0\xff\xff\xff\0\0\0,\0\0\0\0\x03\0\x02\0\0\x02\x03\x84\x8fY\0;";
    let once = ToolProfile {
        program,
        arguments: ["-config", "", "-j", "-G", "input"].map(String::from).to_vec(),
        environment: Vec::new(),
        ..perl("", ToolLimits::default())
    };
    let talk = Conversation {
        request: ["-j", "-G", "input", "-execute{nonce}"].map(String::from).to_vec(),
        ready: "{ready{nonce}}".to_owned(),
        payloads: 100,
    };
    let on = ToolProfile {
        arguments: ["-config", "", "-stay_open", "True", "-@", "-"].map(String::from).to_vec(),
        conversation: Some(talk),
        ..once.clone()
    };
    for tool in [tool(once), tool(on)] {
        for (content, kind, width) in
            [(&gif[..], "GIF", "3"), (b"\xff\xd8\xff\xe0", "JPEG", "null"), (&gif[..], "GIF", "3")]
        {
            let output = run(&tool, content).unwrap();
            let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(value[0]["File:FileType"], kind, "{}", text(&output.stderr));
            assert_eq!(value[0].get("GIF:ImageWidth").map_or("null".to_owned(), ToString::to_string), width);
        }
    }
}

fn missing() {
    let gone = ToolProfile { program: "/usr/bin/no-such-tool".into(), ..perl("", ToolLimits::default()) };
    assert!(matches!(Tool::new(gone), Err(JailError::Tool { .. })));
    let demanding = ToolProfile { landlock_min: 200, ..perl("", ToolLimits::default()) };
    match run(&tool(demanding), b"") {
        Err(ToolStop::Unavailable(JailError::Sandbox(text))) => assert!(text.contains("landlock_min"), "{text}"),
        other => panic!("{other:?}"),
    }
}
