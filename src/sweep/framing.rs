//! Rewrites parts of a response that HTTP allows and ureq-proto 0.7 does not support, before ureq-proto
//! parses the received bytes: 1xx heads with fields (RFC 9110, section 15.2), folded lines (RFC 9112,
//! section 5.2), a transfer coding whose last part is not `chunked` (section 6.3), and long chunk size
//! lines (section 7.1). Invalid input stays unchanged, so that ureq rejects it.

use std::ops::Range;

/// The longest chunk size line that ureq-proto accepts (`Dechunker::read_size`).
const SIZE_LINE_MAX: usize = 20;

/// The position of the next received byte in a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// In the rest of the response, which needs no rewriting.
    #[default]
    Rest,
    Head,
    ChunkSize,
    /// This many bytes before the next chunk size line.
    Chunk(u64),
}

/// The state of one response.
#[derive(Debug, Default)]
pub(super) struct Framing {
    state: State,
    /// The bytes at the end of the input that belong to an unfinished head or chunk size line.
    unfinished: usize,
}

/// The transfer coding of a response, as far as it determines where the body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    /// None, or one that ureq-proto understands.
    Plain,
    /// `chunked` comes last.
    Chunked,
    /// Another coding comes last: the body ends with the connection, regardless of `Content-Length`.
    UntilClose,
}

/// A complete response head.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    length: usize,
    /// Whether another head follows this one.
    informational: bool,
    coding: Coding,
}

impl Framing {
    /// A response begins with the next received byte.
    pub(super) fn begin(&mut self) {
        self.state = State::Head;
        self.unfinished = 0;
    }

    /// Rewrites `input`, whose last `added` bytes are new, in place; returns its new length.
    pub(super) fn mend(&mut self, input: &mut [u8], added: usize) -> usize {
        let mut length = input.len();
        let mut at = length.saturating_sub(self.unfinished + added);
        while let Some(rest) = input.get_mut(at..length)
            && !rest.is_empty()
        {
            match self.state {
                State::Rest => at = length,
                State::Head => match head(rest) {
                    None => break,
                    Some(head) if head.informational => {
                        length -= remove(rest, 0..head.length);
                    }
                    Some(head) => {
                        at += head.length;
                        self.state = match head.coding {
                            Coding::Plain => State::Rest,
                            Coding::Chunked => State::ChunkSize,
                            Coding::UntilClose => {
                                hide_lengths(rest.get_mut(..head.length).unwrap_or_default());
                                State::Rest
                            }
                        };
                    }
                },
                State::ChunkSize => {
                    let Some(end) = find(rest, b'\n') else { break };
                    let line = rest.get_mut(..=end).unwrap_or_default();
                    let size = chunk_size(line);
                    self.state = match size {
                        None | Some(0) => State::Rest,
                        // The chunk's data and the line end after it.
                        Some(size) => State::Chunk(size.saturating_add(2)),
                    };
                    let mut kept = line.len();
                    if let Some(size) = size
                        && kept > SIZE_LINE_MAX
                    {
                        let short = format!("{size:x}\r\n");
                        kept = short.len();
                        let bytes = line.iter_mut().zip(short.bytes());
                        bytes.for_each(|(old, new)| *old = new);
                        length -= remove(rest, kept..end + 1);
                    }
                    at += kept;
                }
                State::Chunk(left) => {
                    let present = left.min(rest.len() as u64);
                    at += present as usize;
                    self.state = match left - present {
                        0 => State::ChunkSize,
                        left => State::Chunk(left),
                    };
                }
            }
        }
        self.unfinished = length - at;
        length
    }
}

/// The head at the beginning of `bytes`, with its lines unfolded; none while it is incomplete.
fn head(bytes: &mut [u8]) -> Option<Head> {
    let mut status_line = None;
    let mut coding = Coding::Plain;
    let (mut start, mut searched) = (0, 0);
    loop {
        let end = searched + find(bytes.get(searched..)?, b'\n')?;
        searched = end + 1;
        let line = trim_end(bytes.get(start..end)?);
        let folded = matches!(bytes.get(end + 1), Some(b' ' | b'\t'));
        match status_line {
            // httparse skips empty lines before a response.
            None if line.is_empty() => {}
            None => status_line = Some(start..start + line.len()),
            Some(range) if line.is_empty() => {
                let status_line = bytes.get(range)?;
                let http_1_0 = status_line.starts_with(b"HTTP/1.0");
                return Some(Head {
                    length: end + 1,
                    informational: is_informational(status_line),
                    coding: if http_1_0 { Coding::Plain } else { coding },
                });
            }
            Some(_) if folded => {
                let line_end = bytes.get_mut(start..=end)?.iter_mut().rev();
                let line_end = line_end.take_while(|byte| matches!(byte, b'\r' | b'\n'));
                line_end.for_each(|byte| *byte = b' ');
                continue;
            }
            Some(_) => coding = coding_of(line).unwrap_or(coding),
        }
        start = end + 1;
    }
}

/// Whether this is the status line of an informational response, which another one follows: 1xx, except
/// 101, which ends HTTP on the connection (RFC 9110, section 15.2.2).
fn is_informational(status_line: &[u8]) -> bool {
    let status = status_line
        .strip_prefix(b"HTTP/1.")
        .and_then(|rest| rest.get(2..5));
    status.is_some_and(|status| {
        status.starts_with(b"1") && status.iter().all(u8::is_ascii_digit) && status != b"101"
    })
}

/// The transfer coding in this field line, if there is one. The last coding of the last line counts
/// (RFC 9110, section 5.3).
fn coding_of(line: &[u8]) -> Option<Coding> {
    let codings = value_of(line, b"transfer-encoding")?;
    let last = codings.rsplit(|byte| *byte == b',').next()?.trim_ascii();
    Some(match last.to_ascii_lowercase().as_slice() {
        b"chunked" => Coding::Chunked,
        // Obsolete, and no coding at all.
        b"identity" | b"" => Coding::Plain,
        _ => Coding::UntilClose,
    })
}

/// The value of a field line of this name, which is in lower case.
fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (found, rest) = line.split_at_checked(name.len())?;
    let value = rest.strip_prefix(b":")?;
    found.eq_ignore_ascii_case(name).then_some(value)
}

/// Renames the fields of `head` that would delimit its body.
fn hide_lengths(head: &mut [u8]) {
    for line in head.split_mut(|byte| *byte == b'\n') {
        let names: [&[u8]; 2] = [b"transfer-encoding", b"content-length"];
        if names.iter().any(|name| value_of(line, name).is_some())
            && let Some(first) = line.first_mut()
        {
            *first = b'X';
        }
    }
}

/// The size in a complete chunk size line; none if the line is invalid.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let line = line.strip_suffix(b"\r\n")?;
    let is_other = |byte: &u8| !byte.is_ascii_hexdigit();
    let (digits, rest) = line.split_at(line.iter().position(is_other).unwrap_or(line.len()));
    let rest = rest.trim_ascii_start();
    let legal = rest.is_empty() || rest.starts_with(b";");
    let digits = std::str::from_utf8(digits).ok()?;
    legal.then(|| u64::from_str_radix(digits, 16).ok())?
}

/// Removes `range` from `bytes` by moving the rest forward; returns how many bytes that were.
fn remove(bytes: &mut [u8], range: Range<usize>) -> usize {
    let count = range.len();
    bytes.copy_within(range.end.., range.start);
    count
}

fn find(bytes: &[u8], wanted: u8) -> Option<usize> {
    bytes.iter().position(|byte| *byte == wanted)
}

fn trim_end(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rewritten form of a response that arrives in these pieces.
    fn mended(pieces: &[&[u8]]) -> (String, State) {
        let mut framing = Framing::default();
        framing.begin();
        let mut input = Vec::new();
        for piece in pieces {
            input.extend_from_slice(piece);
            let length = framing.mend(&mut input, piece.len());
            input.truncate(length);
        }
        (String::from_utf8(input).unwrap(), framing.state)
    }

    #[test]
    fn mend_is_independent_of_the_pieces() {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let (zeros, extension) = ("0".repeat(30), "e".repeat(30));
        for (text, expected, state) in [
            (
                "HTTP/1.1 100 C\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\n\r\n 1\r\n 2".to_owned(),
                "HTTP/1.1 200 OK\r\n\r\n 1\r\n 2".to_owned(),
                State::Rest,
            ),
            (
                "HTTP/1.1 200 OK\r\nA: b\r\n c\n\td\r\n\r\n".to_owned(),
                "HTTP/1.1 200 OK\r\nA: b   c \td\r\n\r\n".to_owned(),
                State::Rest,
            ),
            (
                "HTTP/1.1 200 OK\nContent-Length: 1\ntransfer-encoding: chunked, x\n\nhi"
                    .to_owned(),
                "HTTP/1.1 200 OK\nXontent-Length: 1\nXransfer-encoding: chunked, x\n\nhi"
                    .to_owned(),
                State::Rest,
            ),
            (
                format!("{head}{zeros}3;{extension}\r\n\r\n0\r\n{zeros}\r\nT: {zeros}\r\n"),
                format!("{head}3\r\n\r\n0\r\n0\r\nT: {zeros}\r\n"),
                State::Rest,
            ),
            (
                format!("{}{zeros}5\r\n", head.replace("1.1", "1.0")),
                format!("{}{zeros}5\r\n", head.replace("1.1", "1.0")),
                State::Rest,
            ),
            (
                format!("{head}A\r\n01"),
                format!("{head}A\r\n01"),
                State::Chunk(10),
            ),
            (
                format!("{head}{zeros}g\r\n{zeros}1\r\n"),
                format!("{head}{zeros}g\r\n{zeros}1\r\n"),
                State::Rest,
            ),
            (
                format!("{head}{zeros}"),
                format!("{head}{zeros}"),
                State::ChunkSize,
            ),
            (
                "\x16\x03\r\n x".to_owned(),
                "\x16\x03\r\n x".to_owned(),
                State::Head,
            ),
        ] {
            let bytes = text.as_bytes();
            for size in 1..=bytes.len() {
                let pieces: Vec<_> = bytes.chunks(size).collect();
                assert_eq!(
                    mended(&pieces),
                    (expected.clone(), state),
                    "{text:?} by {size}"
                );
            }
        }
    }

    #[test]
    fn chunk_size_accepts_only_valid_lines() {
        for (line, size) in [
            ("0\r\n", Some(0)),
            ("00fF\r\n", Some(255)),
            ("5 ;a=\"b\"\r\n", Some(5)),
            ("5\t\r\n", Some(5)),
            ("ffffffffffffffff\r\n", Some(u64::MAX)),
            ("10000000000000000\r\n", None),
            ("5\n", None),
            ("5 5\r\n", None),
            (";a\r\n", None),
            ("+5\r\n", None),
            ("\r\n", None),
        ] {
            assert_eq!(chunk_size(line.as_bytes()), size, "{line:?}");
        }
    }

    #[test]
    fn only_1xx_that_another_response_follows_is_informational() {
        for (line, expected) in [
            ("HTTP/1.1 100 Continue", true),
            ("HTTP/1.1 199", true),
            ("HTTP/1.1 101 Switching Protocols", false),
            ("HTTP/1.1 200 OK", false),
            ("HTTP/1.1 1", false),
            ("SSH-2.0 100", false),
        ] {
            assert_eq!(is_informational(line.as_bytes()), expected, "{line}");
        }
    }
}
