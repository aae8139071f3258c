//! Servers that one test may break: up when it begins, gone when it ends.

use std::sync::Arc;

use stack::{Stack, StackOptions};
use tempfile::TempDir;
use tokio::task::spawn_blocking;

/// A stack that goes down with its handle.
pub(crate) struct Servers {
    stack: Arc<Stack>,
    // After the stack, which empties it.
    _directory: TempDir,
}

impl Servers {
    pub(crate) async fn up(brokers: u8) -> Self {
        // Beside other temporary files, where the account of Postgres can reach it.
        let directory = tempfile::tempdir().unwrap();
        let options =
            StackOptions { brokers, ..StackOptions::for_tests(directory.path().join("stack")) };
        let stack = spawn_blocking(move || Stack::up(&options).unwrap()).await.unwrap();
        Self { stack: Arc::new(stack), _directory: directory }
    }

    pub(crate) fn stack(&self) -> &Stack {
        &self.stack
    }

    /// A crash of one server.
    pub(crate) async fn kill(&self, server: &'static str) {
        let stack = self.stack.clone();
        spawn_blocking(move || stack.kill(server).unwrap()).await.unwrap();
    }

    /// An orderly stop of one server.
    pub(crate) async fn stop(&self, server: &'static str) {
        let stack = self.stack.clone();
        spawn_blocking(move || stack.stop(server).unwrap()).await.unwrap();
    }

    /// Brings a server back on its data.
    pub(crate) async fn restart(&self, server: &'static str) {
        let stack = self.stack.clone();
        spawn_blocking(move || stack.restart(server).unwrap()).await.unwrap();
    }
}
