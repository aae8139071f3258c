//! PostgreSQL from the distribution's binaries, with a cluster of its own: an administrator, and the
//! role `orders` owning the database `orders`. Creates no tables, and never runs as root.

mod access;
mod config;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use self::access::Access;
use crate::install::{Installer, find_program};
use crate::options::Settings;
use crate::placement;
use crate::process::{self, Signal};
use crate::server::{Server, Site};

pub(crate) fn instances(settings: &Settings) -> Vec<Box<dyn Server>> {
    let shared_buffers = settings.postgres_shared_buffers.clone();
    vec![Box::new(Postgres { shared_buffers })]
}

pub(crate) use self::access::{ADMIN_URL_FILE, MONITORING, URL_FILE, monitoring_password};

struct Postgres {
    shared_buffers: String,
}

impl Server for Postgres {
    fn name(&self) -> String {
        "postgres".to_owned()
    }

    fn ports(&self) -> Vec<(&'static str, u16)> {
        vec![("client", 5432)]
    }

    /// Debian's package creates it; the server refuses to run as root.
    fn account(&self) -> Option<&'static str> {
        Some("postgres")
    }

    fn install(&self, installer: &Installer) -> Result<()> {
        if newest_binaries().is_none() && placement::is_root() {
            keep_debian_from_starting_a_cluster()?;
        }
        installer.apt(&["postgresql"], || newest_binaries().is_some())?;
        if placement::is_root() && placement::account("postgres").is_none() {
            let step = installer.progress.step("postgres", "creating the system user postgres");
            let mut adduser = Command::new("adduser");
            adduser.args(["--system", "--group", "--no-create-home", "postgres"]);
            installer.run(adduser, &step).context("create the system user postgres")?;
        }
        Ok(())
    }

    fn prepare(&self, site: &Site) -> Result<()> {
        let port = site.port("client")?;
        let access = Access::load_or_create(&site.state_dir)?;
        access.write_client_files(&site.state_dir, port)?;
        let cluster = cluster(site);
        if !cluster.is_dir() {
            create(site, &access, &cluster)?;
        }
        forget_a_zombie(&cluster)?;
        let mut settings =
            config::Settings { port, shared_buffers: &self.shared_buffers, lz4: false };
        let configure = |settings: &config::Settings| {
            let file = cluster.join("postgresql.conf");
            placement::write_private(&file, &config::render(settings), site.account.as_ref())
        };
        configure(&settings)?;
        let mut ask = program(site, "postgres", &cluster)?;
        ask.arg("-D").arg(&cluster).args(["-C", "wal_compression", "-c", "wal_compression=lz4"]);
        settings.lz4 = ask.output().context("ask postgres about lz4")?.status.success();
        configure(&settings)
    }

    fn command(&self, site: &Site) -> Result<Command> {
        let mut command = program(site, "postgres", &cluster(site))?;
        command.arg("-D").arg(cluster(site));
        Ok(command)
    }

    fn probe(&self, site: &Site) -> Result<()> {
        let mut psql = program(site, "psql", &cluster(site))?;
        psql.args([
            "-X",
            "-q",
            "-h",
            "127.0.0.1",
            "-U",
            "orders",
            "-d",
            "orders",
            "-c",
            "select 1",
        ])
        .args(["-p", &site.port("client")?.to_string()])
        .env("PGPASSFILE", site.state_dir.join(access::PGPASS_FILE))
        .env("PGCONNECT_TIMEOUT", "2")
        // The password file belongs to whoever starts the stack, and psql may run as root.
        .uid(rustix::process::geteuid().as_raw())
        .gid(rustix::process::getegid().as_raw());
        let output = psql.output().context("start psql")?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    /// The fast shutdown: TERM would wait for every client to leave by itself.
    fn stop_signal(&self) -> Signal {
        Signal::Int
    }

    fn env(&self, site: &Site) -> Vec<(&'static str, String)> {
        let path = |file: &str| site.state_dir.join(file).display().to_string();
        vec![("DATABASE_URL_FILE", path(URL_FILE)), ("PGPASSFILE", path(access::PGPASS_FILE))]
    }

    /// A killed server leaves its System V segment, which nothing but a restart or this removes.
    fn sweep(&self, site: &Site) -> Result<()> {
        let Ok(pid_file) = fs::read_to_string(cluster(site).join("postmaster.pid")) else {
            return Ok(());
        };
        // The seventh line: the key and the id of the segment.
        let segment = pid_file.lines().nth(6).and_then(|line| line.split_whitespace().nth(1));
        let Some(segment) = segment else { return Ok(()) };
        let removed = Command::new("ipcrm").args(["-m", segment]).output();
        // The segment may have gone with a reboot, and it is 56 bytes: not worth failing for.
        removed.map(drop).context("start ipcrm")
    }
}

fn cluster(site: &Site) -> PathBuf {
    site.data_dir.join("cluster")
}

/// PostgreSQL takes the pid in its lock file for alive as long as there is such an entry in the
/// process table, a zombie included, and refuses to start.
fn forget_a_zombie(cluster: &Path) -> Result<()> {
    let file = cluster.join("postmaster.pid");
    let text = fs::read_to_string(&file).unwrap_or_default();
    let pid = text.lines().next().and_then(|line| line.trim().parse().ok());
    match pid {
        Some(pid) if process::is_zombie(pid) => {
            fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))
        }
        _ => Ok(()),
    }
}

/// Builds the cluster aside and moves it into place, so that an interrupted run is started afresh.
fn create(site: &Site, access: &Access, cluster: &Path) -> Result<()> {
    let account = site.account.as_ref();
    let draft = site.data_dir.join("cluster.draft");
    if draft.is_dir() {
        fs::remove_dir_all(&draft).with_context(|| format!("remove {}", draft.display()))?;
    }
    let password_file = site.data_dir.join("password");
    placement::write_private(&password_file, &access.admin_password, account)?;
    let mut initdb = program(site, "initdb", &draft)?;
    initdb
        .arg("--pgdata")
        .arg(&draft)
        .args(["--username", access::ADMIN, "--auth", "scram-sha-256", "--pwfile"])
        .arg(&password_file)
        // Byte order: the same on every machine, and the fastest.
        .args(["--encoding", "UTF8", "--locale", "C.UTF-8"]);
    finish(initdb, None, "initdb")?;
    fs::remove_file(&password_file).context("remove initdb's password file")?;

    // Single-user mode needs no port and no password, and nobody else can be connected meanwhile.
    let mut single = program(site, "postgres", &draft)?;
    single.args(["--single", "-j", "-D"]).arg(&draft).arg("postgres");
    finish(single, Some(&access.first_statements()), "postgres --single")?;
    fs::rename(&draft, cluster).with_context(|| format!("create {}", cluster.display()))
}

fn finish(mut command: Command, input: Option<&str>, name: &str) -> Result<()> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("start {name}"))?;
    let mut stdin = child.stdin.take().context("write to the program")?;
    // A program that ended early has closed its input; its exit status tells the rest.
    let written = stdin.write_all(input.unwrap_or_default().as_bytes());
    drop(stdin);
    let output = child.wait_with_output().with_context(|| format!("wait for {name}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    // Single-user mode reports a failed statement and goes on to a successful end.
    if !output.status.success() || said.contains("ERROR:") {
        bail!("{name} ended with {}:\n{}", output.status, said.trim());
    }
    written.with_context(|| format!("write to {name}"))
}

/// A program of the version that made `cluster`, or of the newest one for a new cluster.
fn program(site: &Site, name: &str, cluster: &Path) -> Result<Command> {
    let made_by = fs::read_to_string(cluster.join("PG_VERSION")).unwrap_or_default();
    let of_cluster =
        binaries().into_iter().find(|(version, _)| version.to_string() == made_by.trim());
    let binaries = match (of_cluster, made_by.is_empty()) {
        (Some((_, path)), _) => path,
        (None, true) => newest_binaries().context("find PostgreSQL: run `order-stack install`")?,
        (None, false) => {
            bail!("the data was made by PostgreSQL {}, which is not installed here", made_by.trim())
        }
    };
    let mut command = Command::new(binaries.join(name));
    command.current_dir(&site.data_dir).env("HOME", &site.data_dir).env("LC_ALL", "C.UTF-8");
    if let Some(account) = &site.account {
        command.uid(account.uid).gid(account.gid);
    }
    Ok(command)
}

fn newest_binaries() -> Option<PathBuf> {
    let newest = binaries().into_iter().max_by_key(|(version, _)| *version);
    newest.map(|(_, path)| path).or_else(|| Some(find_program("initdb")?.parent()?.to_owned()))
}

/// Debian keeps server programs out of the path, in one folder per major version.
fn binaries() -> Vec<(u32, PathBuf)> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    versions
        .filter_map(|entry| {
            let bin = entry.path().join("bin");
            let version = entry.file_name().to_str()?.parse().ok()?;
            bin.join("initdb").is_file().then_some((version, bin))
        })
        .collect()
}

/// The package's script would create a cluster, start it on port 5432 and have it come back at boot.
fn keep_debian_from_starting_a_cluster() -> Result<()> {
    let folder = Path::new("/etc/postgresql-common/createcluster.d");
    let file = folder.join("order-stack.conf");
    let write = || {
        fs::create_dir_all(folder)?;
        File::create(&file)?.write_all(b"# Written by order-stack, which makes its own clusters.\ncreate_main_cluster = false\n")
    };
    write().with_context(|| format!("write {}", file.display()))
}
