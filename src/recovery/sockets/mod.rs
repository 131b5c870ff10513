//! What the kernel shows about the sockets at which the probes wait: listeners, connections, accept queues, and
//! whose they are.

pub(super) mod netlink;
pub(super) mod owners;
pub(super) mod queue;
pub(super) mod reader;
pub(super) mod table;
pub(super) mod tcp;
pub(super) mod unix;
pub(super) mod unix_owner;
