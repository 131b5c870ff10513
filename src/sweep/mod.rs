//! Probes the routes: order, threads and the deadline.
