//! Fuzzes the parser of `systemctl show`.
#![no_main]

use scidex_route_health::fuzzing::show_property;

libfuzzer_sys::fuzz_target!(|data: &[u8]| show_property(data));
