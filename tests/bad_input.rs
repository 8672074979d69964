//! What goes wrong around a scan: each is said with what, where and what to do, and hurts nothing else.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on is to stop")]

mod support;

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::files;
use crate::support::{command, fixture, name_of, processes, run, start, stoq, text, until};

#[test]
fn what_may_not_be_read_is_answered_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("in");
    std::fs::create_dir_all(source.join("closed")).unwrap();
    files::write(&source, "secret", b"s");
    files::write(&source, "open", b"o");
    let closed = |path: &Path| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o000)).unwrap();
    closed(&source.join("secret"));
    closed(&source.join("closed"));
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = env!("CARGO_BIN_EXE_stoq");
    let command = if rustix::process::geteuid().is_root() {
        let nobody = ["--reuid=65534", "--clear-groups", program, "scan", text(&source)];
        let can = Command::new("setpriv").args(["--reuid=65534", "--clear-groups", program, "--version"]).output();
        if !can.is_ok_and(|output| output.status.success()) {
            println!("skipped: root may read everything, and nobody cannot run {program}");
            return;
        }
        command("setpriv", &nobody)
    } else {
        stoq(&["scan", text(&source)])
    };
    let ended = run(command).expect(3);
    let mut said: Vec<_> =
        ended.responses().iter().map(|r| (name_of(r), r["errors"][0]["error"].to_string())).collect();
    said.sort();
    assert_eq!(said.len(), 3, "{said:?}");
    assert!(
        said[0].0 == "closed" && said[0].1.contains("directory") && said[0].1.contains("ermission denied"),
        "{said:?}"
    );
    assert_eq!(said[1], ("open".to_owned(), "null".to_owned()));
    assert!(said[2].0 == "secret" && said[2].1.contains("ermission denied"), "{said:?}");
    std::fs::set_permissions(source.join("closed"), std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn odd_files_hold_nothing_up() {
    let dir = tempfile::tempdir().unwrap();
    files::write(dir.path(), "empty", b"");
    std::fs::File::create(dir.path().join("huge")).unwrap().set_len(5 << 30).unwrap();
    std::fs::write(dir.path().join(OsStr::from_bytes(b"n\xff\xfe")), "not UTF-8").unwrap();
    std::fs::write(dir.path().join("e\x1b[2J\x1b]0;x\x07\nline\u{202e}"), "escapes").unwrap();
    let fifo = dir.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());

    let ended = run(stoq(&["scan", text(dir.path())])).expect(3).says(&["pipe", "is a named pipe, not a regular file"]);
    let responses = ended.responses();
    assert_eq!(responses.len(), 4, "all but the pipe");
    let of = |name: &str| responses.iter().find(|r| name_of(r) == name).unwrap();
    assert_eq!(of("empty")["results"][0]["size"], 0);
    assert_eq!(of("empty")["complete"], true);
    let huge = &of("huge")["errors"][0]["error"];
    for part in ["5368709120 bytes", "max_payload", "268435456", "raise it"] {
        assert!(huge.as_str().unwrap().contains(part), "{huge}");
    }
    assert_eq!(of("n\u{fffd}\u{fffd}")["results"][0]["payload_meta"]["extra_data"]["filename_hex"], "6efffe");

    let tree = run(stoq(&["scan", "--format", "tree", text(dir.path())])).expect(3);
    let raw = |text: &str| text.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}');
    assert!(!raw(&tree.out), "{:?}", tree.out);
    assert!(tree.out.contains("\\u{1b}[2J"), "{}", tree.out);

    run(stoq(&["scan", text(&fifo)])).expect(3);
}

#[test]
fn one_broken_rule_leaves_the_others_working() {
    let dir = tempfile::tempdir().unwrap();
    let mut rules = String::new();
    for n in 0..100 {
        let condition = if n == 57 { "no_such_thing".to_owned() } else { format!("filesize == {n}") };
        rules.push_str(&format!("rule r{n} {{ condition: {condition} }}\n"));
    }
    let path = dir.path().join("own.yar");
    std::fs::write(&path, rules).unwrap();
    for n in [3, 56, 99] {
        files::write(dir.path(), &format!("{n}.bin"), &vec![b'x'; n]);
    }
    let option = format!("yara:worker_rules={}", text(&path));
    for n in [3, 56, 99] {
        let file = dir.path().join(format!("{n}.bin"));
        let ended = run(stoq(&["scan", text(&file), "--plugin-opts", &option])).expect(0);
        let matches = &ended.response()["results"][0]["workers"]["yara"]["matches"];
        assert_eq!(matches[0]["rule"], format!("r{n}"), "{matches}");
        ended.says(&["warning: plugin yara", "own.yar:58", "no_such_thing"]);
    }
}

#[test]
fn mistakes_in_configurations_are_said_with_their_place() {
    let dir = tempfile::tempdir().unwrap();
    let file = fixture("empty");
    let config = dir.path().join("my.toml");
    std::fs::write(&config, "[scan]\nslot = 2\n").unwrap();
    let misspelt = ["scan", text(&file), "-c", text(&config)];
    run(stoq(&misspelt)).expect(2).says(&["unknown key `slot`", "my.toml:2:1", "did you mean `slots`?"]);
    let config = dir.path().join("stoq.cfg");
    std::fs::write(&config, "[core]\nmax_queue = 5\nfoo_bar = 3\n[ghost]\na = b\n").unwrap();
    let old = run(stoq(&["scan", text(&file), "-c", text(&config)])).expect(0);
    old.says(&["stoq.cfg:2:1", "unknown key `foo_bar`", "stoq.cfg:3:1", "no plugin `ghost`", "stoq.cfg:4:1"]);
    run(stoq(&["scan", text(&file), "-a", "hsah"])).expect(2).says(&[
        "no worker is called `hsah`",
        "--always-dispatch",
        "`hash`",
    ]);
    let option = run(stoq(&["scan", text(&file), "--plugin-opts", "yara=3"])).expect(2);
    option.says(&["--plugin-opts \"yara=3\"", "expected PLUGIN:OPTION=VALUE"]);
    run(stoq(&["scan", "/nonexistent/file"])).expect(2).says(&["cannot scan /nonexistent/file", "No such file"]);
    run(stoq(&["run", "--data-dir", text(dir.path())])).expect(2).says(&["no connector is named", "-C"]);
}

#[test]
fn standard_input_that_holds_nothing_is_said() {
    run(stoq(&["scan"])).expect(2).says(&["content to scan was empty", "standard input"]);
    let mut from_pipe = stoq(&["scan", "-"]);
    from_pipe.stdin(Stdio::piped());
    let mut running = start(from_pipe);
    running.child.stdin.take().unwrap().write_all(b"piped").unwrap();
    let response = running.end().expect(0).response();
    assert_eq!(response["results"][0]["size"], 5);
    assert!(response["results"][0]["payload_meta"]["extra_data"]["filename"].is_null());
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..300 {
        files::write(dir.path(), &format!("{n}.zip"), &files::nested_zip(n));
    }
    let mut child = stoq(&["scan", text(dir.path())]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("{\"results\""));
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{err}");
    assert!(!err.contains("panicked") && !err.contains("roken pipe"), "{err}");
}

fn run_of(source: &Path, dir: &Path, provider: &str) -> Command {
    let provider = format!("providers.in.{provider}.source_dir={}", text(source));
    let connector = format!("connectors.out.filedir.results_dir={}", text(&dir.join("out")));
    stoq(&["run", "-a", "hash", "--data-dir", text(&dir.join("data")), "--set", &provider, "--set", &connector])
}

#[test]
fn a_data_directory_has_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("in");
    std::fs::create_dir(&source).unwrap();
    files::write(&source, "a", b"a");
    let first = start(run_of(&source, dir.path(), "dirmon"));
    until("the first response", || dir.path().join("out").read_dir().is_ok_and(|entries| entries.count() > 0));
    let second = run(run_of(&source, dir.path(), "filedir")).expect(4);
    second.says(&["data", "in use"]);
    first.signal("TERM");
    first.end().expect(0);
}

#[test]
fn a_full_disk_makes_wait_and_loses_nothing() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can mount a small file system");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (source, data) = (dir.path().join("in"), dir.path().join("data"));
    std::fs::create_dir(&source).unwrap();
    std::fs::create_dir(&data).unwrap();
    for n in 0..200 {
        files::write(&source, &format!("{n}.bin"), &files::Random(n).bytes(30_000));
    }
    if !Command::new("mount").args(["-t", "tmpfs", "-o", "size=3m", "none", text(&data)]).status().unwrap().success() {
        println!("skipped: mount is not allowed here");
        return;
    }
    let running = start(run_of(&source, dir.path(), "filedir"));
    let pid = running.child.id();
    let full = || rustix::fs::statvfs(&data).is_ok_and(|stat| stat.f_bavail * stat.f_frsize < 200_000);
    until("the disk is full", full);
    assert!(!processes().iter().any(|p| p.id == pid && p.dead), "it waits");
    let more = Command::new("mount").args(["-o", "remount,size=200m", text(&data)]).status();
    let ended = running.end();
    let responses = support::responses_in(&dir.path().join("out")).len();
    Command::new("umount").arg("-l").arg(&data).status().unwrap();
    assert!(more.unwrap().success());
    assert_eq!(ended.code(), 0, "{}", ended.err);
    assert_eq!(responses, 200, "{}", ended.err);
}

#[test]
fn a_decorator_reports_and_its_failure_is_an_error_of_the_response() {
    let dir = tempfile::tempdir().unwrap();
    let name = "\u{1b}[31mred";
    files::write(dir.path(), name, b"plain text");
    let file = dir.path().join(name);
    let scan = |more: &[&str]| {
        let mut arguments = vec!["scan", text(&file), "-a", "hash", "-D", "jinja"];
        arguments.extend(more);
        run(stoq(&arguments)).expect(0).response()
    };
    let response = scan(&[]);
    let report = response["decorators"]["jinja"].as_str().unwrap();
    assert!(report.contains("[1] \\u{1b}[31mred, 10 bytes\n") && !report.contains('\u{1b}'), "{report}");

    let template = dir.path().join("broken.tpl");
    std::fs::write(&template, "{{ response.nothing.further }}").unwrap();
    let response = scan(&["--set", &format!("decorators.jinja.jinja.template={}", text(&template))]);
    assert!(response["decorators"].as_object().unwrap().is_empty());
    let errors = response["errors"].as_array().unwrap();
    assert!(
        errors.iter().any(|e| e["plugin_name"] == "jinja" && e["error"].as_str().unwrap().starts_with("decorator: "))
    );
    std::fs::write(&template, "{% for %}").unwrap();
    let set = format!("decorators.jinja.jinja.template={}", text(&template));
    run(stoq(&["scan", text(&file), "-D", "jinja", "--set", &set])).expect(2).says(&["decorator jinja", "broken.tpl"]);
}
