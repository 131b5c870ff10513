//! Queries the kernel's socket tables, sock_diag(7) over AF_NETLINK, which needs no privilege. Handles the
//! netlink messages; `tcp` and `unix` handle their contents.

use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::clock::Monotonic;

/// The kernel fits its answers into the reader's buffer, up to 32 KiB (`netlink_dump` in its net/netlink/af_netlink.c).
const BUFFER: usize = 16 * 1_024;
/// The largest number of rows in one table; no accept queue is that long.
const ROWS_MAX: usize = 200_000;
/// Size of the header before each message.
const HEADER: usize = size_of::<libc::nlmsghdr>();
/// From include/uapi/linux/sock_diag.h.
const SOCK_DIAG_BY_FAMILY: libc::c_int = 20;

/// Asks `question` (in the family's own format) and reads each row of the answer with `row`, which returns
/// none if it cannot. Beside the kernel's errors, `EBADMSG` if the answer cannot be parsed, `ETIME` if it is not
/// complete by `until`, or too long.
pub(crate) fn read_table<T>(
    question: &[u8],
    until: Monotonic,
    row: impl Fn(&[u8]) -> Option<T>,
) -> Result<Vec<T>, Errno> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkSockDiag,
    )?;
    // The kernel answers at once; a limit costs nothing.
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(1))?;
    send(socket.as_raw_fd(), &request(question), MsgFlags::empty())?;
    let mut buffer = vec![0; BUFFER];
    let mut rows = Vec::new();
    loop {
        let length = match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(length) => length,
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error),
        };
        let answer = buffer.get(..length).ok_or(Errno::EBADMSG)?;
        let mut take = |message: &[u8]| row(message).map(|row| rows.push(row));
        if parse(answer, &mut take)? {
            return Ok(rows);
        }
        if until.has_passed() || rows.len() > ROWS_MAX {
            return Err(Errno::ETIME);
        }
    }
}

/// Why a table cannot be read, and the remedy.
pub(crate) fn explain(error: Errno) -> String {
    let name = error.desc();
    match error {
        Errno::EAFNOSUPPORT | Errno::EPERM | Errno::EACCES => format!(
            "the kernel's socket table is not accessible ({name}): allow AF_NETLINK for this program (RestrictAddressFamilies= of its unit)"
        ),
        Errno::EBADMSG => "the kernel's socket table could not be parsed".to_owned(),
        Errno::ETIME | Errno::EAGAIN => {
            "the kernel's socket table could not be read in time: the port has very many connections, or this machine is overloaded".to_owned()
        }
        _ => format!(
            "the kernel does not show its socket table ({name}): it needs CONFIG_INET_DIAG and CONFIG_UNIX_DIAG"
        ),
    }
}

/// `question` after a `struct nlmsghdr`.
fn request(question: &[u8]) -> Vec<u8> {
    let length = (HEADER + question.len()) as u32;
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
    [
        &length.to_ne_bytes()[..],
        &(SOCK_DIAG_BY_FAMILY as u16).to_ne_bytes(),
        &(flags as u16).to_ne_bytes(),
        &[0; 8],
        question,
    ]
    .concat()
}

/// Passes each message of one answer to `take`, which returns none if it cannot read the message. Returns
/// whether the answer was the last one.
pub(crate) fn parse(
    mut answer: &[u8],
    take: &mut impl FnMut(&[u8]) -> Option<()>,
) -> Result<bool, Errno> {
    while !answer.is_empty() {
        let header = u32_at(answer, 0).zip(u16_at(answer, 4));
        let (length, kind) = header.ok_or(Errno::EBADMSG)?;
        let payload = answer.get(HEADER..length as usize).ok_or(Errno::EBADMSG)?;
        match kind.into() {
            libc::NLMSG_DONE => return Ok(true),
            libc::NLMSG_ERROR => {
                let code = u32_at(payload, 0).ok_or(Errno::EBADMSG)?.cast_signed();
                return Err(Errno::from_raw(code.saturating_neg()));
            }
            SOCK_DIAG_BY_FAMILY => take(payload).ok_or(Errno::EBADMSG)?,
            _ => {}
        }
        answer = answer.get(aligned(length as usize)..).unwrap_or_default();
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

/// The `N` bytes of `from` at `offset`.
pub(crate) fn bytes_at<const N: usize>(from: &[u8], offset: usize) -> Option<[u8; N]> {
    from.get(offset..)?.first_chunk().copied()
}

fn u16_at(from: &[u8], offset: usize) -> Option<u16> {
    bytes_at(from, offset).map(u16::from_ne_bytes)
}

pub(crate) fn u32_at(from: &[u8], offset: usize) -> Option<u32> {
    bytes_at(from, offset).map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_refuses_truncated_answers() {
        let mut found = 0;
        let mut take = |payload: &[u8]| {
            found += 1;
            (payload.len() >= 4).then_some(())
        };
        let header = |length: u32, kind: libc::c_int| {
            let kind = (kind as u16).to_ne_bytes();
            [&length.to_ne_bytes()[..], &kind, &[0; 10]].concat()
        };
        assert_eq!(parse(&header(16, libc::NLMSG_DONE), &mut take), Ok(true));
        assert_eq!(parse(&header(16, libc::NLMSG_NOOP), &mut take), Ok(false));
        for garbage in [
            &[1, 2, 3][..],
            &header(0, libc::NLMSG_DONE),
            &header(15, libc::NLMSG_DONE),
            &header(17, libc::NLMSG_DONE),
            &header(16, SOCK_DIAG_BY_FAMILY),
            &header(16, libc::NLMSG_ERROR),
        ] {
            let read = parse(garbage, &mut take);
            assert_eq!(read, Err(Errno::EBADMSG), "{garbage:?}");
        }
        let mut refusal = header(20, libc::NLMSG_ERROR);
        refusal.extend((-libc::ENOENT).to_ne_bytes());
        assert_eq!(parse(&refusal, &mut take), Err(Errno::ENOENT));
        assert_eq!(found, 1);
    }
}
