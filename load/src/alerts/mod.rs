//! `order-load alerts`: every alert, proven by a real fault on live servers.
//!
//! Promises that an alert counts as proven only when it arrived at the other end of Alertmanager with its labels and a whole
//! text, when its end arrived after the fault was mended, and when nothing else was told but what the fault's entry in
//! the catalogue names with a reason. Time runs `scene::FASTER` for those that watch; whatever happens, all of
//! it is taken down.

mod catalogue;
mod fault;
mod faults;
mod known;
mod proof;
mod second;
mod table;

use std::collections::BTreeSet;
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::Args;

use self::fault::Fault;
use self::table::Row;
use crate::scene::Scene;
use crate::signals::Signals;

/// As a shell counts an end by Ctrl-C.
const INTERRUPTED: u8 = 130;

/// What to prove.
#[derive(Args, Clone, Debug)]
pub struct AlertsArgs {
    /// Only the faults that prove these alerts.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub only: Vec<String>,

    /// Say what would be done, and what is not proven here, and leave.
    #[arg(long)]
    pub list: bool,

    /// Where the servers keep everything they write; removed at the end.
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

/// Brings everything up, proves what `args` ask for, and prints the table.
pub async fn run(args: AlertsArgs) -> anyhow::Result<ExitCode> {
    if args.list {
        stdout().write_all(table::list().as_bytes()).context("write the list")?;
        return Ok(ExitCode::SUCCESS);
    }
    let state_dir = args.state_dir.clone().unwrap_or_else(|| {
        std::env::temp_dir().join(format!("order-alerts-{}", std::process::id()))
    });
    let signals = Signals::listen()?;
    let proving = prove(&args.only, &state_dir, Some(&signals));
    let (rows, finished) = proving.await?;
    let good = rows.iter().all(|row| row.outcome.is_ok());
    stdout().write_all(table::text(&rows, finished).as_bytes()).context("write the table")?;
    Ok(match (finished, good) {
        (false, _) => ExitCode::from(INTERRUPTED),
        (true, true) => ExitCode::SUCCESS,
        (true, false) => ExitCode::FAILURE,
    })
}

/// For tests: proves `only`, and fails with the table when something did not go as it should.
pub async fn expect(only: &[&str], state_dir: &Path) -> anyhow::Result<()> {
    let only: Vec<String> = only.iter().map(|name| (*name).to_owned()).collect();
    let (rows, finished) = prove(&only, state_dir, None).await?;
    ensure!(rows.iter().all(|row| row.outcome.is_ok()), "{}", table::text(&rows, finished));
    Ok(())
}

/// What came of it so far, and whether nobody wanted an end before it was all.
async fn prove(
    only: &[String],
    state_dir: &Path,
    signals: Option<&Signals>,
) -> anyhow::Result<(Vec<Row>, bool)> {
    let chosen = catalogue::choose(only)?;
    let mut rows = Vec::new();
    // Orders with workflows cost two cores a lot: only where they are needed.
    for temporal in [false, true] {
        let faults: Vec<&Fault> =
            chosen.iter().copied().filter(|fault| fault.temporal == temporal).collect();
        if faults.is_empty() {
            continue;
        }
        let scene = match Scene::open(state_dir, temporal, signals).await {
            Ok(scene) => scene,
            Err(_) if signals.is_some_and(Signals::came) => return Ok((rows, false)),
            Err(error) => return Err(error.context("bring everything up")),
        };
        scene.orders.set_rate(scene.usual_rate());
        let finished = one_by_one(&scene, &faults, signals, &mut rows).await;
        let closed = scene.close().await;
        if !finished {
            return Ok((rows, false));
        }
        closed?;
    }
    Ok((rows, true))
}

/// `false` when it was interrupted.
async fn one_by_one(
    scene: &Scene,
    faults: &[&'static Fault],
    signals: Option<&Signals>,
    rows: &mut Vec<Row>,
) -> bool {
    for (number, fault) in faults.iter().enumerate() {
        let names: BTreeSet<_> = fault.proves.iter().map(|expected| expected.alert).collect();
        let names: Vec<_> = names.into_iter().collect();
        say(&format!("[{} of {}] {}: {}", number + 1, faults.len(), fault.what, names.join(", ")));
        let begun = Instant::now();
        let proving = proof::prove(scene, fault);
        let interrupted = async {
            match signals {
                Some(signals) => signals.wait().await,
                None => std::future::pending().await,
            }
        };
        let outcome = tokio::select! {
            outcome = proving => outcome,
            () = interrupted => return false,
        };
        let took = begun.elapsed().as_secs_f64();
        match &outcome {
            Ok(_) => say(&format!("    proven in {took:.0} s")),
            Err(error) => say(&format!("    FAILED after {took:.0} s: {error:#}")),
        }
        rows.push(Row { fault, outcome });
    }
    let messages = scene.receiver.messages();
    let messages: Vec<_> = messages.iter().map(|(end, count)| format!("{end} {count}")).collect();
    say(&format!("messages by whom they reached: {}", messages.join(", ")));
    true
}

/// What goes on, for the person at the terminal; results go to standard output.
fn say(line: &str) {
    eprintln!("{line}");
}
