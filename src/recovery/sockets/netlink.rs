//! Queries the kernel's socket tables, sock_diag(7) over AF_NETLINK, which needs no privilege. Handles the
//! netlink messages; `tcp` and `unix` handle their contents.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::clock::Monotonic;

/// The kernel fits its answers into the reader's buffer, up to 32 KiB (`netlink_dump` in its
/// net/netlink/af_netlink.c).
const BUFFER: usize = 16 * 1_024;

// include/uapi/linux/netlink.h and sock_diag.h.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const HEADER: usize = 16;

/// A netlink socket for queries.
#[derive(Debug)]
pub(crate) struct SockDiag {
    socket: OwnedFd,
    buffer: Vec<u8>,
    sequence: u32,
}

impl SockDiag {
    /// Opens the netlink socket.
    ///
    /// # Errors
    ///
    /// A message with the remedy, if AF_NETLINK is not accessible.
    pub(crate) fn open() -> Result<Self, String> {
        let open = || {
            let socket = socket(
                AddressFamily::Netlink,
                SockType::Datagram,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::NetlinkSockDiag,
            )?;
            // The kernel answers at once; a limit costs nothing.
            setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(1))?;
            Ok(socket)
        };
        let socket = open().map_err(|error: Errno| match error {
            Errno::EAFNOSUPPORT | Errno::EPERM | Errno::EACCES => format!(
                "the kernel's socket table is not accessible ({}): allow AF_NETLINK for this program (RestrictAddressFamilies= of its unit)",
                error.desc()
            ),
            error => Fault::Refused(error).to_string(),
        })?;
        Ok(Self {
            socket,
            buffer: vec![0; BUFFER],
            sequence: 0,
        })
    }

    /// Asks `question` (in the family's own format) and passes each socket's message to `take`, which returns
    /// none if it cannot read the message.
    ///
    /// # Errors
    ///
    /// The kernel refuses, an answer cannot be read, or not all answers have arrived by `until`.
    pub(crate) fn read_table(
        &mut self,
        question: &[u8],
        until: Monotonic,
        mut take: impl FnMut(&[u8]) -> Option<()>,
    ) -> Result<(), Fault> {
        self.sequence = self.sequence.wrapping_add(1);
        let fd = self.socket.as_raw_fd();
        let request = request(question, self.sequence);
        send(fd, &request, MsgFlags::empty()).map_err(Fault::Refused)?;
        loop {
            let length = match recv(fd, &mut self.buffer, MsgFlags::empty()) {
                Ok(length) => length,
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(Fault::Refused(error)),
            };
            let answer = self.buffer.get(..length).ok_or(Fault::Garbage)?;
            if parse(answer, self.sequence, &mut take)? {
                return Ok(());
            }
            if until.has_passed() {
                return Err(Fault::TooMuch);
            }
        }
    }
}

/// Why there is no table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The kernel refused.
    Refused(Errno),
    /// An answer could not be parsed.
    Garbage,
    /// There was not enough time or space for all answers.
    TooMuch,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(error) => write!(
                f,
                "the kernel does not show its socket table ({}): it needs CONFIG_INET_DIAG and CONFIG_UNIX_DIAG",
                error.desc()
            ),
            Self::Garbage => f.write_str("the kernel's socket table could not be parsed"),
            Self::TooMuch => f.write_str(
                "the kernel's socket table could not be read in time: the port has very many connections, or this machine is overloaded",
            ),
        }
    }
}

/// `question` after a `struct nlmsghdr`.
fn request(question: &[u8], sequence: u32) -> Vec<u8> {
    let length = (HEADER + question.len()) as u32;
    [
        &length.to_ne_bytes()[..],
        &SOCK_DIAG_BY_FAMILY.to_ne_bytes(),
        &(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes(),
        &sequence.to_ne_bytes(),
        &[0; 4],
        question,
    ]
    .concat()
}

/// Reads one answer and returns whether it was the last one. Answers to earlier questions (another
/// `sequence`) are skipped.
pub(crate) fn parse(
    mut answer: &[u8],
    sequence: u32,
    take: &mut impl FnMut(&[u8]) -> Option<()>,
) -> Result<bool, Fault> {
    while !answer.is_empty() {
        let length = u32_at(answer, 0).ok_or(Fault::Garbage)? as usize;
        let message = answer.get(..length).ok_or(Fault::Garbage)?;
        let payload = message.get(HEADER..).ok_or(Fault::Garbage)?;
        let kind = u16_at(message, 4).ok_or(Fault::Garbage)?;
        if u32_at(message, 8) == Some(sequence) {
            match kind {
                NLMSG_DONE => return Ok(true),
                NLMSG_ERROR => {
                    let code = u32_at(payload, 0).ok_or(Fault::Garbage)?.cast_signed();
                    return Err(Fault::Refused(Errno::from_raw(code.saturating_neg())));
                }
                SOCK_DIAG_BY_FAMILY => take(payload).ok_or(Fault::Garbage)?,
                _ => {}
            }
        }
        answer = answer.get(aligned(length)..).unwrap_or_default();
    }
    Ok(false)
}

/// The attributes in `from`: their types and values, up to the first truncated one.
pub(crate) fn attributes(mut from: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(from, 0)?);
        let kind = u16_at(from, 2)?;
        let value = from.get(4..length)?;
        from = from.get(aligned(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// Netlink aligns messages and attributes to four bytes, netlink(3).
const fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

pub(crate) fn bytes(from: &[u8], offset: usize, length: usize) -> Option<&[u8]> {
    from.get(offset..offset.checked_add(length)?)
}

pub(crate) fn u16_at(from: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes(from, offset, 2)?.try_into().ok()?))
}

pub(crate) fn u32_at(from: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes(from, offset, 4)?.try_into().ok()?))
}

pub(crate) fn u64_at(from: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes(from, offset, 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_refuses_truncated_answers_and_skips_those_to_other_questions() {
        let mut found = 0;
        let mut take = |payload: &[u8]| {
            found += 1;
            (payload.len() >= 4).then_some(())
        };
        let header = |length: u32, kind: u16, sequence: u32| {
            [
                &length.to_ne_bytes()[..],
                &kind.to_ne_bytes(),
                &[0; 2],
                &sequence.to_ne_bytes(),
                &[0; 4],
            ]
            .concat()
        };
        assert_eq!(parse(&header(16, NLMSG_DONE, 7), 7, &mut take), Ok(true));
        assert_eq!(parse(&header(16, NLMSG_DONE, 6), 7, &mut take), Ok(false));
        for garbage in [
            &[1, 2, 3][..],
            &header(0, NLMSG_DONE, 7),
            &header(15, NLMSG_DONE, 7),
            &header(17, NLMSG_DONE, 7),
            &header(16, SOCK_DIAG_BY_FAMILY, 7),
            &header(16, NLMSG_ERROR, 7),
        ] {
            assert_eq!(
                parse(garbage, 7, &mut take),
                Err(Fault::Garbage),
                "{garbage:?}"
            );
        }
        let mut refusal = header(20, NLMSG_ERROR, 7);
        refusal.extend((-libc::ENOENT).to_ne_bytes());
        assert_eq!(
            parse(&refusal, 7, &mut take),
            Err(Fault::Refused(Errno::ENOENT))
        );
        assert_eq!(found, 1);
    }
}
