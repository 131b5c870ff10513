//! Gathers the facts about one unit: the one place where they are read. Warnings about a healthy backend and each
//! observation of a hung one come here.

use std::collections::HashMap;
use std::rc::Rc;

use nix::errno::Errno;

use super::MainPid;
use super::facts::{Context, Facts, MainProcess, Sockets};
use super::machine::Host;
use super::sockets::owners::Owner;
use super::sockets::queue::QueueHistory;
use super::systemd::Unit;

/// A main process that may be signalled, held by a pidfd.
pub(super) struct Held<P> {
    pub(super) pid: MainPid,
    pub(super) process: P,
}

/// The first observation, and the main process, if there is one that may be signalled.
type First<P> = (Facts, Option<Held<P>>);

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

    /// Makes the first observation. The error says that systemd did not say anything about the unit, or that the pidfd
    /// cannot be opened.
    pub(super) fn observe(&mut self) -> Result<First<H::Process>, String> {
        let (context, host) = (self.context, self.host);
        let mut held = None;
        let facts = self.gather(None, |unit| {
            let pid = *unit.main_pid().as_ref().unwrap_or(&0);
            let Some(pid) = MainPid::new(pid, context.own_pid) else {
                return Ok(MainProcess::None);
            };
            // Opened before the second observation. The PID can be reused, the descriptor keeps its process:
            // if the PID is still the unit's main PID then, the descriptor's process is the main process.
            match host.open(pid) {
                Ok(process) => {
                    let seen = host.inspect(&process);
                    held = Some(Held { pid, process });
                    Ok(seen)
                }
                Err(Errno::ESRCH) => Ok(MainProcess::Gone("no process has this PID any more")),
                Err(error) => Err(format!(
                    "process {}: cannot open a pidfd (pidfd_open(2) is missing or forbidden): {error}",
                    pid.get()
                )),
            }
        })?;
        Ok((facts, held))
    }

    /// Makes a further observation, after the `last` one, of the process that the first one opened.
    pub(super) fn observe_again(
        &mut self,
        held: &H::Process,
        last: &Rc<Facts>,
    ) -> Result<Facts, String> {
        let host = self.host;
        let first = last.earlier.as_ref().unwrap_or(last);
        self.gather(Some(Rc::clone(first)), |_| Ok(host.inspect(held)))
    }

    /// Asks systemd first, and reads what changes fastest last.
    fn gather(
        &mut self,
        earlier: Option<Rc<Facts>>,
        inspect: impl FnOnce(&Unit) -> Result<MainProcess, String>,
    ) -> Result<Facts, String> {
        let host = self.host;
        let at = host.now();
        let unit = host.show(self.context.unit())?;
        let shown = host.now();
        let process = inspect(&unit)?;
        let neighbours = self
            .neighbours
            .get_or_insert_with(|| host.neighbours(&unit).map(Rc::from))
            .clone();
        let group = unit.control_group().and_then(|group| host.group(&group));
        let sockets = self.sockets(&unit, &process, &neighbours);
        Ok(Facts {
            at,
            shown,
            missing: host.missing_path(&unit),
            unit,
            neighbours,
            process,
            group,
            sockets,
            queues: self.queues.clone(),
            parked: host.parked(),
            earlier,
        })
    }

    fn sockets(
        &mut self,
        unit: &Unit,
        process: &MainProcess,
        neighbours: &Result<Rc<[Unit]>, String>,
    ) -> Result<Sockets, String> {
        // The connections of a backend that is not known to hang do not matter.
        let connections = self.context.hung_since.is_some();
        let reading = self.host.read_sockets(connections)?;
        self.queues.record(&self.context.addresses, &reading);
        let own = unit.control_group()?;
        // The parent is the service manager; if it is not, a guard refuses. Without a process to ask, that of the
        // system.
        let manager = match process {
            MainProcess::Alive(vitals) => vitals.parent_group.as_deref(),
            MainProcess::None | MainProcess::Gone(_) | MainProcess::Hidden => None,
        };
        let manager = manager.unwrap_or("/init.scope");
        let mut owners = HashMap::new();
        for (id, path) in self.host.groups_of(&reading, &own) {
            let neighbours = neighbours.as_deref().map_err(Clone::clone);
            let owner = path.map_or_else(Owner::Unknown, |path| {
                Owner::of(path, &own, manager, unit, neighbours)
            });
            // A UNIX socket may have been replaced during the sweep: no request may wait at another unit's.
            if !matches!(owners.get(&id), Some(Owner::Foreign(_))) {
                owners.insert(id, owner);
            }
        }
        Ok(Sockets { reading, owners })
    }
}
