//! Servers that never finish, or that cut a connection short.

use std::time::Duration;

use crate::case::{CHUNKED, HEAD, TEN, UNTIL_CLOSE, case, check, lost};
use crate::script::{raw, silent};

#[test]
fn servers_that_never_finish_are_timed_out() {
    check(vec![
        case("accepts and stays silent", silent(), lost("timeout", None)),
        case(
            "half a status line",
            raw("HTTP/1.1 20").stall(),
            lost("timeout", None),
        ),
        case(
            "half a head",
            raw(HEAD).send("Server: x\r\n").stall(),
            lost("timeout", None),
        ),
        case(
            "a header dripped without end",
            raw(HEAD).send("X: ").drip("y"),
            lost("timeout", None),
        ),
        case(
            "headers dripped without end",
            raw(HEAD).drip("X: y\r\n"),
            lost("timeout", None),
        ),
        case(
            "headers, then nothing",
            raw(TEN).stall(),
            lost("timeout", Some(200)),
        ),
        case(
            "half a body",
            raw(TEN).send("12345").stall(),
            lost("timeout", Some(200)),
        ),
        case(
            "a body dripped without end",
            raw("HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n").drip("x"),
            lost("timeout", Some(200)),
        ),
        case(
            "a body without end that stalls",
            raw(UNTIL_CLOSE).send("x").stall(),
            lost("timeout", Some(200)),
        ),
        case(
            "a chunked body that stalls",
            raw(CHUNKED).send("5\r\nab").stall(),
            lost("timeout", Some(200)),
        ),
        case(
            "a chunk without its end",
            raw(CHUNKED).send("2\r\nab\r\n").stall(),
            lost("timeout", Some(200)),
        ),
        case(
            "chunks dripped without end",
            raw(CHUNKED).drip("1\r\nx\r\n"),
            lost("timeout", Some(200)),
        ),
        case(
            "100 Continue, then nothing",
            raw("HTTP/1.1 100 Continue\r\n\r\n").stall(),
            lost("timeout", None),
        ),
    ]);
}

#[test]
fn connections_cut_short_are_resets() {
    check(vec![
        case(
            "reset before the head",
            raw("").reset(),
            lost("reset", None),
        ),
        case(
            "reset within the head",
            raw(HEAD).pause(PAUSE).reset(),
            lost("reset", None),
        ),
        case(
            "reset after the head",
            raw(TEN).pause(PAUSE).reset(),
            lost("reset", Some(200)),
        ),
        case(
            "reset within the body",
            raw(TEN).send("12345").pause(PAUSE).reset(),
            lost("reset", Some(200)),
        ),
        case(
            "reset within a body that only the end ends",
            raw(UNTIL_CLOSE).send("12345").pause(PAUSE).reset(),
            lost("reset", Some(200)),
        ),
        case(
            "reset within a chunk",
            raw(CHUNKED).send("5\r\nab").pause(PAUSE).reset(),
            lost("reset", Some(200)),
        ),
        case("closed without a byte", raw(""), lost("reset", None)),
        case(
            "closed within the head",
            raw("HTTP/1.1 200 OK\r\nServer: x\r\n"),
            lost("reset", None),
        ),
        case(
            "closed within the status line",
            raw("HTTP/1.1 20"),
            lost("reset", None),
        ),
        case(
            "Content-Length too long",
            raw(TEN).send("12345"),
            lost("reset", Some(200)),
        ),
        case(
            "closed within a chunk",
            raw(CHUNKED).send("5\r\nab"),
            lost("reset", Some(200)),
        ),
        case(
            "closed within a chunk size line",
            raw(CHUNKED).send("5\r\nhello\r\n6"),
            lost("reset", Some(200)),
        ),
        case(
            "closed before the last chunk",
            raw(CHUNKED).send("2\r\nab\r\n"),
            lost("reset", Some(200)),
        ),
    ]);
}

/// Long enough for the client to read the earlier bytes: a reset discards unread ones.
const PAUSE: Duration = Duration::from_millis(50);
