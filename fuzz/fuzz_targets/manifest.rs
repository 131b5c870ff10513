//! Fuzzes the manifest parser.
#![no_main]

use scidex_route_health::fuzzing::manifest_property;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    manifest_property(data);
});
