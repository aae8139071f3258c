//! Ending servers: the orderly request first, force after a bound, and only ever processes that the
//! state file knows by pid and start time.

use super::*;

/// For data that stays: a broker hands over its leaderships, Postgres writes a checkpoint.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// For data that goes away anyway, and for servers that have barely started. The last of three brokers
/// has no quorum left to say goodbye to, and would wait for its answer in vain.
pub(super) const HASTE: Duration = Duration::from_secs(3);

const KILL_LIMIT: Duration = Duration::from_secs(10);

impl Stack {
    /// Asks all of `names` at once, because brokers that stop one after the other wait for each
    /// other's votes.
    pub(super) fn stop_all(
        &self,
        state: &mut State,
        names: &[String],
        patience: Duration,
    ) -> Result<()> {
        let mut asked = Vec::new();
        for server in self.servers_of(state)?.iter().filter(|s| names.contains(&s.name())) {
            let Some(process) = state.record(&server.name())?.process.clone() else { continue };
            if !process.is_dead() {
                let step = self.progress.step(&server.name(), "stopping");
                // A frozen process would not notice the request.
                process.signal(Signal::Cont)?;
                process.signal(server.stop_signal())?;
                asked.push((server.name(), process, step));
            }
        }
        let deadline = std::time::Instant::now() + patience;
        for (name, process, step) in asked {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            let gone = wait::until(left, &self.interrupt, || Ok(process.is_dead().then_some(())))?;
            if gone.is_none() {
                step.now("still there, killing it");
                process.signal(Signal::Kill)?;
            }
            self.wait_until_gone(&name, state.record(&name)?, KILL_LIMIT)?;
            step.done("stopped");
        }
        for name in names {
            if let Some(record) = state.servers.get_mut(name) {
                record.process = None;
            }
        }
        state.save(&self.state_dir)
    }

    /// Stops everything and removes every trace; the caller holds the lock.
    pub(super) fn remove(&self) -> Result<()> {
        let quiet = self.uninterrupted();
        if let Some(mut state) = State::load(&self.state_dir)? {
            let servers = self.servers_of(&state)?;
            for server in &servers {
                let record = state.record(&server.name())?;
                if record.process.as_ref().is_some_and(Process::is_dead) {
                    quiet.wait_until_gone(&server.name(), record, KILL_LIMIT)?;
                }
            }
            let all: Vec<String> = state.servers.keys().cloned().collect();
            quiet.stop_all(&mut state, &all, HASTE)?;
            for server in &servers {
                server.sweep(&Site::new(&self.state_dir, &state, &**server)?)?;
            }
            for record in state.servers.values() {
                placement::remove(&record.data_dir)?;
            }
        }
        let removed = fs::remove_dir_all(&self.state_dir);
        removed.with_context(|| format!("remove {}", self.state_dir.display()))
    }

    /// A dead main process may leave children for a moment; a successor must not meet them.
    pub(super) fn wait_until_gone(
        &self,
        name: &str,
        record: &Record,
        limit: Duration,
    ) -> Result<()> {
        let Some(process) = &record.process else { return Ok(()) };
        let mut left = Vec::new();
        let gone = wait::until(limit, &self.interrupt, || {
            left = process.leftovers(&record.data_dir);
            Ok((process.is_dead() && left.is_empty()).then_some(()))
        })?;
        gone.with_context(|| {
            format!("{name} (pid {}, children {left:?}) has not ended", process.pid)
        })
    }

    pub(super) fn wait_for(&self, name: &str, process: &Process, want: Liveness) -> Result<()> {
        let reached = wait::until(KILL_LIMIT, &self.interrupt, || {
            Ok((process.liveness() == want).then_some(()))
        })?;
        reached.with_context(|| format!("{name} is {:?}, not {want:?}", process.liveness()))
    }

    /// The same stack, deaf to the interrupt: for cleaning up after it.
    pub(super) fn uninterrupted(&self) -> Self {
        Self {
            state_dir: self.state_dir.clone(),
            progress: self.progress.clone(),
            interrupt: Interrupt::default(),
            down_on_drop: false,
            found_running: self.found_running,
        }
    }
}
