//! Random events between any two calls, chosen by the seed.

use std::time::Duration;

use super::world::{FIRST, NUMBERS, SignalBehaviour, Worker, World};

impl World {
    /// Lets random events happen.
    pub(super) fn random_events(&mut self) {
        while self.random.chance(self.event_rate) {
            let event = self.random.below(24);
            self.happen(event);
        }
        if self.event_rate == 0 || self.random.chance(500) {
            self.notice();
        }
    }

    fn happen(&mut self, event: u64) {
        let name = match event {
            0 => {
                self.crash();
                "the main process exits"
            }
            1 => {
                self.crash();
                self.notice();
                self.spawn_stranger();
                "the main process exits, a stranger may get its number"
            }
            2 => {
                // The freed number is the next one to be assigned.
                if let Some(main) = self.service.main {
                    self.next_number = main - FIRST;
                }
                self.crash();
                self.notice();
                self.spawn_stranger();
                "the main process exits, a stranger gets its number"
            }
            3 => {
                if let Some(main) = self.service.main {
                    self.crash();
                    self.notice();
                    self.next_number = main - FIRST;
                    let silent = self.random.chance(500);
                    self.start(silent);
                }
                "the unit is restarted with the same number"
            }
            4 => {
                self.crash();
                self.notice();
                let silent = self.random.chance(500);
                self.start(silent);
                "an operator restarts the unit"
            }
            5 => {
                if let Some(main) = self.main() {
                    main.silent = !main.silent;
                }
                "the main process wakes up or falls silent"
            }
            6 => {
                if let Some(main) = self.main() {
                    main.traced = !main.traced;
                }
                "a tracer comes or goes"
            }
            7 => {
                self.service.job = !self.service.job;
                "a job comes or goes"
            }
            8 => {
                self.service.frozen = !self.service.frozen;
                "the unit is frozen or thawed"
            }
            9 => {
                self.suspended += Duration::from_secs(3_600);
                "the machine was suspended"
            }
            10 => {
                let seconds = self.random.below(200);
                self.pass(Duration::from_secs(seconds));
                "everybody is starved"
            }
            11 => {
                self.notice();
                "the manager reaps its dead"
            }
            12 => {
                let millis = self.random.below(3_000);
                self.pass(Duration::from_millis(millis));
                "time passes"
            }
            13 => {
                self.spawn_stranger();
                "a stranger comes"
            }
            14 => {
                // sd_notify(3), MAINPID=: the old one lives on.
                if self.service.main.is_some() && (self.processes.len() as u32) < NUMBERS {
                    let number = self.spawn(true, SignalBehaviour::Dies(0));
                    self.appoint(number);
                    self.service.started = self.now;
                }
                "the main process hands over to a child"
            }
            15 => {
                self.foreign = !self.foreign;
                "the port is taken over, or given back"
            }
            16 => {
                if let Some(worker) = self.workers.first_mut() {
                    worker.traced = !worker.traced;
                }
                "a worker's tracer comes or goes"
            }
            17 => {
                self.served = Some(self.now);
                "a client is served"
            }
            18 => {
                self.filtered = !self.filtered;
                "a packet filter comes or goes"
            }
            19 => {
                if let Some(main) = self.main() {
                    main.outside = !main.outside;
                }
                "the main process changes its control group"
            }
            20 => {
                let on_dump = self.on_dump;
                self.workers.push(Worker {
                    number: FIRST + NUMBERS + self.workers.len() as u32,
                    traced: false,
                    on_dump,
                });
                "a worker comes"
            }
            21 => {
                self.workers.clear();
                "the workers go"
            }
            _ => {
                self.reap_strangers();
                "strangers go"
            }
        };
        self.note(name);
    }

    fn crash(&mut self) {
        if let Some(main) = self.main() {
            main.zombie = true;
        }
    }

    fn spawn_stranger(&mut self) {
        if (self.processes.len() as u32) < NUMBERS - 1 {
            self.spawn(true, SignalBehaviour::Dies(0));
        }
    }
}
