//! `cargo xtask k8s`: Kubernetes and KEDA, built once from their modules, and the chart's test upon them, with its plot.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::plot::{self, Curve, Panel};
use crate::{golang, services};

/// The folder in the cache: Kubernetes' version, and how often we changed what is in it. `tests/k8s` asks for the same.
const FOLDER: &str = "k8s-1.36.3-1";
/// One module with all programs, so that they share what they are compiled from. It says which versions.
const MODULE: [(&str, &str); 2] =
    [("go.mod", include_str!("../k8s/go.mod")), ("go.sum", include_str!("../k8s/go.sum"))];
/// The programs do not know their version unless they are told while they are linked, and helm asks for it.
const LINK: &str = "-ldflags=-s -X k8s.io/component-base/version.gitVersion=v1.36.3 -X k8s.io/component-base/version.gitMajor=1 \
     -X k8s.io/component-base/version.gitMinor=36";
/// What they are called in the cache, and the packages that they are.
const PROGRAMS: &[(&str, &str)] = &[
    ("etcd", "go.etcd.io/etcd/server/v3"),
    ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
    ("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
    ("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
    ("kwok", "sigs.k8s.io/kwok/cmd/kwok"),
    ("keda-operator", "github.com/kedacore/keda/v2/cmd/operator"),
    ("keda-adapter", "github.com/kedacore/keda/v2/cmd/adapter"),
];
/// Files of modules that are needed beside them: from where, and the folder that they are put into.
const FILES: &[(&str, &str, &str)] = &[
    ("github.com/kedacore/keda/v2", "config/crd/bases", "keda-crds"),
    ("sigs.k8s.io/kwok", "kustomize/stage/node/fast", "kwok-stages"),
    ("sigs.k8s.io/kwok", "kustomize/stage/node/heartbeat-with-lease", "kwok-stages"),
];
/// Beside the definitions and stages in those folders lies how to put them together.
const NO_OBJECT: &str = "kustomization.yaml";
/// The plot, beside the page that shows it, and where the test leaves its figures.
const DRAWING: &str = "docs/k8s.svg";
const TIMELINE: &str = "target/k8s.csv";
/// Seconds between two labels of the time axis.
const LABEL: u32 = 30;
const ORANGE: &str = "#e08214";
const BLUE: &str = "#2166ac";
const RED: &str = "#b2182b";

/// Builds what is not there, and runs the test as `arguments` say.
pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<()> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["test", "--locked", "-p", "stoq", "--test", "k8s", "--", "--ignored", "--nocapture"]);
    let timeline = root.join(TIMELINE);
    cargo.current_dir(root).env("K8S_TIMELINE", &timeline);
    let (mut draw, mut only_build) = (false, false);
    let mut rest = arguments.iter();
    while let Some(flag) = rest.next() {
        let mut value = || rest.next().with_context(|| format!("{flag} needs a value"));
        match flag.as_str() {
            "--payloads" => cargo.env("K8S_PAYLOADS", value()?),
            // The test runs elsewhere.
            "--program" => {
                let path = value()?;
                cargo.env("K8S_PROGRAM", fs::canonicalize(path).with_context(|| format!("there is no {path}"))?)
            }
            "--draw" => {
                draw = true;
                &mut cargo
            }
            "--build" => {
                only_build = true;
                &mut cargo
            }
            _ => bail!("unknown flag {flag}; there are --payloads, --program, --draw, --build"),
        };
    }
    services::once(&services::cache()?.join(FOLDER), build)?;
    services::go_program("helm")?;
    if only_build {
        return Ok(());
    }
    fs::create_dir_all(root.join("target")).context("cannot make the folder target")?;
    ensure!(cargo.status().context("running cargo test")?.success(), "the chart's test failed; its output is above");
    if draw {
        let table = fs::read_to_string(&timeline).with_context(|| format!("cannot read {TIMELINE}"))?;
        fs::write(root.join(DRAWING), drawing(&table)?).with_context(|| format!("cannot write {DRAWING}"))?;
    }
    Ok(())
}

fn build(folder: &Path) -> Result<()> {
    for (name, text) in MODULE {
        fs::write(folder.join(name), text).with_context(|| format!("cannot write {name} to {}", folder.display()))?;
    }
    for (name, package) in PROGRAMS {
        services::say(&format!(
            "building {name}, once; all of Kubernetes and KEDA take some 25 minutes of a processor"
        ));
        let mut go = go(folder)?;
        // Its objects stay in Go's own cache, so that a build that was broken off goes on where it was.
        go.args(["build", "-buildvcs=false", "-mod=readonly", LINK, "-o", name, package]);
        services::run(go, golang::ADVICE)?;
    }
    for (module, from, into) in FILES {
        let listed = go(folder)?.args(["list", "-mod=readonly", "-m", "-f", "{{.Dir}}", module]).output()?;
        ensure!(listed.status.success(), "{module}: {}", String::from_utf8_lossy(&listed.stderr));
        let source = PathBuf::from(String::from_utf8(listed.stdout)?.trim_end()).join(from);
        let into = folder.join(into);
        fs::create_dir_all(&into)?;
        for entry in fs::read_dir(&source).with_context(|| format!("{module} has no {from}"))? {
            let (path, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
            if path.extension().is_some_and(|extension| extension == "yaml") && name != NO_OBJECT {
                // Written, not copied: modules may only be read.
                fs::write(into.join(name), fs::read(&path)?)?;
            }
        }
    }
    Ok(())
}

fn go(folder: &Path) -> Result<Command> {
    let mut go = golang::go()?;
    go.env("CGO_ENABLED", "0").current_dir(folder);
    Ok(go)
}

/// The run over time: payloads without a document, then for each role what was asked for and what ran.
fn drawing(table: &str) -> Result<String> {
    let mut lines = table.lines();
    let columns = lines.next().map_or(0, |head| head.split(',').count());
    let rows: Vec<Vec<f64>> = lines
        .map(|line| line.split(',').map(str::parse).collect::<Result<Vec<f64>, _>>())
        .collect::<Result<_, _>>()
        .context("the timeline holds something that is no number")?;
    ensure!(
        columns == 8 && rows.iter().all(|row| row.len() == columns),
        "the timeline has other columns than it should"
    );
    let end = rows.last().map_or(1.0, |row| row[0].max(1.0));
    let curve =
        |column: usize, colour| Curve { colour, points: rows.iter().map(|r| (r[0] / end, r[column])).collect() };
    // What is counted changes at once.
    let stairs = |column: usize, colour| {
        let mut points: Vec<(f64, f64)> = Vec::new();
        for row in &rows {
            let before = points.last().map_or(row[column], |(_, value)| *value);
            points.extend([(row[0] / end, before), (row[0] / end, row[column])]);
        }
        Curve { colour, points }
    };
    let counts =
        |title, column| Panel { title, height: 90.0, curves: vec![stairs(column + 1, BLUE), stairs(column, ORANGE)] };
    let panels = [
        Panel { title: "payloads without a document", height: 200.0, curves: vec![curve(1, RED)] },
        counts("workers: asked for by the Deployment (orange), processes (blue)", 4),
        counts("providers", 2),
        counts("connectors", 6),
    ];
    let labels = (0..).map(|n| n * LABEL).take_while(|at| f64::from(*at) <= end);
    let labels: Vec<_> = labels.map(|at| (f64::from(at) / end, format!("{at} s"))).collect();
    Ok(plot::draw(&panels, &labels))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "seconds,open,a,b,c,d,e,f\n";

    #[test]
    fn counts_are_drawn_as_stairs() {
        let drawn = drawing(&format!("{HEAD}0,0,0,0,0,0,0,0\n60,10,1,1,4,2,1,1\n")).expect("a table");
        // Workers: orange reaches the top at the end, blue half of it.
        assert!(drawn.contains("70.0,360.0 70.0,360.0 1030.0,360.0 1030.0,270.0"), "{drawn}");
        assert!(drawn.contains("1030.0,360.0 1030.0,315.0"), "{drawn}");
        assert!(drawn.contains(">60 s<"), "{drawn}");
    }

    #[test]
    fn other_tables_are_refused() {
        assert!(drawing("seconds,open\n0,1\n").is_err());
        assert!(drawing(&format!("{HEAD}0,0,0,0,0,0,0,x\n")).is_err());
    }
}
