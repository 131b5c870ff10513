//! Random events between any two calls, determined by a seed.

use std::time::Duration;

use super::faults::Fault;
use super::network::Filter;
use super::world::{FIRST, Mode, PIDS, World};

/// xorshift64*: small, and the same on every machine.
#[derive(Debug, Default)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    /// From 0 up to, but excluding, `end`.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// True in `per_mille` of 1000 cases.
    pub(super) fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1_000) < per_mille
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// How many kinds of events leave the backend alone: those of other clients and programs.
const CALM: u64 = 6;

impl World {
    /// Lets random events happen.
    pub(super) fn random_events(&mut self) {
        while self.random.chance(self.event_rate) {
            let kinds = if self.calm { CALM } else { 24 };
            let event = self.random.below(kinds);
            self.happen(event);
        }
        if self.event_rate == 0 || self.random.chance(500) {
            self.notice();
        }
    }

    fn happen(&mut self, event: u64) {
        match event {
            0 | 1 => self.bots(1),
            2 => {
                let (client, resets) = (self.random.below(1_000), self.random.chance(500));
                self.network.give_up(client, resets);
            }
            3 => {
                let millis = self.random.below(300);
                self.pass(Duration::from_millis(millis));
            }
            4 => self.suspended += Duration::from_secs(3_600),
            5 => {
                if self.random.chance(500) {
                    self.spawn_stranger();
                } else {
                    self.reap_strangers();
                }
            }
            CALM => self.crash(),
            7 | 8 => {
                // The freed PID is the next one to be assigned, or not.
                let freed = self.service.main.filter(|_| event == 7);
                self.crash();
                self.notice();
                self.next_pid = freed.map_or(self.next_pid, |pid| pid - FIRST);
                self.spawn_stranger();
            }
            9 | 10 => {
                let freed = self.service.main.filter(|_| event == 9);
                self.crash();
                self.notice();
                self.next_pid = freed.map_or(self.next_pid, |pid| pid - FIRST);
                let mode = self.any_mode();
                self.note("an operator restarts the unit");
                self.start(mode);
            }
            11..=13 => {
                let mode = self.any_mode();
                self.set_mode(mode);
            }
            14 => {
                self.note("the unit is reloaded");
                self.service.state_changed = self.now;
            }
            15 => {
                self.note("everybody is starved");
                let millis = self.random.below(20_000);
                self.pass(Duration::from_millis(millis));
            }
            16 => {
                // sd_notify(3), MAINPID=: the old one lives on.
                if self.service.main.is_some() && (self.processes.len() as u32) < PIDS {
                    let parent = self.service.main.filter(|_| self.random.chance(500));
                    let mode = self.any_mode();
                    let pid = self.spawn(parent.unwrap_or(1), mode);
                    self.appoint(pid);
                }
            }
            17 => {
                let on_dump_signal = self.on_dump_signal;
                let pid = FIRST + PIDS + self.workers.len() as u32;
                self.workers.push((pid, on_dump_signal));
            }
            18 => self.workers.clear(),
            19 => {
                let all = [Filter::Connects, Filter::Requests, Filter::Answers];
                let filter = self.random.pick(&all);
                let lifted = self.network.filter.is_some();
                self.set_filter((!lifted).then_some(filter));
            }
            _ => {
                let fault = Fault::any(&mut self.random);
                let known = self.faults.iter().next().copied();
                // Half of the events end one that has begun.
                let fault = known.filter(|_| self.random.chance(500)).unwrap_or(fault);
                self.toggle(fault);
            }
        }
    }

    pub(super) fn any_mode(&mut self) -> Mode {
        match self.random.below(6) {
            0 => Mode::Serves,
            1 => {
                let clients = 3 + self.random.below(8);
                self.bots(clients);
                Mode::Overloaded(500 + self.random.below(9_000))
            }
            other => Mode::Hangs { accepts: other < 4 },
        }
    }

    /// Other clients send requests.
    pub(super) fn bots(&mut self, count: u64) {
        for _ in 0..count {
            self.network.connect(false, self.now);
        }
        self.network.serve(self.mode(), self.now);
    }

    fn crash(&mut self) {
        self.note("the main process exits");
        if let Some(main) = self.main() {
            main.zombie = true;
        }
        self.network.end();
    }

    fn spawn_stranger(&mut self) {
        if (self.processes.len() as u32) < PIDS - 1 {
            self.spawn(1, Mode::Serves);
        }
    }
}
