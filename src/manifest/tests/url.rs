//! Base URLs, the URLs that are sent, and the targets of redirects.

use super::*;

fn base(text: &str) -> BaseUrl {
    text.parse().expect(text)
}

#[test]
fn a_base_url_is_split_into_its_parts() {
    for (text, is_https, host, port, root) in [
        (
            "http://127.0.0.1:8000",
            false,
            "127.0.0.1",
            8000,
            "http://127.0.0.1:8000/x",
        ),
        (
            "HTTPS://Api.Example.org/",
            true,
            "api.example.org",
            443,
            "https://api.example.org/x",
        ),
        ("http://h:80/a/b//", false, "h", 80, "http://h/a/b/x"),
        (
            "https://[::0:1]:8443/v1/",
            true,
            "::1",
            8443,
            "https://[::1]:8443/v1/x",
        ),
        (
            "http://a_b-c.d.:1",
            false,
            "a_b-c.d.",
            1,
            "http://a_b-c.d.:1/x",
        ),
        (
            "http://h:65535/é/@%2f",
            false,
            "h",
            65535,
            "http://h:65535/%C3%A9/@%2f/x",
        ),
    ] {
        let url = base(text);
        assert_eq!(
            (url.is_https(), url.host(), url.port()),
            (is_https, host, port),
            "{text}"
        );
        assert_eq!((url.url("/x").as_str(), &*url.to_string()), (root, text));
        assert_eq!(url.to_string(), text);
    }
}

#[test]
fn a_base_url_has_nothing_beyond_a_path_prefix() {
    for (text, reported) in [
        ("", "is not an HTTP(S) URL; begin it with"),
        ("127.0.0.1:8000", "is not an HTTP(S) URL"),
        ("ftp://h", "is not an HTTP(S) URL"),
        ("http:/h", "is not an HTTP(S) URL"),
        ("http://", "the host \"\" is empty; give one"),
        ("http://:80", "the host \"\" is empty; give one"),
        ("http:///x", "the host \"\" is empty; give one"),
        ("http://h?x", "has a query or a fragment; remove it"),
        ("http://h/?", "has a query or a fragment; remove it"),
        ("http://h/a#", "has a query or a fragment; remove it"),
        ("http://h h", "contains a space"),
        ("http://h/\u{85}", "contains a space or a control"),
        (" http://h", "is not an HTTP(S) URL"),
        (
            "http://h:0",
            "\":0\" is not a port; give \":\" and a number from 1 to 65535",
        ),
        ("http://h:65536", "\":65536\" is not a port"),
        ("http://h:+80", "\":+80\" is not a port"),
        ("http://h:", "\":\" is not a port"),
        ("http://[::1]80", "\"80\" is not a port"),
        ("http://::1:80", "put an IPv6 address in brackets"),
        ("http://[::1", "put an IPv6 address in brackets"),
        ("http://[::g]", "\"[::g]\" is not an IPv6 address"),
        ("http://[fe80::1%25eth0]", "give one without a zone"),
        ("http://a*", "is not a DNS name"),
        (
            "http://é.org",
            "is not a DNS name of at most 253 ASCII characters",
        ),
        ("http://a\\b", "is not a DNS name"),
    ] {
        let message = text.parse::<BaseUrl>().expect_err(text);
        assert!(message.contains(reported), "{text}: {message}");
    }
    // Whether a name of allowed characters exists, the resolver says.
    for host in ["256.1.1.1", "-a..b", &"x".repeat(253)] {
        base(&format!("http://{host}"));
    }
    let long = format!("http://{}", "x".repeat(254));
    assert!(long.parse::<BaseUrl>().is_err());
}

#[test]
fn user_info_is_refused_and_never_shown() {
    for text in [
        "http://me:hunter2@h",
        "http://hunter2@h:80/x",
        "http://me:hunter2/x@h",
        "http://me:hunter2#x@h/?a",
        "me:hunter2@h",
    ] {
        let message = text.parse::<BaseUrl>().expect_err(text);
        assert!(!message.contains("hunter2"), "{message}");
    }
    let message = "http://me:x@h".parse::<BaseUrl>().expect_err("user info");
    assert!(message.starts_with("has user info before an \"@\"; remove it"));
}

#[test]
fn url_encodes_what_a_uri_cannot_contain() {
    let url = base("http://h/p");
    assert_eq!(
        url.url("/a%20b?c=d&e=f/?:@!$'()*+,;~"),
        "http://h/p/a%20b?c=d&e=f/?:@!$'()*+,;~"
    );
    assert_eq!(
        url.url("/é<>\"{}|\\^`[]%zz%"),
        "http://h/p/%C3%A9%3C%3E%22%7B%7D%7C%5C%5E%60%5B%5D%25zz%25"
    );
}

#[test]
fn resolve_stays_within_the_origin() {
    let url = base("http://Api.example:8000/v1");
    let at = "http://api.example:8000/v1/a/b?q=1";
    for (location, target) in [
        ("/x", "http://api.example:8000/x"),
        ("x?y#z", "http://api.example:8000/v1/a/x?y"),
        ("../../../c", "http://api.example:8000/c"),
        ("?n", "http://api.example:8000/v1/a/b?n"),
        ("http://API.EXAMPLE:8000", "http://api.example:8000/"),
        ("HTTP://api.example:8000?x", "http://api.example:8000/?x"),
        ("//api.example:8000/y", "http://api.example:8000/y"),
        (
            "/a b[é]?u=http://evil/[x]",
            "http://api.example:8000/a%20b%5B%C3%A9%5D?u=http://evil/%5Bx%5D",
        ),
        (
            "/\\evil.example/",
            "http://api.example:8000/%5Cevil.example/",
        ),
        ("/a:b", "http://api.example:8000/a:b"),
        ("/x/%2e%2E/ok", "http://api.example:8000/ok"),
        ("/x/y/%2E", "http://api.example:8000/x/y/"),
    ] {
        assert_eq!(
            url.resolve(at, location).as_deref(),
            Some(target),
            "{location}"
        );
    }
    for location in [
        "",
        "#top",
        "//evil.example/y",
        "https://api.example:8000/",
        "http://api.example/",
        "http://api.example:8001/",
        "http://me@api.example:8000/",
        "http://api.example:8000@evil.example/",
        "http://api.example:8000\\@evil.example/",
        "http://evil.example\\.api.example:8000/",
        "http:///x",
        "http:x",
        "mailto:a@b",
        "http://api.example:99999/",
    ] {
        assert_eq!(url.resolve(at, location), None, "{location}");
    }
    // Three bytes each, once they are encoded.
    let [short, long] = [21_800, 22_000].map(|length| format!("?{}", "[".repeat(length)));
    assert!(url.resolve(at, &short).is_some());
    assert_eq!(url.resolve(at, &long), None);
}

#[test]
fn resolve_knows_default_ports_and_spellings_of_addresses() {
    let url = base("https://[::1]");
    let target = url.resolve("https://[::1]/", "https://[0:0::1]:443/x");
    assert_eq!(target.as_deref(), Some("https://[::1]/x"));
    // A resolved URL can be the base of the next redirect.
    assert_eq!(
        url.resolve("https://[::1]/x", "y").as_deref(),
        Some("https://[::1]/y")
    );
}

#[test]
fn resolve_follows_the_examples_of_rfc_3986() {
    let url = base("http://a");
    // Section 5.4, without parameters of the fragment and other schemes.
    for (location, target) in [
        ("g", "/b/c/g"),
        ("./g", "/b/c/g"),
        ("g/", "/b/c/g/"),
        ("/g", "/g"),
        ("//a", "/"),
        ("?y", "/b/c/d;p?y"),
        ("g?y", "/b/c/g?y"),
        (";x", "/b/c/;x"),
        ("g;x", "/b/c/g;x"),
        ("g;x?y#s", "/b/c/g;x?y"),
        (".", "/b/c/"),
        ("./", "/b/c/"),
        ("..", "/b/"),
        ("../", "/b/"),
        ("../g", "/b/g"),
        ("../..", "/"),
        ("../../", "/"),
        ("../../g", "/g"),
        ("../../../g", "/g"),
        ("../../../../g", "/g"),
        ("/./g", "/g"),
        ("/../g", "/g"),
        ("g.", "/b/c/g."),
        (".g", "/b/c/.g"),
        ("g..", "/b/c/g.."),
        ("..g", "/b/c/..g"),
        ("./../g", "/b/g"),
        ("./g/.", "/b/c/g/"),
        ("g/./h", "/b/c/g/h"),
        ("g/../h", "/b/c/h"),
        ("g;x=1/./y", "/b/c/g;x=1/y"),
        ("g;x=1/../y", "/b/c/y"),
        ("g?y/./x", "/b/c/g?y/./x"),
        ("g?y/../x", "/b/c/g?y/../x"),
        ("g#s/../x", "/b/c/g"),
        ("http://a/b//../x/..", "/b/"),
        ("./a:b", "/b/c/a:b"),
        ("g?a:b", "/b/c/g?a:b"),
    ] {
        assert_eq!(
            url.resolve("http://a/b/c/d;p?q", location),
            Some(format!("http://a{target}")),
            "{location}"
        );
    }
    for location in ["g:h", "a:b/c", "http:g", "//g", "1:b"] {
        assert_eq!(
            url.resolve("http://a/b/c/d;p?q", location),
            None,
            "{location}"
        );
    }
}
