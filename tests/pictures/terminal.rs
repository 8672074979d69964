//! The program on a terminal of a fixed size.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::support::{command, files, run, text};
use crate::views::{VIEWS, View};

/// Runs a command on a terminal.
pub(crate) struct Desk {
    dir: tempfile::TempDir,
}

/// Files of the scan that is shown on its way.
const SAMPLES: usize = 300;
/// A configuration with mistakes of three kinds: a key, a kind, an option.
const WRONG: &str = "[scan]\nslotz = 4\n\n[fleet]\nqueue = \"main\"\n\n[queues.main.rabitmq]\naddresses = \
                     [\"amqp://rabbitmq:5672\"]\n\n[connectors.out.filedir]\nresults_dir = \"results\"\nmax_backlg = 1000\n";

impl Desk {
    /// A directory with what the commands name, and the program under its own name.
    pub(crate) fn set_up(tree: &Path) -> Self {
        let dir = tempfile::Builder::new().prefix("stoq-pictures-").tempdir().unwrap();
        let place = |name: &str| dir.path().join(name);
        fs::create_dir_all(place("samples")).unwrap();
        fs::create_dir(place("bin")).unwrap();
        symlink(tree.join("tests"), place("tests")).unwrap();
        symlink(env!("CARGO_BIN_EXE_stoq"), place("bin/stoq")).unwrap();
        fs::write(place("stoq.toml"), WRONG).unwrap();
        let program = fs::read(tree.join("tests/fixtures/hello.exe")).unwrap();
        for n in 0..SAMPLES {
            let (name, bytes) = match n % 3 {
                0 => (format!("{n:04}.zip"), files::nested_zip(n)),
                1 => (format!("{n:04}.eml"), files::mail(n, "invoice.exe", &program)),
                _ => (format!("{n:04}.txt"), format!("note {n}\n").into_bytes()),
            };
            files::write(&place("samples"), &name, &bytes);
        }
        Self { dir }
    }

    /// What the view of this name shows in `folder`, or in the desk's own.
    pub(crate) fn show(&self, name: &str, folder: Option<&Path>, into: &Path) {
        let view = VIEWS.iter().find(|view| view.name == name).unwrap();
        let said = self.follow(view, folder.unwrap_or(self.dir.path()));
        fs::write(into.join(name).with_extension("ansi"), said).unwrap();
    }

    /// Everything that the command of a view writes to its terminal.
    fn follow(&self, view: &View, folder: &Path) -> String {
        let size = format!("stty cols {} rows {}; {}", view.columns, view.rows, view.command);
        // From util-linux: gives the command a terminal, and this process what is written to it.
        let mut script = command("script", &["--quiet", "--return", "--command", &size, "/dev/null"]);
        let others = std::env::var("PATH").unwrap_or_default();
        script.env("PATH", format!("{}:{others}", text(&self.dir.path().join("bin"))));
        script.env("TERM", "xterm-256color").current_dir(folder);
        run(script).expect(view.code).out
    }
}
