//! `filedir` over real directories, with what an attacker can put into one.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::json;
use stoq_api::plugin::RootBytes;

use super::*;
use crate::testing::{all, as_nobody, context, fifo, name_of, reference, skipped};

fn config(paths: &[&Path], recursive: bool) -> Config {
    Config { source_dir: paths.iter().map(|p| p.to_path_buf()).collect(), recursive, ..Config::default() }
}

async fn names(config: &Config, context: &Context) -> Vec<String> {
    all(&mut FileDir::new(config, context).unwrap()).await.iter().map(name_of).collect()
}

fn content(reference: &Reference) -> Vec<u8> {
    match &reference.roots[0].bytes {
        RootBytes::Content(content) => content.to_bytes().unwrap().to_vec(),
        RootBytes::File(file) => panic!("left in place: {file:?}"),
        RootBytes::Unreadable { reason, .. } => panic!("{reason}"),
        RootBytes::Remote(remote) => panic!("{remote:?}"),
    }
}

#[tokio::test]
async fn files_come_by_name_with_stoqs_metadata() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().canonicalize().unwrap();
    std::fs::create_dir_all(source.join("sub")).unwrap();
    for (name, bytes) in [("b", "2"), ("a", "1"), (".hidden", "h"), ("sub/c", "3")] {
        std::fs::write(source.join(name), bytes).unwrap();
    }
    let (context, skips) = context(dir.path());
    let options = json!({"source_dir": source, "recursive": true}).as_object().cloned().unwrap();
    let mut provider = (registration().build)(&options, &context).unwrap();
    let references = all(&mut *provider).await;
    let seen: Vec<_> = references.iter().map(|r| (name_of(r), content(r))).collect();
    assert_eq!(seen, [("a".into(), b"1".to_vec()), ("b".into(), b"2".to_vec()), ("c".into(), b"3".to_vec())]);
    assert_eq!(references[2].roots[0].meta.extra_data["source_dir"], json!(source.join("sub")));
    assert!(skips.lock().is_empty());
    assert_eq!(names(&config(&[&source], false), &context).await, ["a", "b"]);
}

#[tokio::test]
async fn the_same_file_has_the_same_identity_in_one_run_only() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f"), "x").unwrap();
    let (mut context, _) = context(dir.path());
    let config = config(&[dir.path()], false);
    let mut identities = Vec::new();
    for run in ["one", "one", "two"] {
        context.run_id = run.to_owned();
        let references = all(&mut FileDir::new(&config, &context).unwrap()).await;
        identities.push(references[0].identity.clone());
    }
    assert_eq!(identities[0], identities[1]);
    assert_ne!(identities[0], identities[2]);
}

#[tokio::test]
async fn links_pipes_and_sockets_are_skipped_and_said() {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
    std::os::unix::fs::symlink("/etc", dir.path().join("dirlink")).unwrap();
    fifo(&dir.path().join("pipe"));
    let _listener = std::os::unix::net::UnixListener::bind(dir.path().join("sock")).unwrap();
    std::fs::write(dir.path().join("ok"), "x").unwrap();
    let (context, skips) = context(dir.path());
    assert_eq!(names(&config(&[dir.path()], true), &context).await, ["ok"]);
    assert_eq!(skipped(&skips), ["dirlink", "link", "pipe", "sock"].map(PathBuf::from));
}

#[tokio::test]
async fn a_pipe_that_was_asked_for_is_an_answer() {
    let dir = tempfile::tempdir().unwrap();
    fifo(&dir.path().join("pipe"));
    let (context, _) = context(dir.path());
    let references = all(&mut FileDir::new(&config(&[&dir.path().join("pipe")], false), &context).unwrap()).await;
    let RootBytes::Unreadable { reason, .. } = &references[0].roots[0].bytes else { panic!("a pipe was read") };
    assert!(reason.contains("is a named pipe, not a regular file"), "{reason}");
}

#[tokio::test]
async fn hostile_names_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let names = [&b"\x1b[2Jgone"[..], b"\xff\xfe", b"a\nb", b"gnp.\xe2\x80\xaeexe"];
    for name in names {
        std::fs::write(dir.path().join(OsStr::from_bytes(name)), "x").unwrap();
    }
    let (context, _) = context(dir.path());
    let references = all(&mut FileDir::new(&config(&[dir.path()], false), &context).unwrap()).await;
    let seen: Vec<_> = references.iter().map(name_of).collect();
    assert_eq!(seen, ["\u{1b}[2Jgone", "a\nb", "gnp.\u{202e}exe", "\u{fffd}\u{fffd}"]);
    assert_eq!(references[3].roots[0].meta.extra_data["filename_hex"], "fffe");
}

#[tokio::test]
async fn a_large_file_stays_in_place_and_a_too_large_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let large = std::fs::File::create(dir.path().join("large")).unwrap();
    large.set_len(1 << 30).unwrap();
    let huge = std::fs::File::create(dir.path().join("sparse")).unwrap();
    huge.set_len(5 << 30).unwrap();
    let (context, _) = context(dir.path());
    let references = all(&mut FileDir::new(&config(&[dir.path()], false), &context).unwrap()).await;
    let RootBytes::File(file) = &references[0].roots[0].bytes else { panic!("not left in place") };
    assert_eq!((file.size, file.root.as_str()), (1 << 30, "src"));
    let (open, difference) = context.roots.open_ref(file).unwrap();
    assert_eq!((open.state.size, difference), (1 << 30, None));
    let RootBytes::Unreadable { reason, size } = &references[1].roots[0].bytes else { panic!("not refused") };
    assert_eq!(*size, 5 << 30);
    assert_eq!(
        reason,
        "5368709120 bytes are more than max_payload allows (4294967296): raise it to have such files scanned"
    );
}

#[tokio::test]
async fn a_large_file_is_copied_for_workers_that_do_not_see_it() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("large"), [7; 100_000]).unwrap();
    let (mut context, _) = context(dir.path());
    context.workers_see_files = false;
    let references = all(&mut FileDir::new(&config(&[dir.path()], false), &context).unwrap()).await;
    let RootBytes::Content(content) = &references[0].roots[0].bytes else { panic!("not copied") };
    std::fs::write(dir.path().join("large"), "changed").unwrap();
    assert_eq!(content.to_bytes().unwrap(), vec![7; 100_000]);
}

#[tokio::test]
async fn sources_beneath_a_configured_root_use_it() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("in")).unwrap();
    std::fs::write(dir.path().join("in/f"), [1; 17]).unwrap();
    std::fs::write(dir.path().join("in/g"), [1; 18]).unwrap();
    let (context, _) = context(dir.path());
    context.roots.add("shared", dir.path()).unwrap();
    let sources = [dir.path().join("in/f"), dir.path().join("in/g")];
    let config = Config { source_dir: sources.to_vec(), ..Config::default() };
    let references = all(&mut FileDir::new(&config, &context).unwrap()).await;
    for (reference, path) in references.iter().zip(["in/f", "in/g"]) {
        let RootBytes::File(file) = &reference.roots[0].bytes else { panic!("not left in place") };
        assert_eq!((file.root.as_str(), &file.path), ("shared", &stoq_api::task::RawPath::Text(path.into())));
    }
}

#[test]
fn what_may_not_be_read_is_said_and_the_rest_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("closed")).unwrap();
    for name in ["a", "b", "closed/c"] {
        std::fs::write(dir.path().join(name), "x").unwrap();
    }
    for (path, mode) in [(".", 0o755), ("a", 0), ("closed", 0)] {
        std::fs::set_permissions(dir.path().join(path), PermissionsExt::from_mode(mode)).unwrap();
    }
    let (context, skips) = context(dir.path());
    let config = config(&[dir.path()], true);
    let references = as_nobody(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async { all(&mut FileDir::new(&config, &context).unwrap()).await })
    });
    std::fs::set_permissions(dir.path().join("closed"), PermissionsExt::from_mode(0o700)).unwrap();
    let RootBytes::Unreadable { reason, size: 1 } = &references[0].roots[0].bytes else { panic!("was read") };
    assert!(reason.contains("may not be read by this user"), "{reason}");
    assert_eq!(name_of(&references[1]), "b");
    assert_eq!(name_of(&references[2]), "closed");
    let RootBytes::Unreadable { reason, .. } = &references[2].roots[0].bytes else { panic!("was read") };
    assert!(reason.starts_with("directory cannot be listed: "), "{reason}");
    assert!(skipped(&skips).is_empty(), "payloads may be in it, so it is no mere skip");
}

#[test]
fn a_source_that_is_not_there_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let (context, _) = context(dir.path());
    for (config, text) in [
        (Config::default(), "source_dir is not set"),
        (config(&[Path::new("/nowhere")], false), "source_dir \"/nowhere\": No such file or directory"),
    ] {
        let error = FileDir::new(&config, &context).err().unwrap().to_string();
        assert!(error.starts_with(text), "{error}");
    }
}

#[tokio::test]
async fn a_run_that_was_cut_off_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("in");
    std::fs::create_dir(&source).unwrap();
    for name in ["a", "b", "c"] {
        std::fs::write(source.join(name), name).unwrap();
    }
    let (mut context, _) = context(dir.path());
    context.lasting = true;
    let config = config(&[&source], false);
    let mut provider = FileDir::new(&config, &context).unwrap();
    let first = reference(provider.next().await.unwrap().unwrap());
    assert_eq!(name_of(&first), "a");
    first.taken.taken().await.unwrap();
    provider.next().await.unwrap().unwrap();
    drop(provider);
    assert_eq!(names(&config, &context).await, ["b", "c"], "what was offered but not taken comes again");
    std::fs::write(source.join("a"), "changed").unwrap();
    assert_eq!(names(&config, &context).await, ["a", "b", "c"]);
    context.run_id = "another".to_owned();
    assert_eq!(names(&config, &context).await, ["a", "b", "c"]);
    context.run_id = "run".to_owned();
    context.lasting = false;
    assert_eq!(names(&config, &context).await, ["a", "b", "c"]);
}
