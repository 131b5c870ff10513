//! The command line, parsed straight into our own types.
