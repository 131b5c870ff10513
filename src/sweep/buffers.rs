//! The buffers between ureq and the socket. ureq's own buffers do not grow, so a head larger than the
//! buffer would look like a closed connection. These buffers grow up to a limit.

use ureq::Error;
use ureq::unversioned::transport::{self, Buffers as _};

use super::framing::Framing;

/// Enough for most responses in one read, and small with 64 probes in flight.
const INPUT: usize = 16 * 1024;

/// More than the longest head that is accepted.
const INPUT_MAX: usize = 128 * 1024;

/// Space for a request's lines other than the longest one.
const OUTPUT: usize = 2 * 1024;

/// The buffers of one connection, and then of another one.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    input: Vec<u8>,
    start: usize,
    filled: usize,
    output: Vec<u8>,
    progress: bool,
    /// Follows the responses, where the bytes are HTTP.
    framing: Framing,
}

impl Buffers {
    /// Empty buffers for requests whose lines have at most `longest_line` bytes.
    pub(super) fn new(longest_line: usize) -> Self {
        Self::default().prepare(longest_line)
    }

    /// Makes these the empty buffers of a new connection, for requests whose lines have at most
    /// `longest_line` bytes.
    pub(super) fn prepare(mut self, longest_line: usize) -> Self {
        self.input.resize(INPUT.max(self.input.len()), 0);
        self.output.resize(OUTPUT + longest_line, 0);
        Self {
            input: self.input,
            output: self.output,
            ..Self::default()
        }
    }

    /// Makes the next received byte the first one of an HTTP response.
    pub(super) fn begin_response(&mut self) {
        self.framing.begin();
    }

    /// The free part of the input, or an error if the other side sends an endless line.
    pub(super) fn free_input(&mut self) -> Result<&mut [u8], Error> {
        let held = self.filled - self.start;
        match self.input_append_buf() {
            [] => Err(Error::LargeResponseHeader(held, INPUT_MAX)),
            free => Ok(free),
        }
    }

    /// The first `amount` bytes of the output.
    pub(super) fn filled_output(&self, amount: usize) -> &[u8] {
        self.output.get(..amount).unwrap_or(&self.output)
    }
}

impl transport::Buffers for Buffers {
    fn output(&mut self) -> &mut [u8] {
        &mut self.output
    }

    fn input(&self) -> &[u8] {
        self.input.get(self.start..self.filled).unwrap_or_default()
    }

    fn input_append_buf(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.input.copy_within(self.start..self.filled, 0);
            self.filled -= self.start;
            self.start = 0;
        }
        if self.filled == self.input.len() && self.filled < INPUT_MAX {
            self.input.resize(self.input.len() * 2, 0);
        }
        self.input.get_mut(self.filled..).unwrap_or_default()
    }

    fn input_appended(&mut self, amount: usize) {
        self.filled = (self.filled + amount).min(self.input.len());
        let input = self.input.get_mut(self.start..self.filled);
        let left = self.framing.mend(input.unwrap_or_default(), amount);
        self.filled = self.start + left;
    }

    fn input_consume(&mut self, amount: usize) {
        self.progress = amount > 0;
        self.start = (self.start + amount).min(self.filled);
    }

    fn tmp_and_output(&mut self) -> (&mut [u8], &mut [u8]) {
        (
            self.input.get_mut(self.filled..).unwrap_or_default(),
            &mut self.output,
        )
    }

    fn can_use_input(&self) -> bool {
        self.start < self.filled && self.progress
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(buffers: &mut Buffers, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let free = buffers.input_append_buf();
            let count = free.len().min(rest.len());
            free[..count].copy_from_slice(&rest[..count]);
            buffers.input_appended(count);
            rest = &rest[count..];
        }
    }

    #[test]
    fn input_grows_instead_of_filling_up() {
        let mut buffers = Buffers::new(0);
        let bytes: Vec<u8> = (0..INPUT_MAX).map(|n| n as u8).collect();
        append(&mut buffers, &bytes);
        assert_eq!(buffers.input(), bytes);
        assert!(buffers.free_input().is_err(), "it has an end");
    }

    #[test]
    fn input_keeps_unconsumed_bytes() {
        let mut buffers = Buffers::new(0);
        append(&mut buffers, b"abcdef");
        assert!(!buffers.can_use_input(), "nothing of it was of use yet");
        buffers.input_consume(2);
        assert!(buffers.can_use_input());
        append(&mut buffers, b"gh");
        assert_eq!(buffers.input(), b"cdefgh");
        buffers.input_consume(6);
        assert!(!buffers.can_use_input());
        buffers.input_consume(0);
        assert!(!buffers.can_use_input());
    }

    #[test]
    fn output_holds_the_longest_line() {
        let mut buffers = Buffers::new(65_000);
        assert!(buffers.output().len() >= 65_000 + OUTPUT);
        assert_eq!(buffers.filled_output(3).len(), 3);
    }
}
