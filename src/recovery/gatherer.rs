//! Gathers the facts about one unit: the one place where they are read. Warnings about a healthy backend and each
//! observation of a hung one come here.

use std::collections::HashSet;
use std::rc::Rc;

use super::MainPid;
use super::cgroup::ControlGroup;
use super::facts::{Context, Facts, Group, MainProcess, Sockets, TcpFacts, UnixFacts};
use super::host::Host;
use super::sockets::owners::{self, Owner};
use super::sockets::queue::QueueHistory;
use super::sockets::reader::Reading;
use super::sockets::table::{TcpSocket, listeners, server_sides};
use super::systemd::Unit;
use crate::clock::Monotonic;
use crate::sweep::ParkedRequest;

/// A main process that may be signalled, held by a pidfd.
pub(super) struct Held<P> {
    pub(super) pid: MainPid,
    pub(super) process: P,
}

/// The first observation, and the main process, if there is one that may be signalled.
pub(super) type First<P> = (Facts, Option<Held<P>>);

/// Gathers facts about one unit, several times during a recovery.
pub(super) struct Gatherer<'a, H> {
    context: &'a Context,
    host: &'a H,
    queues: QueueHistory,
    /// The units that decide what a kill sets off, asked for once.
    neighbours: Option<Result<Rc<[Unit]>, String>>,
}

impl<'a, H: Host> Gatherer<'a, H> {
    /// `queues` are the accept queues as read during the sweep.
    pub(super) fn new(context: &'a Context, host: &'a H, queues: QueueHistory) -> Self {
        Self {
            context,
            host,
            queues,
            neighbours: None,
        }
    }

    /// Makes the first observation.
    ///
    /// # Errors
    ///
    /// A message: systemd did not say anything about the unit, or the pidfd cannot be opened.
    pub(super) fn observe(&mut self) -> Result<First<H::Process>, String> {
        let at = self.host.now();
        let unit = self.host.show(self.context.unit())?;
        let shown = self.host.now();
        let pid = *unit.main_pid().as_ref().unwrap_or(&0);
        // Opened before the second observation. The PID can be reused, the descriptor keeps its process: if
        // the PID is still the unit's main PID then, the descriptor's process is the main process.
        let (seen, held) = match MainPid::new(pid, self.context.own_pid) {
            None => (MainProcess::None, None),
            Some(pid) => match self.host.open(pid)? {
                None => (MainProcess::Gone("no process has this PID any more"), None),
                Some(process) => (self.host.inspect(&process), Some(Held { pid, process })),
            },
        };
        let facts = self.gather(at, shown, unit, seen, None);
        Ok((facts, held))
    }

    /// Makes a further observation of the process that the `first` one opened: systemd first, and what changes
    /// fastest last.
    ///
    /// # Errors
    ///
    /// As [`Self::observe`].
    pub(super) fn observe_again(
        &mut self,
        held: &H::Process,
        first: &Rc<Facts>,
    ) -> Result<Facts, String> {
        let at = self.host.now();
        let unit = self.host.show(self.context.unit())?;
        let shown = self.host.now();
        let process = self.host.inspect(held);
        Ok(self.gather(at, shown, unit, process, Some(Rc::clone(first))))
    }

    fn gather(
        &mut self,
        at: Monotonic,
        shown: Monotonic,
        unit: Unit,
        process: MainProcess,
        earlier: Option<Rc<Facts>>,
    ) -> Facts {
        let host = self.host;
        let neighbours = self
            .neighbours
            .get_or_insert_with(|| host.neighbours(&unit).map(Rc::from))
            .clone();
        let group = unit.control_group().and_then(|group| host.group(&group));
        let parked = host.parked();
        let sockets = self.sockets(&unit, &group, &process, &neighbours, &parked);
        Facts {
            at,
            shown,
            missing: host.missing_path(&unit),
            unit,
            neighbours,
            process,
            group,
            sockets,
            // Once more, since the answers change fastest.
            parked: host.parked(),
            earlier,
        }
    }

    fn sockets(
        &mut self,
        unit: &Unit,
        group: &Result<Group, String>,
        process: &MainProcess,
        neighbours: &Result<Rc<[Unit]>, String>,
        parked: &[ParkedRequest],
    ) -> Result<Sockets, String> {
        let reading = self.host.read_sockets(self.context.hung_since.is_some())?;
        self.queues.record(&self.context.addresses, &reading);
        let socket_units = || -> Result<Vec<&Unit>, String> {
            let names: Vec<&str> = unit.triggered_by(".socket").collect();
            let units = neighbours.as_ref().map_err(Clone::clone)?.iter();
            Ok(units
                .filter(|unit| unit.id().is_some_and(|id| names.contains(&id)))
                .collect())
        };
        let manager = process.manager_group().and_then(ControlGroup::parse);
        match reading {
            Reading::Tcp(reading) => {
                let ids = self.groups_that_matter(&reading.rows, parked);
                let own = &group.as_ref().map_err(Clone::clone)?.ids;
                let search = owners::Search {
                    host: self.host,
                    manager: manager.as_ref(),
                    socket_units: &socket_units,
                };
                Ok(Sockets::Tcp(TcpFacts {
                    owners: search.owners(own, &ids)?,
                    rows: reading.rows,
                    queues: self.queues.clone(),
                }))
            }
            Reading::Unix { listeners, .. } => {
                let group = unit.control_group()?;
                let (path, owner) = (self.host).unix_owner(&group, manager.as_ref(), &listeners);
                let owner = owner.unwrap_or_else(Owner::Unknown);
                let owner = match owner {
                    Owner::Manager(_) => owners::manager(&socket_units()?),
                    owner => owner,
                };
                Ok(Sockets::Unix(UnixFacts {
                    path,
                    owner,
                    listeners,
                    queues: self.queues.clone(),
                }))
            }
        }
    }

    /// The control groups of the listeners at the addresses, and of the other ends of the parked requests.
    fn groups_that_matter(&self, rows: &[TcpSocket], parked: &[ParkedRequest]) -> HashSet<u64> {
        let addresses = self.context.addresses.iter();
        let listeners = addresses.flat_map(|address| listeners(rows, *address));
        let sockets = listeners.chain(server_sides(rows, parked));
        sockets.filter_map(|socket| socket.group).collect()
    }
}
