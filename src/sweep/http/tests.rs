//! One attempt against real sockets: what each kind of reply is told as, and when.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use super::*;
use crate::manifest::{Expect, Method};

const LIMIT: Duration = Duration::from_millis(300);

fn options() -> Options {
    Options {
        method: Method::Get,
        expect: Expect::Success,
        timeout: LIMIT,
        retries: 0,
        backoff: Duration::ZERO,
        max_redirects: 0,
        headers: Vec::new(),
        max_body_bytes: 1024 * 1024,
    }
}

/// A client of a server that answers each connection as `script` does, after the request's head.
fn client(script: impl Fn(&mut TcpStream) + Send + 'static) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                match stream.read(&mut byte) {
                    Ok(1) => head.push(byte[0]),
                    _ => break,
                }
            }
            script(&mut stream);
        }
    });
    Client::new(Setup {
        base_url: format!("http://127.0.0.1:{port}").parse().unwrap(),
        user_agent: "tester".to_owned(),
        proxy: None,
        trust: None,
        names: Arc::default(),
    })
}

/// The reply to a server that sends `text` and closes.
fn reply_to(text: impl AsRef<[u8]>, options: &Options) -> Reply {
    let text = text.as_ref().to_vec();
    let mut client = client(move |stream| {
        // The client may hang up before the end of what it does not want.
        let _ = stream.write_all(&text);
    });
    client.attempt("/", options, true, Monotonic::now() + LIMIT)
}

fn told(reply: &Reply) -> String {
    match &reply.end {
        End::Response(body) => format!("response {:?}", String::from_utf8_lossy(body)),
        End::Lost { loss, at_end, .. } => format!("{loss:?} {at_end}"),
        End::Broken(_) => "broken".to_owned(),
        End::TooManyRedirects => "redirects".to_owned(),
    }
}

#[test]
fn a_reply_is_told_as_what_it_is() {
    let huge = format!("HTTP/1.1 200 OK\r\nX-Huge: {}\r\n\r\n", "x".repeat(70_000));
    let large = format!(
        "HTTP/1.1 200 OK\r\nX-Large: {}\r\n\r\nhi",
        "x".repeat(40_000)
    );
    let lines = |n| format!("HTTP/1.1 200 OK\r\n{}\r\nhi", "A: b\r\n".repeat(n));
    let (many, most) = (lines(129), lines(128));
    let (endless, chunk) = (
        "9".repeat(300_000),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    let cases: Vec<(String, Option<u16>, &str)> = vec![
        ("HTTP/1.1 200 OK\r\n\r\nhi".into(), Some(200), "response \"hi\""),
        ("HTTP/1.0 200 OK\r\n\r\nhi".into(), Some(200), "response \"hi\""),
        ("HTTP/1.1 204 No Content\r\n\r\n".into(), Some(204), "response \"\""),
        ("HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 2\r\n\r\nhi".into(), Some(302), "response \"hi\""),
        ("HTTP/1.1 500 No\r\nContent-Length: 9\r\n\r\nhi".into(), Some(500), "response \"\""),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\n\r\nhi".into(), Some(200), "response \"hi\""),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi and more".into(), Some(200), "response \"hi\""),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi".into(), Some(200), "Reset false"),
        ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nhi".into(), None, "broken"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi".into(), None, "broken"),
        (format!("{chunk}2\r\nhi\r\n0\r\n\r\n"), Some(200), "response \"hi\""),
        (format!("{chunk}2\r\nhi\r\n"), Some(200), "Reset false"),
        (format!("{chunk}xyz\r\nhi\r\n"), Some(200), "broken"),
        (format!("{chunk}{endless}"), Some(200), "broken"),
        (large, Some(200), "response \"hi\""),
        (huge, None, "broken"),
        (most, Some(200), "response \"hi\""),
        (many, None, "broken"),
        (String::new(), None, "Reset false"),
        ("HTTP/1.1 200 O".into(), None, "Reset false"),
        ("SSH-2.0-OpenSSH_9.2\r\n".into(), None, "broken"),
        ("\0\x01\x02\x03".into(), None, "broken"),
        ("HTTP/2.0 200 OK\r\n\r\n".into(), None, "broken"),
        ("HTTP/1.1 999 Odd\r\n\r\nhi".into(), Some(999), "response \"\""),
        ("HTTP/1.1 20 Odd\r\n\r\n".into(), None, "broken"),
    ];
    for (text, status, expected) in cases {
        let reply = reply_to(&text, &options());
        let head: String = text.chars().take(90).collect();
        assert_eq!(
            (reply.status, told(&reply).as_str()),
            (status, expected),
            "{head:?} {reply:?}"
        );
        assert_eq!(reply.heard, !text.is_empty(), "{head:?}");
    }
}

#[test]
fn a_reset_is_never_a_normal_end() {
    for text in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\n\r\nhal"] {
        let mut client = client(move |stream| {
            stream.write_all(text.as_bytes()).unwrap();
            nix::sys::socket::setsockopt(
                &*stream,
                nix::sys::socket::sockopt::Linger,
                &nix::libc::linger {
                    l_onoff: 1,
                    l_linger: 0,
                },
            )
            .unwrap();
        });
        let reply = client.attempt("/", &options(), false, Monotonic::now() + LIMIT);
        assert_eq!(told(&reply), "Reset false", "{text:?}");
    }
}

#[test]
fn a_body_is_read_no_further_than_its_limit() {
    let limited = Options {
        max_body_bytes: 5,
        ..options()
    };
    let mut client = client(|stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while stream.write_all(&b"endless ".repeat(1024)).is_ok() {}
    });
    let reply = client.attempt("/", &limited, true, Monotonic::now() + LIMIT);
    assert_eq!(told(&reply), "response \"endle\"");
    let reply = client.attempt("/", &options(), false, Monotonic::now() + LIMIT);
    assert_eq!(
        told(&reply),
        "response \"\"",
        "a MiB of it, and nothing kept"
    );
}

#[test]
fn an_attempt_ends_at_its_end_whatever_the_server_does() {
    let drip = |start: &'static [u8]| {
        client(move |stream| {
            let _ = stream.write_all(start);
            while stream.write_all(b"x").is_ok() {
                thread::sleep(Duration::from_millis(5));
            }
        })
    };
    let mute = client(|stream| {
        let _ = stream.read(&mut [0]);
    });
    for (mut client, status, heard) in [
        (mute, None, false),
        (drip(b"HTTP/1.1 200 OK\r\nX-Drip: "), None, true),
        (drip(b"HTTP/1.1 200 OK\r\n\r\n"), Some(200), true),
    ] {
        let start = Monotonic::now();
        let reply = client.attempt("/", &options(), false, start + LIMIT);
        let elapsed = Monotonic::now().since(start);
        assert_eq!(told(&reply), "Timeout true");
        assert_eq!((reply.status, reply.heard), (status, heard));
        assert!(
            elapsed >= LIMIT && elapsed < LIMIT + Duration::from_millis(100),
            "{elapsed:?}"
        );
    }
}

#[test]
fn a_port_without_a_listener_refuses() {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let mut client = client(|_| {});
    client.base_url = format!("http://127.0.0.1:{port}").parse().unwrap();
    let reply = client.attempt("/", &options(), false, Monotonic::now() + LIMIT);
    assert_eq!(
        (told(&reply).as_str(), reply.heard),
        ("Refused false", false)
    );
}

#[test]
fn a_full_accept_queue_is_a_mute_backend() {
    use nix::sys::socket::*;
    let fd = socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .unwrap();
    bind(
        std::os::fd::AsRawFd::as_raw_fd(&fd),
        &SockaddrIn::new(127, 0, 0, 1, 0),
    )
    .unwrap();
    listen(&fd, Backlog::new(0).unwrap()).unwrap();
    let listener = TcpListener::from(fd);
    let address = listener.local_addr().unwrap();
    let _queued = TcpStream::connect(address).unwrap();
    let mut client = client(|_| {});
    client.base_url = format!("http://{address}").parse().unwrap();
    let reply = client.attempt("/", &options(), false, Monotonic::now() + LIMIT);
    assert_eq!(
        (told(&reply).as_str(), reply.heard),
        ("Timeout true", false)
    );
}

#[test]
fn a_tap_hears_what_nobody_has_read() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let line = Arc::new(Line::new());
    line.tap();
    line.begin(Monotonic::now() + LIMIT, 0);
    let connector = LineConnector(Arc::clone(&line));
    let _stream = connector.open(&[listener.local_addr().unwrap()]).unwrap();
    assert!(!line.heard());
    let (mut accepted, _) = listener.accept().unwrap();
    accepted.write_all(b"H").unwrap();
    let end = Monotonic::now() + LIMIT;
    while !line.heard() {
        assert!(!end.has_passed(), "never heard");
        thread::yield_now();
    }
}

#[test]
fn a_redirect_may_lead_to_a_longer_address_than_the_route_has() {
    let target = format!("/{}", "x".repeat(20_000));
    let location = format!("HTTP/1.1 302 Found\r\nLocation: {target}\r\n\r\n");
    let mut first = true;
    let replies = std::sync::Mutex::new(move || std::mem::replace(&mut first, false));
    let mut client = client(move |stream| {
        let redirected = (replies.lock().unwrap())();
        let text = if redirected {
            location.as_str()
        } else {
            "HTTP/1.1 200 OK\r\n\r\nhi"
        };
        stream.write_all(text.as_bytes()).unwrap();
    });
    let following = Options {
        max_redirects: 1,
        ..options()
    };
    let reply = client.attempt("/", &following, true, Monotonic::now() + LIMIT);
    assert_eq!(told(&reply), "response \"hi\"", "{reply:?}");
}
