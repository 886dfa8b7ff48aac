//! Wiring and life cycle: what accepts connections, stands in front of every call, and stops.
//!
//! [`listener`] accepts connections and [`drain`] ends them; [`edge`] stands between a connection
//! and the gRPC services; [`health`] says whether the process serves, and [`reflection`] what.

pub mod drain;
pub mod edge;
pub mod health;
pub mod listener;
pub mod reflection;
mod run;
mod startup;

mod connection;
mod preface;

pub use run::{Server, Stopped};
pub use startup::StartError;
