//! The cluster's `postgresql.conf`, as a pure function: the whole file, so that what is not named
//! here has PostgreSQL's default.

pub(super) struct Settings<'a> {
    pub(super) port: u16,
    pub(super) shared_buffers: &'a str,
    /// Whether this build can compress with lz4.
    pub(super) lz4: bool,
}

pub(super) fn render(settings: &Settings) -> String {
    let Settings { port, shared_buffers, lz4 } = settings;
    let wal_compression = if *lz4 { "lz4" } else { "on" };
    format!(
        "\
# Written at every start; changes here do not last.
listen_addresses = '127.0.0.1'
port = {port}
# One way in. A socket's path would also be too long for the kernel below some state directories.
unix_socket_directories = ''
password_encryption = 'scram-sha-256'
# Every stage has a connection per partition, and tests run in parallel.
max_connections = 200

shared_buffers = '{shared_buffers}'
# In files of the cluster: what a killed server leaves in /dev/shm would stay until the next boot.
dynamic_shared_memory_type = 'mmap'

# What makes a committed order durable. Never off, not even for speed in tests.
fsync = on
synchronous_commit = on
full_page_writes = on

# Checkpoints far apart: each one makes the next write of every page a full page in the log.
max_wal_size = '4GB'
checkpoint_timeout = '15min'
wal_compression = '{wal_compression}'

# The queue-like tables change all the time: clean early, in small portions, without pauses.
autovacuum_vacuum_cost_delay = 0
autovacuum_vacuum_scale_factor = 0.05

# A client that is frozen or cut off must not hold its locks against its successor for ever.
idle_in_transaction_session_timeout = '10s'
tcp_keepalives_idle = 10
tcp_keepalives_interval = 5
tcp_keepalives_count = 3
tcp_user_timeout = '15s'
client_connection_check_interval = '2s'

# Reading the clock twice per block costs more than the numbers are worth here.
track_io_timing = off

# To the file that order-stack opens.
log_destination = 'stderr'
logging_collector = off
log_line_prefix = '%m [%p] %q%u@%d '
log_timezone = 'UTC'
timezone = 'UTC'
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_are_durable_and_nothing_listens_beyond_loopback() {
        let text = render(&Settings { port: 15432, shared_buffers: "128MB", lz4: true });

        for line in [
            "listen_addresses = '127.0.0.1'",
            "unix_socket_directories = ''",
            "port = 15432",
            "fsync = on",
            "synchronous_commit = on",
            "shared_buffers = '128MB'",
            "wal_compression = 'lz4'",
            "idle_in_transaction_session_timeout = '10s'",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn a_build_without_lz4_still_compresses() {
        let text = render(&Settings { port: 1, shared_buffers: "1GB", lz4: false });

        assert!(text.contains("wal_compression = 'on'"), "{text}");
    }
}
