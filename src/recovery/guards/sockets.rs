//! The guards that judge the parked requests and the sockets at which they wait. They ask whether the silence is
//! the backend's own.

use std::fmt::Display;
use std::net::SocketAddr;

use super::super::Outcome;
use super::super::facts::{Context, CpuTimes, Facts, Sockets};
use super::super::sockets::Reading;
use super::super::sockets::owners::Owner;
use super::super::sockets::tcp::{TcpSocket, canonical, listeners, server_side, server_sides};
use super::{Answer, Guard, refuse, refuse_for};
use crate::escape::escape;
use crate::sweep::{ParkedRequest, ParkedState, Reach};

/// The message about an accept queue that moves.
const MOVES: &str = "the backend has accepted a connection that had waited since the sweep began: it is overloaded, not hung";

pub(super) fn answered(_: &Context, facts: &Facts) -> Answer {
    let sockets = facts.sockets.as_ref();
    let rows = sockets.map_or(&[][..], |sockets| sockets.reading.rows());
    let mut written = server_sides(rows, &facts.parked).map(TcpSocket::unacknowledged);
    let withheld = || {
        written.find(|bytes| *bytes > 0).map(|bytes| format!(
        "the backend has written an answer to a parked request ({bytes} bytes), but it has not arrived: look for a packet filter"
    ))
    };
    refuse_for(late_answer(&facts.parked).or_else(withheld))
}

/// Whether a byte has arrived on one of these requests.
fn late_answer(parked: &[ParkedRequest]) -> Option<String> {
    let after = parked.iter().filter_map(ParkedRequest::answered).min()?;
    let after = after.as_secs_f64();
    Some(format!(
        "the backend answered a parked request after {after:.1} s: it is alive"
    ))
}

/// Refuses if the parked requests alone show that the backend goes on.
pub(crate) fn late_sign(parked: &[ParkedRequest]) -> Result<(), Outcome> {
    match late_answer(parked) {
        Some(why) => Err(Outcome::Refused(Guard::ANSWERED, why)),
        None if connected_late(parked) => Err(Outcome::Refused(Guard::BUSY, MOVES.to_owned())),
        None => Ok(()),
    }
}

/// Whether a connect that was pending has succeeded: there was no place in the accept queue, and now there is.
fn connected_late(parked: &[ParkedRequest]) -> bool {
    let mut states = parked.iter().map(|request| request.state);
    states.any(|state| state == ParkedState::ConnectedLate)
}

pub(super) fn foreign_listener(context: &Context, facts: &Facts) -> Answer {
    let sockets = facts.sockets.as_ref().map_err(Clone::clone)?;
    let Reading::Unix {
        path, listeners, ..
    } = &sockets.reading
    else {
        let mut addresses = context.addresses.iter();
        return addresses.try_for_each(|address| own_address(context, facts, sockets, *address));
    };
    if listeners.is_empty() && context.hung_since.is_none() {
        return Ok(());
    }
    let unknown = Owner::Unknown("no process is known to listen there".to_owned());
    let owner = sockets.owners.get(&None).unwrap_or(&unknown);
    let path = path.to_string_lossy();
    let is_path = |listen: &String| without_var(listen) == without_var(&path);
    own(context.unit(), owner, &escape(&path), is_path)
}

/// systemd shows a `Listen=` below `/var/run` as below `/run`, to which the former leads.
fn without_var(path: &str) -> &str {
    let below_run = |rest: &&str| rest.starts_with("/run/");
    path.strip_prefix("/var").filter(below_run).unwrap_or(path)
}

/// Whether the unit itself serves `address`.
fn own_address(context: &Context, facts: &Facts, sockets: &Sockets, address: SocketAddr) -> Answer {
    let rows = sockets.reading.rows();
    let sent_there = facts.parked.iter().filter(|request| {
        let remote = request.remote().map(canonical);
        remote == Some(canonical(address))
    });
    // With SO_REUSEPORT, several may serve it. In FIN_WAIT2 a row has no group.
    let serving = server_sides(rows, sent_there).filter(|row| row.group.is_some());
    let mut served_by: Vec<_> = serving.collect();
    if served_by.is_empty() {
        served_by = listeners(rows, address);
    }
    if served_by.is_empty() {
        // A healthy backend may listen at one of several addresses.
        if context.hung_since.is_none() {
            return Ok(());
        }
        return refuse(format!(
            "no socket on this machine listens at {address}, so the silence there does not come from {}: the port is forwarded elsewhere (a container, a port redirect), or its listener has just been closed",
            context.unit()
        ));
    }
    served_by.into_iter().try_for_each(|socket| {
        let owner = sockets.owners.get(&socket.group).ok_or_else(|| format!(
            "the kernel does not show the control group of the listener at {address} (it needs Linux 5.10 with CONFIG_SOCK_CGROUP_DATA)"
        ))?;
        let names = |listen: &String| names_address(listen, rows, socket);
        own(context.unit(), owner, &address, names)
    })
}

/// Whether the socket at `place` with this `owner` is `unit`'s own. `names` decides whether an entry of
/// `Listen=` means that socket.
fn own(unit: &str, owner: &Owner, place: &dyn Display, names: impl Fn(&String) -> bool) -> Answer {
    let who = match owner {
        Owner::Unit | Owner::SocketUnit(_) => return Ok(()),
        Owner::Manager(listed) if listed.iter().any(names) => return Ok(()),
        Owner::Manager(_) => "the service manager itself".to_owned(),
        Owner::Foreign(path) => unit_of(path),
        Owner::Unknown(why) => {
            let why = escape(why);
            return Err(format!("the owner of the listener at {place} is unknown: {why}").into());
        }
    };
    refuse(format!(
        "the listener at {place} belongs to {who}, not to {unit}: base_url or unix_socket must point to {unit} itself, not to a proxy"
    ))
}

/// Whether `listen`, an entry of `Listen=`, is the address to which the listener behind `socket` is bound.
fn names_address(listen: &str, rows: &[TcpSocket], socket: &TcpSocket) -> bool {
    let mut listeners = listeners(rows, socket.local).into_iter();
    listen.parse().is_ok_and(|listen| {
        listeners.any(|bound| bound.group == socket.group && bound.local == canonical(listen))
    })
}

/// The unit in the path of a control group, or the path.
fn unit_of(path: &str) -> String {
    const KINDS: [&str; 3] = [".service", ".socket", ".scope"];
    let is_unit = |part: &&str| KINDS.iter().any(|kind| part.ends_with(kind));
    match path.rsplit('/').find(is_unit) {
        Some(unit) => escape(unit).into_owned(),
        None => format!("control group {}", escape(path)),
    }
}

pub(super) fn not_reached(context: &Context, facts: &Facts) -> Answer {
    // In the last round, since a hang may have begun in the first.
    let round = facts.parked.iter().map(|request| request.round).max();
    let mut first_attempts = (facts.parked.iter())
        .filter(|request| request.first_attempt && Some(request.round) == round);
    let now = &facts.sockets.as_ref().map_err(Clone::clone)?.reading;
    let before = facts.first().sockets.as_ref().map_err(Clone::clone)?;
    if context.no_handshake && reads_everything(&facts.parked, now.rows()) {
        return refuse(format!(
            "{} reads all that arrives at the port, but sends no byte of a TLS handshake, so no request has reached it: the port seems to speak another protocol; if that is plain HTTP, give base_url with http://",
            context.unit()
        ));
    }
    // It had reached the backend's socket when it timed out, or waited for a full accept queue, and still does.
    let has_reached = |request: &ParkedRequest| match request.reach {
        Reach::Connected => false,
        Reach::Acknowledged => is_open(request, now) && is_open(request, &before.reading),
        Reach::Unconnected => {
            let (place, queues) = (request.remote(), &facts.queues);
            queues.was_full(place, request.timed_out)
                && facts.first().queues.is_full(place)
                && queues.is_full(place)
        }
    };
    refuse_for((!first_attempts.any(has_reached)).then(|| format!(
        "no core request is seen to have reached {}, although its accept queue was not full: a packet filter may have caused the silence (check \"nft list ruleset\", and IPAddressDeny= and IPAddressAllow= of the units), the backend has closed the connections, or its queue has just begun to move",
        context.unit()
    )))
}

/// Whether a process has accepted and read each parked request, so that its event loop lives.
fn reads_everything(parked: &[ParkedRequest], rows: &[TcpSocket]) -> bool {
    let open = server_sides(rows, parked).filter(|row| row.is_open());
    let mut open = open.peekable();
    open.peek().is_some() && open.all(|row| row.accepted() && row.receive_queue == 0)
}

/// Whether the server's end of this request is open. Over a UNIX socket, our own end shows that.
fn is_open(request: &ParkedRequest, reading: &Reading) -> bool {
    match (request.connection, reading) {
        (Some(connection), _) => {
            server_side(reading.rows(), &connection).is_some_and(TcpSocket::is_open)
        }
        (None, Reading::Unix { .. }) => request.state != ParkedState::Ended,
        (None, Reading::Tcp { .. }) => false,
    }
}

pub(super) fn busy(context: &Context, facts: &Facts) -> Answer {
    facts.sockets.as_ref().map_err(Clone::clone)?;
    if facts.queues.has_moved(&context.addresses) || connected_late(&facts.parked) {
        return refuse(MOVES.to_owned());
    }
    // The first observation reads the queue once itself.
    if !facts.first().queues.is_series() {
        let why = "the accept queue was not read in time, while the core was probed";
        return Err(why.to_owned().into());
    }
    let cpu = |facts: &Facts| facts.group.as_ref().ok()?.cpu;
    let times = cpu(facts.first()).zip(cpu(facts));
    refuse_for(times.and_then(|(first, now)| lack_of_cpu_time(first, now)))
}

/// The refusal, if the unit's processes have work and do not get the CPU.
fn lack_of_cpu_time(first: CpuTimes, now: CpuTimes) -> Option<String> {
    let elapsed = now.at.since(first.at);
    let waited = now.waited.saturating_sub(first.waited);
    let used = now.used.saturating_sub(first.used);
    // The reported wait is a mean over the processors, and sometimes little more than half of the true
    // one; the CPU time used is exact.
    if elapsed.is_zero() || waited * 2 < elapsed || used * 10 > elapsed {
        return None;
    }
    let [elapsed, waited, used] = [elapsed, waited, used].map(|time| time.as_secs_f64());
    Some(format!(
        "the unit's processes have work, but had a CPU for {used:.2} of the last {elapsed:.2} s, and waited for one for {waited:.2} s: the backend is overloaded, not hung (raise its CPUQuota=, or reduce the load on this machine)"
    ))
}
