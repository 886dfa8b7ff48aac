//! Wiring and life cycle: what accepts connections, stands in front of every call, and stops.
//!
//! [`listener`] accepts connections and [`drain`] ends them.

pub mod drain;
pub mod listener;

mod connection;
mod preface;
