//! One file per server, each implementing `Server`.

pub(crate) mod alertmanager;
pub(crate) mod kafka;
pub(crate) mod postgres;
pub(crate) mod temporal;
pub(crate) mod postgres_exporter;
pub(crate) mod prometheus;
pub(crate) mod pushgateway;
pub(crate) mod shortened;
