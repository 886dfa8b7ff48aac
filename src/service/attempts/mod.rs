//! Password checks, as many as an account and a source may get wrong.
//!
//! Before a password is hashed, `reserve` reserves a place among those that may fail in the database. It stays
//! taken for the span of the limit when a hash was computed and did not match, and is given back otherwise:
//! `attempt` checks the password and settles that. So the limit holds however many processes are asked at once,
//! and of a process that was killed no more than its reservations is left. `limits` says how many may fail,
//! `turns` keeps the checks of this process in order, and `refusals` counts those that were refused.

mod attempt;
mod limits;
mod refusals;
mod reserve;
mod turns;

pub(super) use attempt::{Attempt, Checked};
pub use refusals::{LimitKind, Refusals};
pub(super) use reserve::Whose;
pub use turns::Turns;
