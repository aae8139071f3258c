//! Roles, passwords, and the files through which clients learn them. A password is in private files
//! and nowhere else: not in an argument, not in the environment, not on the terminal.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

use crate::placement::write_private;
use crate::state::random_hex;

pub(crate) const ADMIN: &str = "postgres";
pub(crate) const URL_FILE: &str = "database-url";
pub(crate) const ADMIN_URL_FILE: &str = "admin-database-url";
pub(super) const PGPASS_FILE: &str = "pgpass";
/// Reads statistics of everything and rows of nothing.
pub(crate) const MONITORING: &str = "monitoring";

/// The passwords are wanted by Postgres and by its exporter, which are configured side by side.
static CREATING: Mutex<()> = Mutex::new(());

pub(super) struct Access {
    pub(super) admin_password: String,
    orders_password: String,
    monitoring_password: String,
}

/// The password of [`MONITORING`], for its exporter.
pub(crate) fn monitoring_password(state_dir: &Path) -> Result<String> {
    password(state_dir, MONITORING)
}

fn password(state_dir: &Path, role: &str) -> Result<String> {
    let _alone = CREATING.lock().unwrap_or_else(PoisonError::into_inner);
    let path = state_dir.join(format!("{role}.password"));
    match fs::read_to_string(&path) {
        Ok(password) => return Ok(password),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    }
    // Hexadecimal needs no quoting in SQL, in a URL or in a password file.
    let password = random_hex(16)?;
    write_private(&path, &password, None)?;
    Ok(password)
}

impl Access {
    /// Created before the cluster, so that an interrupted first start finds the same ones again.
    pub(super) fn load_or_create(state_dir: &Path) -> Result<Self> {
        let password = |role| password(state_dir, role);
        Ok(Self {
            admin_password: password(ADMIN)?,
            orders_password: password("orders")?,
            monitoring_password: password(MONITORING)?,
        })
    }

    pub(super) fn write_client_files(&self, state_dir: &Path, port: u16) -> Result<()> {
        let Self { admin_password, orders_password, .. } = self;
        let files = [
            (URL_FILE, format!("postgres://orders:{orders_password}@127.0.0.1:{port}/orders")),
            (
                ADMIN_URL_FILE,
                format!("postgres://{ADMIN}:{admin_password}@127.0.0.1:{port}/{ADMIN}"),
            ),
            (
                PGPASS_FILE,
                format!(
                    "127.0.0.1:{port}:*:{ADMIN}:{admin_password}\n\
                     127.0.0.1:{port}:*:orders:{orders_password}\n"
                ),
            ),
        ];
        for (name, text) in files {
            let path = state_dir.join(name);
            write_private(&path, &text, None).context("write what clients need")?;
        }
        Ok(())
    }

    /// Tests and load runs make a database each, hence `createdb`.
    pub(super) fn first_statements(&self) -> String {
        // In this mode a statement ends with a semicolon and an empty line, and runs alone.
        format!(
            "create role orders login createdb password '{}';\n\n\
             create database orders owner orders;\n\n\
             create role {MONITORING} login password '{}' in role pg_monitor;\n\n",
            self.orders_password, self.monitoring_password
        )
    }
}
