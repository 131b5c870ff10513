//! The three proofs that a kill rests on, each pure over facts that others gathered: the backend is
//! silent, the silent socket is the unit's own, and the unit makes no progress there.

pub(super) mod ownership;
pub(super) mod progress;
#[cfg(test)]
pub(super) mod samples;
pub(super) mod silence;
