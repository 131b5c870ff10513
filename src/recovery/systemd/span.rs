//! Spans of time as systemd.time(7) writes them. Pure.

use std::time::Duration;

/// A span such as `1min 30s`, `1.500000s`, `0` or `infinity` (the longest `Duration`); none for anything else.
pub(super) fn span(text: &str) -> Option<Duration> {
    const SECONDS: [(&str, f64); 10] = [
        ("us", 1e-6),
        ("ms", 1e-3),
        ("s", 1.0),
        ("min", 60.0),
        ("h", 3_600.0),
        ("d", 86_400.0),
        ("w", 604_800.0),
        ("month", 2_629_800.0),
        ("y", 31_557_600.0),
        ("", 1e-6), // only "0" is printed without a unit
    ];
    if text == "infinity" {
        return Some(Duration::MAX);
    }
    let mut total = Duration::ZERO;
    for word in text.split(' ') {
        let end = word
            .find(|character: char| !character.is_ascii_digit() && character != '.')
            .unwrap_or(word.len());
        let (number, unit) = word.split_at(end);
        let (_, seconds) = SECONDS.iter().find(|(name, _)| *name == unit)?;
        let length = number.parse::<f64>().ok()? * seconds;
        total = total.checked_add(Duration::try_from_secs_f64(length).ok()?)?;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn span_reads_what_systemd_writes() {
        for (text, seconds) in [
            ("0", Some(0.0)),
            ("100ms", Some(0.1)),
            ("1.500000s", Some(1.5)),
            ("2min 5s", Some(125.0)),
            ("1min 30s", Some(90.0)),
            ("1h 1us", Some(3_600.000_001)),
            ("1w 2d", Some(777_600.0)),
            ("1y 1month", Some(34_187_400.0)),
            ("", None),
            ("5 parsecs", None),
            ("-1s", None),
            ("1.2.3s", None),
            ("99999999999999999999999999y", None),
        ] {
            assert_eq!(span(text).map(|span| span.as_secs_f64()), seconds, "{text}");
        }
        assert_eq!(span("infinity"), Some(Duration::MAX));
    }
}
