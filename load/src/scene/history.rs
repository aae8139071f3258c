//! Yesterday, written behind Prometheus' back the way its own tool does it: as a block of samples that are a day old.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use tokio::process::Command;

use super::{Scene, shorter};

/// Makes `series` have had `value` at this time yesterday, for `length` from now on. Prometheus sees it within a minute.
pub(crate) async fn yesterday(
    scene: &Scene,
    series: &str,
    value: f64,
    length: Duration,
) -> anyhow::Result<()> {
    let family = series.split('{').next().unwrap_or(series);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("it is after 1970")?;
    let begin = now - shorter(86_400) - shorter(600);
    let step = shorter(15);
    let mut text = format!("# TYPE {family} gauge\n");
    let mut at = begin;
    while at < now - shorter(86_400) + length {
        writeln!(text, "{series} {value} {:.3}", at.as_secs_f64())?;
        at += step;
    }
    text.push_str("# EOF\n");
    let file = scene.pipeline.directory().join("yesterday");
    let blocks = scene.pipeline.directory().join("blocks");
    fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
    let made = Command::new("promtool")
        .args(["tsdb", "create-blocks-from", "openmetrics", "--quiet"])
        .args([&file, &blocks])
        .output()
        .await
        .context("run promtool")?;
    ensure!(made.status.success(), "promtool: {}", String::from_utf8_lossy(&made.stderr));
    let data = scene.stack.data_dir("prometheus")?.join("data");
    for block in fs::read_dir(&blocks).context("read the blocks")?.flatten() {
        move_block(&block.path(), &data)?;
    }
    Ok(())
}

/// A block is there at once or not at all; it belongs to whom the others belong.
fn move_block(block: &Path, data: &Path) -> anyhow::Result<()> {
    let owner = fs::metadata(data).with_context(|| format!("look at {}", data.display()))?;
    let name = block.file_name().context("a block has a name")?;
    let draft = data.join(format!("{}.tmp-for-creation", name.to_string_lossy()));
    copy_for(block, &draft, (owner.uid(), owner.gid()))?;
    fs::rename(&draft, data.join(name)).context("put a block in its place")?;
    fs::remove_dir_all(block).with_context(|| format!("remove {}", block.display()))
}

fn copy_for(from: &Path, to: &Path, owner: (u32, u32)) -> anyhow::Result<()> {
    if from.is_dir() {
        fs::create_dir_all(to).with_context(|| format!("create {}", to.display()))?;
        for entry in fs::read_dir(from).with_context(|| format!("read {}", from.display()))? {
            let entry = entry.with_context(|| format!("read {}", from.display()))?;
            copy_for(&entry.path(), &to.join(entry.file_name()), owner)?;
        }
    } else {
        fs::copy(from, to).with_context(|| format!("copy {}", from.display()))?;
    }
    std::os::unix::fs::chown(to, Some(owner.0), Some(owner.1))
        .with_context(|| format!("hand {} over", to.display()))
}
