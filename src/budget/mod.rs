//! Budgets: how much of a resource there is, and how it is shared out among those who want it.
//!
//! A [`Gate`] hands out places, such as connections to a database, and keeps a bounded queue of those who wait
//! for one. [`Rates`] hand out so many of something a second. Both are taken before any work is queued, are
//! held by the call that took them, and are given back when that ends, however it ends. Which call takes which
//! is decided elsewhere.

mod gate;
mod queue;
mod rate;

pub use gate::{Gate, GateUsage, Place, Refused};
pub use rate::{Charge, Rate, Rates};
