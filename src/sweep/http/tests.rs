//! One attempt against real sockets: the result of each kind of response, and when it is known.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::*;
use crate::cause::Class;
use crate::clock::Monotonic;
use crate::manifest::{Manifest, Method, Source, Variables};
use crate::sweep::attempt::Received;
use crate::sweep::client::{self, Client};
use crate::sweep::connect::tests::{FullQueue, refusing};

/// A response or a failure, whether at least one byte was received, and the last status.
type Attempted = (Result<Response, Failure>, bool, Option<u16>);

const LIMIT: Duration = Duration::from_millis(300);

/// An end that only a failing test reaches.
fn soon() -> Monotonic {
    Monotonic::now() + Duration::from_secs(10)
}

fn options() -> Options {
    Options {
        method: Method::Get,
        expect: Vec::new(),
        timeout: LIMIT,
        retries: 0,
        backoff: Duration::ZERO,
        max_redirects: 0,
        headers: Vec::new(),
        max_body_bytes: 1024 * 1024,
    }
}

/// Reads one request's head.
pub(in crate::sweep) fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// The address of a server that runs `script` on each connection, after the request's head.
fn server(script: impl Fn(&mut TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            read_head(&mut stream);
            script(&mut stream);
        }
    });
    address.to_string()
}

fn reset_at_the_end(stream: &TcpStream) {
    let abort = nix::libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    nix::sys::socket::setsockopt(stream, nix::sys::socket::sockopt::Linger, &abort).unwrap();
}

/// A manifest for `base_url`.
pub(in crate::sweep) fn manifest(base_url: &str, user_agent: &str) -> Manifest {
    let text = format!(
        r#"{{"base_url": "{base_url}", "user_agent": "{user_agent}",
             "routes": [{{"path": "/", "core": true}}]}}"#
    );
    let (bytes, variables) = (text.as_bytes(), Variables::MayBeMissing);
    Manifest::parse(bytes, Source::Stdin, None, variables).unwrap()
}

/// The settings of a client for `base_url`.
pub(in crate::sweep) fn settings(base_url: &str) -> Client {
    Client::new(&manifest(base_url, "tester")).unwrap()
}

/// The settings of a client whose proxy is at `url`.
fn proxied_by(url: &str) -> Client {
    let backend = "http://backend.example";
    let proxy = ureq::Proxy::new(url).unwrap();
    let mut client = settings(backend);
    client.config = client::config(&manifest(backend, "tester"), Some(proxy));
    client
}

/// A client of a server that runs `script` on each connection, after the request's head.
fn client(script: impl Fn(&mut TcpStream) + Send + 'static) -> Arc<Client> {
    settings(&format!("http://{}", server(script))).into()
}

/// A client whose proxy runs `script` on each connection, after the CONNECT request.
fn proxied(script: impl Fn(&mut TcpStream) + Send + 'static) -> Arc<Client> {
    proxied_by(&format!("http://{}", server(script))).into()
}

/// Makes one attempt.
fn attempt(client: &Arc<Client>, options: &Options, keep_body: bool, end: Monotonic) -> Attempted {
    let attempt = Arc::new(Attempt::new(client, end, end.remaining()));
    let result = attempt.send(&Route {
        path: "/".to_owned(),
        core: true,
        options: options.clone(),
        checks: keep_body.then(Box::default),
    });
    let state = attempt.state();
    (result, state.received != Received::Nothing, state.status)
}

/// An attempt against a server that sends `text` and closes.
fn reply_to(text: impl AsRef<[u8]>, options: &Options) -> Attempted {
    let text = text.as_ref().to_vec();
    let client = client(move |stream| {
        // The client may close before the end of a body that it does not need.
        let _ = stream.write_all(&text);
    });
    attempt(&client, options, true, soon())
}

/// The result of an attempt in a few words.
fn summary((result, ..): &Attempted) -> String {
    match result {
        Ok(Response { body, .. }) => format!("response {:?}", String::from_utf8_lossy(body)),
        Err(failure) => match failure.class {
            Class::TimeoutUnreachable(error) => format!("{error:?} {}", failure.at_end),
            Class::HttpError(error) => format!("{error:?}"),
            class => format!("{class:?}"),
        },
    }
}

fn status(attempted: &Attempted) -> Option<u16> {
    attempted.2
}

fn received_any((result, received_any, _): &Attempted) -> bool {
    result.is_ok() || *received_any
}

#[test]
fn each_reply_is_classified() {
    let huge = format!("HTTP/1.1 200 OK\r\nX-Huge: {}\r\n\r\n", "x".repeat(70_000));
    let large = format!(
        "HTTP/1.1 200 OK\r\nX-Large: {}\r\n\r\nhi",
        "x".repeat(40_000)
    );
    let lines = |n| format!("HTTP/1.1 200 OK\r\n{}\r\nhi", "A: b\r\n".repeat(n));
    let (many, most) = (lines(129), lines(128));
    let (endless, chunk) = ("9".repeat(300_000), CHUNKED);
    let cases: Vec<(String, Option<u16>, &str)> = vec![
        ("HTTP/1.1 200 OK\r\n\r\nhi".into(), Some(200), "response \"hi\""),
        ("HTTP/1.0 200 OK\r\n\r\nhi".into(), Some(200), "response \"hi\""),
        ("HTTP/1.1 204 No Content\r\n\r\n".into(), Some(204), "response \"\""),
        ("HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 2\r\n\r\nhi".into(), Some(302), "response \"hi\""),
        ("HTTP/1.1 500 No\r\nContent-Length: 9\r\n\r\nhi".into(), Some(500), "response \"\""),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\n\r\nhi".into(), Some(200), "response \"hi\""),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi and more".into(), Some(200), "response \"hi\""),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi".into(), Some(200), "Reset false"),
        ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nhi".into(), None, "Protocol"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi".into(), None, "Protocol"),
        (format!("{chunk}2\r\nhi\r\n0\r\n\r\n"), Some(200), "response \"hi\""),
        (format!("{chunk}2\r\nhi\r\n"), Some(200), "Reset false"),
        (format!("{chunk}xyz\r\nhi\r\n"), Some(200), "Protocol"),
        (format!("{chunk}{endless}"), Some(200), "Protocol"),
        (large, Some(200), "response \"hi\""),
        (huge, None, "Protocol"),
        (most, Some(200), "response \"hi\""),
        (many, None, "Protocol"),
        (String::new(), None, "Reset false"),
        ("HTTP/1.1 200 O".into(), None, "Reset false"),
        ("SSH-2.0-OpenSSH_9.2\r\n".into(), None, "Protocol"),
        ("\0\x01\x02\x03".into(), None, "Protocol"),
        ("HTTP/2.0 200 OK\r\n\r\n".into(), None, "Protocol"),
        ("HTTP/1.1 999 Odd\r\n\r\nhi".into(), Some(999), "response \"\""),
        ("HTTP/1.1 20 Odd\r\n\r\n".into(), None, "Protocol"),
    ];
    for (text, expected_status, expected) in cases {
        let reply = reply_to(&text, &options());
        let head: String = text.chars().take(90).collect();
        assert_eq!(
            (status(&reply), summary(&reply).as_str()),
            (expected_status, expected),
            "{head:?} {reply:?}"
        );
        assert_eq!(received_any(&reply), !text.is_empty(), "{head:?}");
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

#[test]
fn a_close_after_any_byte_of_a_framed_response_is_a_reset_unless_it_is_complete() {
    let length = format!("{OK}Content-Length: 5\r\n\r\nhello");
    let chunked = format!("{CHUNKED}5;a=b\r\nhello\r\n00\r\nT: x\r\n\r\n");
    let early = format!("HTTP/1.1 100 Continue\r\n\r\n{OK}Content-Length: 5\r\n\r\nhello");
    // RFC 9112, section 8: complete after the line of the last chunk, even without its trailers.
    let last_chunk = "\r\n00\r\n";
    let ended = chunked.find(last_chunk).unwrap() + last_chunk.len();
    let cases = [
        (&length, length.len()),
        (&early, early.len()),
        (&chunked, ended),
    ];
    for (text, complete) in cases {
        for length in 0..=text.len() {
            let reply = reply_to(&text[..length], &options());
            let is_ok = summary(&reply) == "response \"hello\"";
            let is_reset = summary(&reply) == "Reset false";
            assert!(
                if length < complete {
                    is_reset
                } else {
                    is_ok || is_reset
                },
                "{:?} {reply:?}",
                &text[..length]
            );
            assert!(
                length != complete && length != text.len() || is_ok,
                "{reply:?}"
            );
        }
    }
}

#[test]
fn a_reset_is_never_a_normal_end() {
    for text in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\n\r\nhal"] {
        let client = client(move |stream| {
            stream.write_all(text.as_bytes()).unwrap();
            reset_at_the_end(stream);
        });
        let reply = attempt(&client, &options(), false, soon());
        assert_eq!(summary(&reply), "Reset false", "{text:?}");
    }
}

#[test]
fn a_body_is_read_no_further_than_its_limit() {
    let limited = Options {
        max_body_bytes: 5,
        ..options()
    };
    let client = client(|stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while stream.write_all(&b"endless ".repeat(1024)).is_ok() {}
    });
    let reply = attempt(&client, &limited, true, soon());
    assert_eq!(summary(&reply), "response \"endle\"");
    let reply = attempt(&client, &options(), false, soon());
    assert_eq!(
        summary(&reply),
        "response \"\"",
        "a MiB of it, and nothing kept"
    );
}

#[test]
fn an_attempt_ends_on_time_whatever_the_server_does() {
    let drip = |start: &'static [u8]| {
        client(move |stream| {
            let _ = stream.write_all(start);
            while stream.write_all(b"x").is_ok() {
                thread::sleep(Duration::from_millis(5));
            }
        })
    };
    let silent = client(|stream| {
        let _ = stream.read(&mut [0]);
    });
    for (client, expected_status, expected_received) in [
        (silent, None, false),
        (drip(b"HTTP/1.1 200 OK\r\nX-Drip: "), None, true),
        (drip(b"HTTP/1.1 200 OK\r\n\r\n"), Some(200), true),
    ] {
        let start = Monotonic::now();
        let reply = attempt(&client, &options(), false, start + LIMIT);
        let elapsed = Monotonic::now().since(start);
        assert_eq!(summary(&reply), "Timeout true");
        assert_eq!(
            (status(&reply), received_any(&reply)),
            (expected_status, expected_received)
        );
        assert!(
            elapsed >= LIMIT && elapsed < LIMIT + Duration::from_millis(100),
            "{elapsed:?}"
        );
    }
}

#[test]
fn a_port_without_a_listener_refuses() {
    let (_kept, address) = refusing("127.0.0.1:0");
    let client = settings(&format!("http://{address}")).into();
    let reply = attempt(&client, &options(), false, soon());
    assert_eq!(summary(&reply), "Refused false");
    assert!(!received_any(&reply));
}

#[test]
fn a_full_accept_queue_is_silence() {
    let full = FullQueue::on("127.0.0.1:0");
    let client = settings(&format!("http://{}", full.address)).into();
    let reply = attempt(&client, &options(), false, Monotonic::now() + LIMIT);
    assert_eq!(summary(&reply), "Timeout true");
    assert!(!received_any(&reply));
}

#[test]
fn a_redirect_that_leads_to_no_response_leaves_no_status() {
    let is_first = AtomicBool::new(true);
    let client = client(move |stream| {
        if is_first.swap(false, Ordering::Relaxed) {
            let _ = stream.write_all(b"HTTP/1.1 307 Again\r\nLocation: /\r\n\r\n");
        }
    });
    let options = Options {
        max_redirects: 3,
        ..options()
    };
    let reply = attempt(&client, &options, false, soon());
    assert_eq!(
        (summary(&reply).as_str(), status(&reply)),
        ("Reset false", None)
    );
}

#[test]
fn one_redirect_too_many_is_reported_with_the_last_status() {
    let client = client(|stream| {
        let _ = stream.write_all(b"HTTP/1.1 307 Again\r\nLocation: /\r\n\r\n");
    });
    for (max_redirects, expected) in [(0, "response \"\""), (1, "Redirects"), (3, "Redirects")] {
        let following = Options {
            max_redirects,
            ..options()
        };
        let reply = attempt(&client, &following, true, soon());
        assert_eq!(
            (summary(&reply).as_str(), status(&reply)),
            (expected, Some(307))
        );
        if let (Err(failure), ..) = reply {
            assert_eq!(
                failure.detail,
                format!("more than {max_redirects} redirects")
            );
        }
    }
}

#[test]
fn a_redirect_may_lead_to_a_longer_address_than_the_route_has() {
    let target = format!("/{}", "x".repeat(20_000));
    let location = format!("HTTP/1.1 302 Found\r\nLocation: {target}\r\n\r\n");
    let mut first = true;
    let replies = std::sync::Mutex::new(move || std::mem::replace(&mut first, false));
    let client = client(move |stream| {
        let redirected = (replies.lock().unwrap())();
        if redirected {
            stream.write_all(location.as_bytes()).unwrap();
        } else {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nhi").unwrap();
        }
    });
    let following = Options {
        max_redirects: 1,
        ..options()
    };
    let reply = attempt(&client, &following, true, soon());
    assert_eq!(summary(&reply), "response \"hi\"", "{reply:?}");
}

#[test]
fn a_user_agent_may_be_of_any_length() {
    let address = server(|stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nhi");
    });
    let manifest = manifest(&format!("http://{address}"), &"x".repeat(20_000));
    let client = Client::new(&manifest).unwrap().into();
    let reply = attempt(&client, &options(), true, soon());
    assert_eq!(summary(&reply), "response \"hi\"", "{reply:?}");
}

#[test]
fn a_failure_of_a_proxy_proves_nothing_about_the_backend() {
    let huge = format!("HTTP/1.1 200 OK\r\nX-Huge: {}\r\n", "x".repeat(200_000));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(50));
    for text in [
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        &huge,
        &many,
        "HTTP/1.1 502 Bad Gateway\r\n\r\n",
        "HTTP/1.1 200 O",
        "",
    ] {
        let text = text.to_owned();
        let client = proxied(move |stream| {
            let _ = stream.write_all(text.as_bytes());
        });
        let reply = attempt(&client, &options(), true, soon());
        assert_eq!(summary(&reply), "Network false", "{reply:?}");
    }
    let client = proxied(|stream| {
        let _ = stream.read(&mut [0]);
    });
    let reply = attempt(&client, &options(), true, Monotonic::now() + LIMIT);
    assert_eq!(summary(&reply), "Timeout true");
}

#[test]
fn bytes_through_a_tunnel_are_the_backends() {
    let through = |text: &'static str| {
        proxied(move |stream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
            read_head(stream);
            let _ = stream.write_all(text.as_bytes());
        })
    };
    for (text, expected) in [
        ("HTTP/1.1 200 OK\r\n\r\nhi", "response \"hi\""),
        ("SSH-2.0-OpenSSH_9.2\r\n", "Protocol"),
        ("", "Reset false"),
    ] {
        let reply = attempt(&through(text), &options(), true, soon());
        assert_eq!(summary(&reply), expected, "{reply:?}");
    }
}

#[test]
fn a_redirect_needs_a_tunnel_of_its_own() {
    let first = std::sync::atomic::AtomicBool::new(true);
    let client = proxied(move |stream| {
        if first.swap(false, std::sync::atomic::Ordering::Relaxed) {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
            read_head(stream);
            let _ = stream.write_all(b"HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n");
        } else {
            reset_at_the_end(stream);
        }
    });
    let following = Options {
        max_redirects: 1,
        ..options()
    };
    let reply = attempt(&client, &following, true, soon());
    assert_eq!(summary(&reply), "Network false", "{reply:?}");
}

#[test]
fn an_address_of_any_length_goes_through_a_proxy() {
    let client = proxied(|stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        read_head(stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nhi");
    });
    let attempt = Arc::new(Attempt::new(&client, soon(), Duration::from_secs(5)));
    let response = attempt.send(&Route {
        path: format!("/?{}", "x".repeat(20_000)),
        core: true,
        options: options(),
        checks: None,
    });
    assert!(response.is_ok(), "{response:?}");
}

#[test]
fn nothing_is_sent_in_clear_text_where_tls_is_required() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let secured = format!("https://{}", listener.local_addr().unwrap());
    let by_proxy = proxied_by(&secured.replace("//", "//me:secret@"));
    let mut direct = settings("http://backend.example");
    direct.base_url = secured.parse().unwrap();
    for (client, expected) in [(by_proxy, "Network false"), (direct, "Tls false")] {
        let reply = attempt(&client.into(), &options(), true, soon());
        let (mut stream, _) = listener.accept().unwrap();
        let mut sent = Vec::new();
        stream.read_to_end(&mut sent).unwrap();
        assert_eq!(String::from_utf8_lossy(&sent), "", "{reply:?}");
        assert_eq!(summary(&reply), expected, "{reply:?}");
    }
}
