//! One file per server, each implementing `Server`.

pub(crate) mod kafka;
pub(crate) mod postgres;
pub(crate) mod temporal;
