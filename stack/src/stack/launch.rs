//! Starting servers side by side: configure, start, wait for an answer. When one fails, those that
//! this call started are stopped again; those that were running are not touched.

use std::sync::Mutex;
use std::thread;

use super::*;
use crate::install;
use crate::process;

/// A cold start on two busy cores takes ten seconds; beyond this, something is wrong.
const READY_LIMIT: Duration = Duration::from_secs(90);

/// What an old process may take to let go of its data.
const GONE_LIMIT: Duration = Duration::from_secs(20);

impl Stack {
    /// Makes every one of `servers` answer; returns how many had to be started for that.
    pub(super) fn launch(&self, state: &mut State, servers: &[Box<dyn Server>]) -> Result<usize> {
        let mut dead = Vec::new();
        for server in servers {
            let name = server.name();
            let record = state.record(&name)?;
            if record.process.as_ref().is_some_and(|process| !process.is_dead()) {
                continue;
            }
            self.wait_until_gone(&name, record, GONE_LIMIT)?;
            for port in record.ports.values() {
                ports::check_free(&name, *port)?;
            }
            dead.push(name);
        }
        state.save(&self.state_dir)?;
        if let Err(error) = self.start(state, servers, &dead) {
            // Deaf to the interrupt that may have brought us here: the clean-up is to be finished.
            let quiet = self.uninterrupted();
            quiet.stop_all(state, &dead, stop::HASTE).context("stop what was started")?;
            return Err(error);
        }
        Ok(dead.len())
    }

    fn start(&self, state: &mut State, servers: &[Box<dyn Server>], dead: &[String]) -> Result<()> {
        let logs = self.state_dir.join("logs");
        fs::create_dir_all(&logs).with_context(|| format!("create {}", logs.display()))?;
        let mut sites = Vec::new();
        for server in servers {
            sites.push(Site::new(&self.state_dir, state, &**server)?);
        }
        // Configuring runs programs for a second each; both cores have something to do.
        let shared = Mutex::new(state);
        let results: Vec<Result<()>> = thread::scope(|scope| {
            let shared = &shared;
            let make =
                |(server, site)| scope.spawn(move || self.bring_up(server, site, shared, dead));
            let servers = servers.iter().map(|server| &**server);
            let tasks: Vec<_> = servers.zip(&sites).map(make).collect();
            tasks.into_iter().map(|task| task.join().unwrap_or_else(|_| panicked())).collect()
        });
        results.into_iter().collect()
    }

    fn bring_up(
        &self,
        server: &dyn Server,
        site: &Site,
        state: &Mutex<&mut State>,
        dead: &[String],
    ) -> Result<()> {
        let name = server.name();
        let record = || {
            let state = state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            state.record(&name).cloned()
        };
        match record()?.process {
            Some(process) if !dead.contains(&name) => {
                process.signal(Signal::Cont).with_context(|| format!("wake {name}"))?;
                self.await_answer(server, site, &process)
            }
            _ => {
                let step = self.progress.step(&name, "configuring");
                placement::create_private(&site.data_dir, site.account.as_ref())?;
                server.prepare(site).with_context(|| format!("configure {name}"))?;
                self.interrupt.check()?;
                step.now("starting");
                let process = self.spawn(server, site, state)?;
                step.tick("waiting for an answer");
                self.await_answer(server, site, &process)?;
                let endpoint = server.ports()[0].0;
                step.done(&format!("ready on 127.0.0.1:{}", site.port(endpoint)?));
                Ok(())
            }
        }
    }

    fn spawn(
        &self,
        server: &dyn Server,
        site: &Site,
        state: &Mutex<&mut State>,
    ) -> Result<Process> {
        let mut state = state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let name = server.name();
        let record =
            state.servers.get_mut(&name).with_context(|| format!("{name} has no place"))?;
        let process = process::spawn(server.command(site)?, &record.log, site.account.as_ref())?;
        // Written at once: a process that nobody remembers cannot be stopped.
        record.process = Some(process.clone());
        state.save(&self.state_dir)?;
        Ok(process)
    }

    fn await_answer(&self, server: &dyn Server, site: &Site, process: &Process) -> Result<()> {
        let name = server.name();
        let mut last = String::new();
        let answered = wait::until(READY_LIMIT, &self.interrupt, || {
            match server.probe(site) {
                Ok(()) => return Ok(Some(())),
                Err(error) => last = format!("{error:#}"),
            }
            match process.is_dead() {
                true => bail!("{name} ended while starting"),
                false => Ok(None),
            }
        });
        let why = match answered {
            Ok(Some(())) => return Ok(()),
            Err(error) if self.interrupt.is_tripped() => return Err(error),
            Err(error) => format!("{error:#}"),
            Ok(None) => format!("{name} gave no answer in {} s: {last}", READY_LIMIT.as_secs()),
        };
        let log = self.state_dir.join("logs").join(format!("{name}.log"));
        bail!("{why}; the end of {}:\n{}", log.display(), install::tail(&log))
    }
}

fn panicked() -> Result<()> {
    bail!("a thread that starts a server panicked")
}
