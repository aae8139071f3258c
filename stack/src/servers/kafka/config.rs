//! The broker's `server.properties`, as a pure function. Each setting that differs from Kafka's
//! default says why.

use std::path::Path;

pub(super) struct Node<'a> {
    pub(super) id: u8,
    pub(super) client_port: u16,
    /// Id and controller port of every node, this one included.
    pub(super) voters: Vec<(u8, u16)>,
    pub(super) log_dir: &'a Path,
}

pub(super) fn render(node: &Node) -> String {
    let Node { id, client_port, voters, log_dir } = node;
    let quorum: Vec<_> = voters.iter().map(|(id, port)| format!("{id}@127.0.0.1:{port}")).collect();
    let quorum = quorum.join(",");
    let own = voters.iter().find(|(voter, _)| voter == id);
    let controller_port = own.map(|(_, port)| *port).unwrap_or_default();
    let replicas = voters.len();
    // Of three replicas one may be away without stopping writes, and an acknowledged write is on two.
    let in_sync = if replicas >= 3 { 2 } else { 1 };
    let log_dirs = log_dirs(log_dir);
    format!(
        "\
process.roles=broker,controller
node.id={id}
controller.quorum.voters={quorum}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=CLIENT
listeners=CLIENT://127.0.0.1:{client_port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=CLIENT://127.0.0.1:{client_port},CONTROLLER://127.0.0.1:{controller_port}
{log_dirs}

# A mistyped topic is an error, not a new topic with one partition.
auto.create.topics.enable=false

default.replication.factor={replicas}
min.insync.replicas={in_sync}
offsets.topic.replication.factor={replicas}
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={in_sync}
share.coordinator.state.topic.replication.factor={replicas}
share.coordinator.state.topic.min.isr={in_sync}

# Kafka creates 50 partitions on first use; on one machine that is only a slow first consumer.
offsets.topic.num.partitions=8
transaction.state.log.num.partitions=8
share.coordinator.state.topic.num.partitions=8

# The wait for more members to join a new group helps fleets; here each start would pay for it.
group.initial.rebalance.delay.ms=0
# Tests of a lost consumer should not have to wait the usual six seconds.
group.min.session.timeout.ms=1000
group.consumer.min.session.timeout.ms=1000
group.consumer.min.heartbeat.interval.ms=500

# A killed broker may register again only when its former session has run out, nine seconds by
# default. Still long enough for a busy machine to send a few heartbeats late.
broker.session.timeout.ms=4000
broker.heartbeat.interval.ms=500

# Two cores: the default thread counts would only take turns.
num.network.threads=2
num.io.threads=4
background.threads=4
# The default is 128 MB per broker, a third of the heap when there are three.
log.cleaner.dedupe.buffer.size=33554432
"
    )
}

/// The one line that differs while a directory is being formatted.
pub(super) fn log_dirs(log_dir: &Path) -> String {
    // A properties file gives the backslash a meaning of its own.
    format!("log.dirs={}", log_dir.display().to_string().replace('\\', "\\\\"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(voters: &[(u8, u16)]) -> String {
        let log_dir = Path::new("/data/log");
        render(&Node { id: 1, client_port: 9092, voters: voters.to_vec(), log_dir })
    }

    #[test]
    fn a_single_broker_needs_no_second_replica() {
        let text = rendered(&[(1, 19093)]);

        assert!(text.contains("controller.quorum.voters=1@127.0.0.1:19093\n"), "{text}");
        assert!(text.contains("\noffsets.topic.replication.factor=1\n"), "{text}");
        assert!(text.contains("\nmin.insync.replicas=1\n"), "{text}");
        assert!(text.contains("\nlog.dirs=/data/log\n"), "{text}");
        assert!(text.contains("\nauto.create.topics.enable=false\n"), "{text}");
    }

    #[test]
    fn three_brokers_keep_every_acknowledged_write_twice() {
        let text = rendered(&[(1, 7001), (2, 7002), (3, 7003)]);

        let voters = "controller.quorum.voters=1@127.0.0.1:7001,2@127.0.0.1:7002,3@127.0.0.1:7003";
        assert!(text.contains(voters), "{text}");
        assert!(text.contains("CONTROLLER://127.0.0.1:7001\n"), "{text}");
        assert!(text.contains("\ndefault.replication.factor=3\n"), "{text}");
        assert!(text.contains("\nmin.insync.replicas=2\n"), "{text}");
        assert!(text.contains("\ntransaction.state.log.min.isr=2\n"), "{text}");
    }

    #[test]
    fn nothing_listens_beyond_loopback() {
        let text = rendered(&[(1, 19093)]);

        let listeners = text.lines().filter(|line| line.contains("listeners="));
        for address in listeners.flat_map(|line| line.split("://").skip(1)) {
            assert!(address.starts_with("127.0.0.1:"), "{address}");
        }
    }
}
