//! Choosing and checking ports on loopback. Holds none: a port is only ever looked at.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::wait::{self, Interrupt};

/// `count` ports that are free now, outside the range from which the kernel gives clients their
/// side of a connection: a server that comes back after a crash must find its port still free.
pub fn free(count: usize) -> Result<Vec<u16>> {
    let first_client_port = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|range| range.split_whitespace().next()?.parse().ok())
        .filter(|first| *first > LOWEST + 1000)
        .unwrap_or(32768);
    let span = u64::from(first_client_port - LOWEST);
    let mut held = Vec::new();
    for attempt in 0..10_000_u64 {
        if held.len() == count {
            break;
        }
        // A random start keeps stacks that come up at the same moment out of each other's way.
        let offset = RandomState::new().hash_one(attempt) % span;
        let port = LOWEST + u16::try_from(offset).context("offset fits a port")?;
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            held.push((port, listener));
        }
    }
    if held.len() < count {
        bail!("found no {count} free ports between {LOWEST} and {first_client_port}");
    }
    Ok(held.into_iter().map(|(port, _)| port).collect())
}

/// Above the ports that well-known servers use.
const LOWEST: u16 = 15_000;

const RELEASE_LIMIT: Duration = Duration::from_millis(500);

/// Fails with a sentence that names who listens there.
pub(crate) fn check_free(server: &str, port: u16) -> Result<()> {
    // A program that this process starts holds a copy of every open socket between its fork and its
    // exec, the ones that `free` looked at included: what is taken may be free again in a moment.
    let free = || Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok().map(drop));
    if wait::until(RELEASE_LIMIT, &Interrupt::default(), free)?.is_some() {
        return Ok(());
    }
    let holder = holder(port).unwrap_or_else(|| "another process".to_owned());
    bail!(
        "{server} needs port {port} and {holder} has it; stop that, or choose other ports with \
         `--ports free`"
    )
}

fn holder(port: u16) -> Option<String> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| listeners(&table, port))
        .collect();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    for process in processes.filter(|entry| entry.file_name().to_str().is_some_and(is_number)) {
        let descriptors = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        for descriptor in descriptors {
            let Ok(target) = fs::read_link(descriptor.path()) else { continue };
            let target = target.to_string_lossy().into_owned();
            if inodes.iter().any(|inode| target == format!("socket:[{inode}]")) {
                let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
                let pid = process.file_name().to_string_lossy().into_owned();
                return Some(format!("process {pid} ({})", name.trim()));
            }
        }
    }
    None
}

/// Inodes of the sockets listening on `port` in a `/proc/net/tcp` table.
fn listeners(table: &str, port: u16) -> Vec<String> {
    let suffix = format!(":{port:04X}");
    let rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.len() > 9 && row[1].ends_with(&suffix) && row[3] == "0A")
        .map(|row| row[9].to_owned())
        .collect()
}

fn is_number(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_differ_and_can_be_bound() {
        let ports = free(8).unwrap();

        let unique: std::collections::BTreeSet<_> = ports.iter().collect();
        assert_eq!(unique.len(), 8);
        ports.iter().for_each(|port| check_free("server", *port).unwrap());
    }

    #[test]
    fn a_taken_port_is_reported_with_its_holder_and_a_way_out() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();

        let error = check_free("kafka", port).unwrap_err().to_string();

        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        assert!(error.contains("--ports free"), "{error}");
    }
}
