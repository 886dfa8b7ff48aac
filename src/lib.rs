//! A gRPC identity service.
//!
//! A request comes in through [`rpc`], which turns the message into [`domain`] types that cannot be
//! wrong; [`service`] decides access and runs the use case in one unit of work; [`storage`] runs
//! one query per function, on PostgreSQL or on SQLite; [`crypto`] is the only user of bcrypt and JWT,
//! and makes all secrets. [`server`] wires these together and owns the life cycle, [`config`] and
//! [`telemetry`] are read by it and by [`cli`] only.
//!
//! Dependencies point one way: `cli -> server -> rpc -> service -> {storage, crypto} -> domain`.

pub mod budget;
pub mod cli;
pub mod config;
pub mod crypto;
pub mod domain;
pub mod proto;
pub mod rpc;
pub mod server;
pub mod service;
pub mod storage;
pub mod telemetry;
