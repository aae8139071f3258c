//! `order-load boards`: every panel and variable of Grafana's boards, asked of a Prometheus that watched a real run with
//! faults, and what they show compared with what the run did.
//!
//! Promises that a panel counts as proven only when its own query, as it stands in the file, answered with data, and that the
//! numbers compared are known from elsewhere: counted by clients, read from topics and tables, decided by the gateway.

mod board;
mod filling;
mod till;
mod poison;
mod pushed;
mod happen;
mod happened;
mod walk;
mod query;
mod values;
mod comparison;
mod table;

use std::io::{Write, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::Args;

use self::table::Proven;
use self::walk::{Span, Walk};
use crate::scene::Scene;
use crate::signals::Signals;

/// As a shell counts an end by Ctrl-C.
const INTERRUPTED: u8 = 130;

/// What to prove.
#[derive(Args, Clone, Debug)]
pub struct BoardsArgs {
    /// The folder of the boards.
    #[arg(long, default_value = "grafana/dashboards", value_name = "DIR")]
    pub boards: PathBuf,

    /// Where the servers keep everything they write; removed at the end.
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

/// Brings everything up, makes things happen, asks every question, and prints what came of it.
pub async fn run(args: BoardsArgs) -> anyhow::Result<ExitCode> {
    let state_dir = args.state_dir.clone().unwrap_or_else(|| {
        std::env::temp_dir().join(format!("order-boards-{}", std::process::id()))
    });
    let signals = Signals::listen()?;
    let Some(proven) = prove(&args.boards, &state_dir, Some(&signals)).await? else {
        return Ok(ExitCode::from(INTERRUPTED));
    };
    stdout().write_all(proven.text().as_bytes()).context("write the table")?;
    Ok(if proven.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// For tests: fails with the table when something is not as it should be.
pub async fn expect(boards: &Path, state_dir: &Path) -> anyhow::Result<()> {
    let proven = prove(boards, state_dir, None).await?.context("nobody interrupts a test")?;
    ensure!(proven.is_good(), "{}", proven.text());
    Ok(())
}

/// `None` when somebody wanted an end before.
async fn prove(
    folder: &Path,
    state_dir: &Path,
    signals: Option<&Signals>,
) -> anyhow::Result<Option<Proven>> {
    let boards = board::read(folder)?;
    let scene = match Scene::open(state_dir, true, signals).await {
        Ok(scene) => scene,
        Err(_) if signals.is_some_and(Signals::came) => return Ok(None),
        Err(error) => return Err(error.context("bring everything up")),
    };
    let interrupted = async {
        match signals {
            Some(signals) => signals.wait().await,
            None => std::future::pending().await,
        }
    };
    let proven = tokio::select! {
        proven = look(&scene, &boards) => Some(proven),
        () = interrupted => None,
    };
    let closed = scene.close().await;
    let proven = proven.transpose()?;
    closed?;
    Ok(proven)
}

async fn look(scene: &Scene, boards: &[board::Board]) -> anyhow::Result<Proven> {
    let happened = happen::happen(scene).await?;
    say("every question of every board");
    let span = Span { from: happened.begun, to: happened.lively };
    let walk = Walk::new(&scene.prometheus, span);
    let mut walked = Vec::new();
    for board in boards {
        walked.push(walk.over(board).await?);
    }
    let mut compared = Vec::new();
    for known in values::known(&happened)? {
        compared.push(known.compare(boards, &scene.prometheus).await?);
    }
    Ok(Proven { walked, compared })
}

/// What goes on, for the person at the terminal; results go to standard output.
fn say(line: &str) {
    eprintln!("{line}");
}
