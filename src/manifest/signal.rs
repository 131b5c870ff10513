//! The signals that a manifest may name: the one that kills, and the one that asks for stacks.

/// The signal that ends a hung main process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillSignal {
    /// Ends it at once.
    Kill,
    /// Lets it dump core or print a traceback first.
    Abort,
}

impl KillSignal {
    /// Every signal that a manifest may name.
    pub const ALL: [Self; 2] = [Self::Kill, Self::Abort];

    /// The signal as signal(7) names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kill => "SIGKILL",
            Self::Abort => "SIGABRT",
        }
    }
}

/// The signal that asks processes for their stacks before the kill; only those that catch it get it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DumpSignal {
    /// `SIGUSR1`, the usual choice for Python's `faulthandler.register`.
    Usr1,
    /// `SIGUSR2`
    Usr2,
    /// `SIGQUIT`, on which a JVM and the Go runtime print their stacks.
    Quit,
}

impl DumpSignal {
    /// Every signal that a manifest may name.
    pub const ALL: [Self; 3] = [Self::Usr1, Self::Usr2, Self::Quit];

    /// The signal as signal(7) names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Usr1 => "SIGUSR1",
            Self::Usr2 => "SIGUSR2",
            Self::Quit => "SIGQUIT",
        }
    }
}
