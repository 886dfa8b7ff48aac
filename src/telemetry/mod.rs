//! What the process tells of itself.

pub mod durations;
pub mod lines;
pub mod logs;
pub mod metrics;
