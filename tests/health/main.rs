//! Runs the whole program as its callers do: against misbehaving servers, a real systemd and faulty
//! tools. One test binary, so that the helpers are compiled once and unused ones are noticed.

// The lints exempt functions marked `#[test]`, but not the helpers that those call. Tables of cases may be
// long.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::pedantic,
    clippy::unwrap_used
)]

#[path = "../../examples/demo/address.rs"]
mod address;
#[path = "../../examples/demo/build.rs"]
mod build;
mod calls;
mod case;
mod cpu_quota;
mod crowd;
mod fake;
mod network;
mod run;
mod script;
mod scripted;
mod server;
mod skip;
mod systemd;
mod test_env;
mod wait;

mod accuracy;
mod addresses;
mod answers;
mod command_line;
mod filters;
mod guards;
mod hang;
mod heartbeats;
mod limits;
mod manual;
mod missed;
mod monitoring;
mod output;
mod owners;
mod parked;
mod proofs;
mod queue;
mod recovery;
mod reports;
mod schema;
mod servers;
mod shipped;
mod stacks;
mod starved;
mod sweep;
mod systemctl;
mod tls;
mod units;
mod unix_socket;
