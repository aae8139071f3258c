//! The life of a stack: up, attach, break, restart, down. Every call that changes something holds
//! the stack's lock and works from the state file, so commands and programs can take turns.

mod launch;
mod stop;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::install::Installer;
use crate::options::{Ports, Settings, StackOptions};
use crate::placement;
use crate::process::{Liveness, Process, Signal};
use crate::progress::Progress;
use crate::server::{self, Server, Site};
use crate::servers::postgres::{ADMIN_URL_FILE, URL_FILE};
use crate::servers::{alertmanager, prometheus};
use crate::state::{LOCK_FILE, Lock, Record, State};
use crate::status::{self, ServerStatus};
use crate::wait::{self, Interrupt};
use crate::{catalogue, ports};

/// A handle on a running stack. One that `up` created is taken down when it is dropped, unless
/// [`Stack::keep`] was called; one that was already there is left alone.
#[derive(Debug)]
pub struct Stack {
    state_dir: PathBuf,
    progress: Progress,
    interrupt: Interrupt,
    down_on_drop: bool,
    found_running: bool,
}

/// What `down` does with the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Down {
    RemoveEverything,
    /// The next `up` continues on the same data and ports.
    KeepData,
}

impl Stack {
    /// Brings up what `options` ask for and returns when every server has answered a real request.
    /// A stack that is there already is completed: dead servers are started again on their data.
    pub fn up(options: &StackOptions) -> Result<Self> {
        let (progress, interrupt) = (&options.progress, &options.interrupt);
        let settings = options.settings();
        let servers = catalogue::select(&settings, &options.only, &options.with)?;
        let installer = Installer { progress: progress.clone(), interrupt: interrupt.clone() };
        interrupt.check()?;
        claim(&options.state_dir)?;
        let state_dir = fs::canonicalize(&options.state_dir)
            .with_context(|| format!("find {}", options.state_dir.display()))?;
        let lock = Lock::acquire(&state_dir, progress, interrupt)?;

        let found = State::load(&state_dir)?;
        let is_new = found.is_none();
        let mut stack = Self {
            state_dir,
            progress: progress.clone(),
            interrupt: interrupt.clone(),
            down_on_drop: false,
            found_running: false,
        };
        let result = (|| {
            for server in &servers {
                server.install(&installer)?;
            }
            let mut state = match found {
                Some(state) => agree(state, settings)?,
                None => State::new(settings)?,
            };
            stack.place(&mut state, &servers, options.ports)?;
            stack.launch(&mut state, &servers)
        })();
        match result {
            Ok(started) => {
                drop(lock);
                stack.found_running = started == 0;
                stack.down_on_drop = is_new;
                Ok(stack)
            }
            // Whoever interrupts a first start wants it undone, and before the first server has a
            // place there is nothing worth keeping; after any other failure the logs are needed.
            Err(error)
                if is_new
                    && (interrupt.is_tripped() || !stack.state_dir.join("state.json").exists()) =>
            {
                stack.remove().context("undo the start")?;
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    /// A handle on the stack in `state_dir`, which somebody else brought up and will take down.
    pub fn attach(state_dir: impl AsRef<Path>) -> Result<Self> {
        let given = state_dir.as_ref();
        let state_dir = fs::canonicalize(given).unwrap_or_else(|_| given.to_owned());
        State::expect(&state_dir)?;
        Ok(Self {
            state_dir,
            progress: Progress::silent(),
            interrupt: Interrupt::default(),
            down_on_drop: false,
            found_running: true,
        })
    }

    pub fn with_progress(mut self, progress: Progress) -> Self {
        self.progress = progress;
        self
    }

    /// Lets the stack outlive this handle.
    pub fn keep(mut self) -> Self {
        self.down_on_drop = false;
        self
    }

    /// Whether `up` had nothing to start.
    pub fn found_running(&self) -> bool {
        self.found_running
    }

    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// `host:port` of every broker, comma separated: the value of `bootstrap.servers`.
    pub fn kafka_brokers(&self) -> Result<String> {
        let brokers = self.env()?.into_iter().find(|(name, _)| *name == "KAFKA_BROKERS");
        Ok(brokers.context("this stack has no Kafka")?.1)
    }

    /// The database `orders` as its owner, who may also create databases. Holds a password.
    pub fn database_url(&self) -> Result<String> {
        self.secret(URL_FILE)
    }

    /// The database `postgres` as superuser, for what no application may do. Holds a password.
    pub fn admin_database_url(&self) -> Result<String> {
        self.secret(ADMIN_URL_FILE)
    }

    /// Tells this stack's Prometheus what to scrape for `job`; it looks within seconds.
    pub fn set_targets(&self, job: &str, targets: &[String]) -> Result<()> {
        let state = State::expect(&self.state_dir)?;
        let data_dir = &state.record("prometheus")?.data_dir;
        let account = placement::account("prometheus").filter(|_| placement::is_root());
        prometheus::write_targets(data_dir, account.as_ref(), job, targets)
    }

    /// The flags that this stack's Prometheus runs with besides those on where it is, for a second one beside it.
    pub fn prometheus_flags(&self) -> Result<Vec<String>> {
        Ok(prometheus::flags(State::expect(&self.state_dir)?.settings.monitoring_faster))
    }

    /// Where a server keeps its files, for whoever wants to spoil one on purpose; `restart` writes its configuration anew.
    pub fn data_dir(&self, server: &str) -> Result<PathBuf> {
        Ok(State::expect(&self.state_dir)?.record(server)?.data_dir.clone())
    }

    /// What Alertmanager shows to its webhook. A secret.
    pub fn webhook_token(&self) -> Result<String> {
        let state = State::expect(&self.state_dir)?;
        alertmanager::webhook_token(&state.record("alertmanager")?.data_dir)
    }

    fn secret(&self, file: &str) -> Result<String> {
        let path = self.state_dir.join(file);
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    }

    /// Environment variables for clients; secrets appear as paths of private files.
    pub fn env(&self) -> Result<Vec<(&'static str, String)>> {
        let state = State::expect(&self.state_dir)?;
        let mut env = Vec::new();
        for server in self.servers_of(&state)? {
            for (name, value) in server.env(&Site::new(&self.state_dir, &state, &*server)?) {
                // Several brokers say the same.
                if !env.iter().any(|(known, _)| *known == name) {
                    env.push((name, value));
                }
            }
        }
        Ok(env)
    }

    pub fn status(&self) -> Result<Vec<ServerStatus>> {
        let state = State::expect(&self.state_dir)?;
        Ok(state.servers.iter().map(|(name, record)| status::of(name, record)).collect())
    }

    /// Sends `signal` to a server: `Kill`, `Stop` and `Cont` to all its processes, the others to the
    /// main one. Returns from `Kill` when nothing is left of the server.
    pub fn signal(&self, server: &str, signal: Signal) -> Result<()> {
        let _lock = self.lock()?;
        let state = State::expect(&self.state_dir)?;
        let record = state.record(server)?;
        let process = record.process.as_ref().filter(|process| !process.is_dead());
        let process = process.with_context(|| format!("{server} is not running"))?;
        process.signal(signal).with_context(|| format!("signal {server}"))?;
        match signal {
            Signal::Kill => self.wait_until_gone(server, record, Duration::from_secs(10)),
            Signal::Stop => self.wait_for(server, process, Liveness::Stopped),
            Signal::Cont => self.wait_for(server, process, Liveness::Running),
            Signal::Term | Signal::Int | Signal::Hup => Ok(()),
        }
    }

    /// A crash: the server is gone without a word when this returns.
    pub fn kill(&self, server: &str) -> Result<()> {
        self.signal(server, Signal::Kill)
    }

    /// Stops one server in an orderly way; its data stays.
    pub fn stop(&self, server: &str) -> Result<()> {
        let _lock = self.lock()?;
        let mut state = State::expect(&self.state_dir)?;
        self.stop_all(&mut state, &[server.to_owned()], stop::PATIENCE)
    }

    /// Starts a server on its ports and data, after an orderly stop if it is alive, and waits until
    /// it answers.
    pub fn restart(&self, server: &str) -> Result<()> {
        let _lock = self.lock()?;
        let mut state = State::expect(&self.state_dir)?;
        state.record(server)?;
        self.stop_all(&mut state, &[server.to_owned()], stop::PATIENCE)?;
        let mut servers = self.servers_of(&state)?;
        servers.retain(|known| known.name() == server);
        self.launch(&mut state, &servers).map(drop)
    }

    pub fn down(mut self, data: Down) -> Result<()> {
        // Before the attempt: a failure is reported once, not tried again in secret.
        self.down_on_drop = false;
        // An interrupted caller takes its stack down, and wants that finished.
        self.interrupt = Interrupt::default();
        let _lock = self.lock()?;
        match data {
            Down::RemoveEverything => self.remove(),
            Down::KeepData => {
                let mut state = State::expect(&self.state_dir)?;
                let all: Vec<String> = state.servers.keys().cloned().collect();
                self.stop_all(&mut state, &all, stop::PATIENCE)
            }
        }
    }

    fn lock(&self) -> Result<Lock> {
        State::expect(&self.state_dir)?;
        Lock::acquire(&self.state_dir, &self.progress, &self.interrupt)
    }

    fn servers_of(&self, state: &State) -> Result<Vec<Box<dyn Server>>> {
        let mut servers = catalogue::all(&state.settings);
        servers.retain(|server| state.servers.contains_key(&server.name()));
        Ok(servers)
    }

    /// Gives servers that are new to the stack their ports and directories.
    fn place(&self, state: &mut State, servers: &[Box<dyn Server>], choice: Ports) -> Result<()> {
        let new = servers.iter().filter(|server| !state.servers.contains_key(&server.name()));
        let new: Vec<_> = new.collect();
        let count = new.iter().map(|server| server.ports().len()).sum();
        let free = match choice {
            Ports::Default => Vec::new(),
            Ports::Free => ports::free(count)?,
        };
        let mut free = free.into_iter();
        for server in new {
            let name = server.name();
            let account = server::account(&**server);
            let roles = server.ports().into_iter();
            let ports = roles.map(|(role, port)| (role.to_owned(), free.next().unwrap_or(port)));
            let record = Record {
                ports: ports.collect(),
                data_dir: placement::data_dir(&self.state_dir, &name, account.as_ref()),
                log: self.state_dir.join("logs").join(format!("{name}.log")),
                process: None,
            };
            state.servers.insert(name, record);
        }
        Ok(())
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if self.down_on_drop {
            self.interrupt = Interrupt::default();
            let removed = self.lock().and_then(|_lock| self.remove());
            if let Err(error) = removed {
                eprintln!(
                    "could not take the stack in {} down: {error:#}",
                    self.state_dir.display()
                );
            }
        }
    }
}

/// Installs what `up` with the same options would need.
pub fn install(options: &StackOptions) -> Result<()> {
    let progress = options.progress.clone();
    let installer = Installer { progress, interrupt: options.interrupt.clone() };
    let servers = catalogue::select(&options.settings(), &options.only, &options.with)?;
    servers.iter().try_for_each(|server| server.install(&installer))
}

/// Makes `state_dir` ours, and refuses a directory that holds somebody else's files: `down` will
/// remove all of it.
fn claim(state_dir: &Path) -> Result<()> {
    let found = fs::read_dir(state_dir).into_iter().flatten().flatten();
    // Another `up` may be between its first two files.
    let foreign = |name: &std::ffi::OsStr| name != LOCK_FILE && name != ".gitignore";
    let is_stack = state_dir.join("state.json").exists();
    if !is_stack && found.map(|entry| entry.file_name()).any(|name| foreign(&name)) {
        bail!("{} holds other files; choose an empty directory", state_dir.display());
    }
    placement::create_state_dir(state_dir)?;
    let ignore = state_dir.join(".gitignore");
    fs::write(&ignore, "*\n").with_context(|| format!("write {}", ignore.display()))
}

/// Later choices count from the next start on, except those that the data has settled.
fn agree(mut state: State, settings: Settings) -> Result<State> {
    if state.settings.brokers != settings.brokers {
        bail!(
            "the stack here has {} broker(s) and {} were asked for; run `order-stack down` first",
            state.settings.brokers,
            settings.brokers
        );
    }
    state.settings = settings;
    Ok(state)
}
