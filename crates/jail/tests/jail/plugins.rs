//! The plugins of the tests, good and bad, chosen by name in an item's header.

use std::io;

use stoq_api::PayloadMeta;
use stoq_api::scanner::{Sink, Spent};
use stoq_jail::{Hello, Item, Wire, Workload};

struct Plugins;

/// Builds them; a configuration of `broken` cannot be built.
pub(crate) fn build(config: &[u8]) -> Result<Hello, String> {
    match config {
        b"broken" => Err("rules.yar:3: no such thing".to_owned()),
        b"panics" => panic!("while building"),
        b"threads" => {
            std::thread::spawn(std::thread::park);
            Ok(Hello { workload: Box::new(Plugins), message: Vec::new() })
        }
        other => Ok(Hello { workload: Box::new(Plugins), message: other.to_vec() }),
    }
}

impl Workload for Plugins {
    fn ahead(&self, items: &[Item<'_>], starting: &mut dyn FnMut(u16)) {
        starting(0);
        match items.iter().find_map(|item| std::str::from_utf8(item.header).unwrap().strip_prefix("ahead-")) {
            Some(script) if script.starts_with("abort") => std::process::abort(),
            Some(_) => panic!("as told"),
            None => {}
        }
    }

    fn run(&self, item: &Item<'_>, wire: &mut dyn Wire) -> Vec<u8> {
        let script = std::str::from_utf8(item.header).unwrap();
        let script = script.strip_prefix("ahead-").map_or(script, |rest| rest.split_once(' ').unwrap().1);
        let mut ran = String::new();
        for (number, name) in script.split_whitespace().enumerate() {
            let number = number as u16;
            if item.excluded.contains(&number) {
                continue;
            }
            wire.starting(number);
            plugin(name, item.content, wire.sink());
            ran.push_str(&format!("{number} "));
        }
        ran.into_bytes()
    }
}

fn plugin(name: &str, content: &[u8], sink: &mut dyn Sink) {
    match name {
        "ok" => {}
        "upper" => emit(sink, "upper", &content.to_ascii_uppercase()).unwrap(),
        "len" => emit(sink, &content.len().to_string(), b"").unwrap(),
        "ends" => emit(sink, "ends", &[content[0], content[content.len() - 1]]).unwrap(),
        "process" => emit(sink, &std::process::id().to_string(), b"").unwrap(),
        "discard" => {
            sink.open(PayloadMeta::default()).unwrap();
            sink.write(b"nothing").unwrap();
            sink.close(false).unwrap();
        }
        "many" => {
            for n in 0..10_000_u32 {
                emit(sink, "child", &n.to_le_bytes().repeat(50)).unwrap();
            }
        }
        "large" => {
            sink.open(PayloadMeta::with("filename", "large")).unwrap();
            for n in 0..80_u8 {
                sink.write(&[n; 100_000]).unwrap();
            }
            sink.close(true).unwrap();
        }
        "greedy" => {
            let error = (0..).find_map(|_| emit(sink, "greedy", &[0; 1000]).err()).unwrap();
            assert!(Spent::in_io(&error).is_some(), "{error}");
        }
        "heavy-meta" => {
            assert!(sink.open(PayloadMeta::with("filename", "x".repeat(100_000))).is_err());
        }
        other => crate::escapes::plugin(other, content, sink),
    }
}

/// One whole child.
pub(crate) fn emit(sink: &mut dyn Sink, name: &str, bytes: &[u8]) -> io::Result<()> {
    sink.open(PayloadMeta::with("filename", name))?;
    match sink.write(bytes) {
        Ok(()) => sink.close(true),
        Err(error) => {
            sink.close(false)?;
            Err(error)
        }
    }
}
