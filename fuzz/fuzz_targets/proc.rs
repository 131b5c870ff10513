//! Fuzzes the parsers of `/proc/PID/stat`, `/proc/PID/status` and `/proc/PID/cgroup`.
#![no_main]

use scidex_route_health::fuzzing::proc_property;

libfuzzer_sys::fuzz_target!(|data: &[u8]| proc_property(data));
