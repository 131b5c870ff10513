//! Fuzzes the parsers of the kernel's socket tables.
#![no_main]

use scidex_route_health::fuzzing::netlink_property;

libfuzzer_sys::fuzz_target!(|data: &[u8]| netlink_property(data));
