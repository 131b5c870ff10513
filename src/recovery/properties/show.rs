//! Properties of the parser of `systemctl show`.

use crate::escape::deceives;
use crate::recovery::systemd::Unit;

/// Checks every property of this parser.
///
/// # Panics
///
/// A property does not hold.
pub fn show_property(data: &[u8]) {
    match Unit::parse(data) {
        Err(why) => {
            assert!(!why.contains(deceives), "raw control: {why:?}");
            assert!(why.chars().count() < 1_500, "{} bytes", why.len());
        }
        Ok(unit) => {
            if let Ok(group) = unit.control_group() {
                assert_ne!(group.as_str(), "/");
            }
            assert_eq!(Unit::parse(data), Ok(unit), "parsed twice");
        }
    }
}
