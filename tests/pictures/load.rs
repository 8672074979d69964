//! A small fleet on real servers, and a while in its life: a steady trickle, a burst, a plugin whose tool hangs, archives
//! that are none, messages that are no references, and a sink that is busy for a while.

use std::fs::Permissions;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use stoq_api::queue::{Message, Queue};
use stoq_testkit::services::Process;
use stoq_testkit::services::hec::{Fault, HecServer, Options, Token};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::fleet::{Broker, Fleet, Kind, ROUTES, intake_of};
use crate::support::{files, text, until};
use crate::watching::address;

/// Other people's queues: of payloads, and of references.
const PAYLOADS: &str = "mails";
const REFERENCES: &str = "sensors";
/// Payloads of a beat, and of the burst.
const TRICKLE: usize = 5;
const BURST: usize = 600;
/// Messages that are no references.
const LETTERS: usize = 3;
/// Between two beats.
const BEAT: Duration = Duration::from_secs(1);
/// The part of the run, in hundredths, in which the sink is busy.
const BUSY: Range<u128> = 50..75;
/// Where in it the burst comes, and the letters.
const BURST_AT: u128 = 45;
const LETTERS_AT: u128 = 30;
/// Where `stoq status` is looked at: there is a backlog then.
const LOOK_AT: u128 = 65;
/// More faults than there are requests while the sink is busy.
const FAULTS: usize = 100_000;
/// An ExifTool that never answers.
const HANGS: &str = "#!/usr/bin/perl\nsleep 1000;\n";
/// Only the owner may run it.
const MAY_RUN: u32 = 0o700;

/// The fleet.
pub(crate) struct Rig {
    pub(crate) fleet: Fleet,
    sink: HecServer,
    payloads: Arc<dyn Queue>,
    references: Arc<dyn Queue>,
    roles: Vec<(String, Process)>,
    programs: Vec<Vec<u8>>,
}

impl Rig {
    /// Starts servers and roles.
    pub(crate) async fn start(tree: &Path) -> Self {
        let sink = HecServer::start(Options::new(vec![Token::new("ours", true)])).await;
        let url = sink.url();
        let more = |broker: &Broker, dir: &Path| configuration(broker, dir, &url);
        let fleet = Fleet::start_over(Kind::RabbitMq, None, more).await;
        let tool = fleet.path("exiftool");
        std::fs::write(&tool, HANGS).unwrap();
        std::fs::set_permissions(&tool, Permissions::from_mode(MAY_RUN)).unwrap();
        // The shipped routes instead of those of tests.
        let configuration = std::fs::read_to_string(fleet.configuration()).unwrap().replace(ROUTES, "");
        std::fs::write(fleet.configuration(), configuration).unwrap();
        fleet.command(&["setup"]).expect(0);
        let payloads = intake_of(&fleet, "other", PAYLOADS).await;
        let references = intake_of(&fleet, "other", REFERENCES).await;
        let programs = ["hello.exe", "sample_doc_with_pe.doc", "mail.eml", "tiny.pdf"];
        let programs = programs.map(|name| std::fs::read(tree.join("tests/fixtures").join(name)).unwrap()).into();
        let mut rig = Self { fleet, sink, payloads, references, roles: Vec::new(), programs };
        for (role, name) in
            [("provider", "provider-0"), ("worker", "worker-0"), ("worker", "worker-1"), ("connector", "connector-0")]
        {
            // Their logs are read, and say where they listen.
            let mut more = vec!["--set", "core.log.level=info", "--set", "core.log.format=json"];
            if role == "worker" {
                more.extend(["--slots", "1"]);
            }
            let process = rig.fleet.role(role, &more);
            until("the log names the address", || address(&process.log()).is_some());
            rig.roles.push((name.to_owned(), process));
        }
        rig
    }

    /// Where each process tells its metrics.
    pub(crate) fn addresses(&self) -> Vec<(String, SocketAddr)> {
        self.roles.iter().map(|(name, process)| (name.clone(), address(&process.log()).unwrap())).collect()
    }

    /// Keeps it busy for so long; calls `look` once while something waits.
    pub(crate) async fn work(&self, time: Duration, look: impl Fn()) {
        let begun = Instant::now();
        let mut clock = interval(BEAT);
        clock.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let (mut number, mut before) = (0, 0);
        loop {
            clock.tick().await;
            let part = begun.elapsed().as_millis() * 100 / time.as_millis();
            if part >= 100 {
                return;
            }
            let comes = |at: u128| before < at && at <= part;
            let count = if comes(BURST_AT) { BURST } else { TRICKLE };
            let payload = |n: usize| Message::new(format!("payload-{n}"), self.payload(n));
            let messages: Vec<Message> = (number..number + count).map(payload).collect();
            self.payloads.publish(messages).await.unwrap();
            if comes(LETTERS_AT) {
                let letter = |n| Message::new(format!("letter-{n}"), format!("{{ not a reference: {n}").into_bytes());
                self.references.publish((0..LETTERS).map(letter).collect()).await.unwrap();
            }
            if comes(BUSY.start) {
                self.sink.fail_events(FAULTS, Fault::Code(9));
            }
            if comes(LOOK_AT) {
                look();
            }
            if comes(BUSY.end) {
                self.sink.mend();
            }
            (number, before) = (number + count, part);
        }
    }

    /// One of the payloads, none of which is like another.
    fn payload(&self, n: usize) -> Vec<u8> {
        let program = &self.programs[n / 6 % self.programs.len()];
        match n % 6 {
            0 => files::nested_zip(n),
            1 => files::mail(n, "invoice.zip", &files::nested_zip(n)),
            2 => files::mail(n, "invoice.exe", program),
            3 => [program.as_slice(), n.to_string().as_bytes()].concat(),
            4 if n.is_multiple_of(5) => format!("PK\u{3}\u{4} and nothing of an archive, {n}").into_bytes(),
            _ => format!("note {n}\n").into_bytes(),
        }
    }
}

/// Two intakes, two sinks and an archiver; limits so tight that what goes wrong is seen within minutes.
fn configuration(broker: &Broker, dir: &Path, sink: &str) -> String {
    let intake = |name: &str, format: &str| {
        let queue = broker.name_of_intake("other", name);
        format!("[providers.{name}.queue]\nbroker = \"main\"\nqueue = \"{queue}\"\nformat = \"{format}\"\n")
    };
    format!(
        "{}{}[connectors.siem.splunk]\nurls = [\"{sink}\"]\ntoken = \"ours\"\nretry_most = \"5 s\"\n\
         [archivers.kept.filedir]\narchive_dir = \"{}\"\n[archive]\ndestinations = [\"kept\"]\n\
         [http]\nlisten = \"127.0.0.1:0\"\n[core.log]\nlevel = \"warning\"\n\
         [scan]\nplugin_wall = \"2 s\"\nbreaker_kills = 5\nbreaker_payloads = 200\nbreaker_pause = \"45 s\"\n\
         [plugins.exif]\nbin = \"{}\"\n",
        intake(PAYLOADS, "raw"),
        intake(REFERENCES, "native"),
        text(&dir.join("archive")),
        text(&dir.join("exiftool")),
    )
}
