//! The binary: the pipeline on one screen.

fn main() {}
