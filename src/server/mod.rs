//! Wiring and life cycle: what accepts connections, stands in front of every call, and stops.
//!
//! [`listener`] accepts connections, [`admission`] says which may stay, [`tls`] secures them and [`drain`] ends
//! them; [`budgets`] bound what calls hold; [`edge`] stands between a connection
//! and the gRPC services; [`health`] says whether the process serves, [`reflection`] what, and `http` tells
//! both and more to those who speak no gRPC.

pub mod admission;
pub mod budgets;
mod call;
mod clocks;
mod descriptors;
pub mod drain;
pub mod edge;
mod hash_costs;
pub mod health;
mod http;
mod janitor;
pub mod listener;
pub mod master_key;
pub mod reflection;
mod run;
mod startup;
pub mod tls;

mod connection;
mod http2;
mod listener_settings;
mod malformed;
mod preface;
mod refusals;
mod stall;
mod stream_task;

pub use run::{Server, Sockets, Stopped};
pub use startup::StartError;
