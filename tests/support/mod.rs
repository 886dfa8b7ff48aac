//! What the tests share. Each test binary includes this module and uses a part of it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "each test binary uses a part")]
pub(crate) mod certificates;
#[allow(dead_code, reason = "each test binary uses a part")]
pub(crate) mod crowd;
#[allow(dead_code, reason = "each test binary uses a part")]
pub(crate) mod pooler;
#[allow(dead_code, reason = "each test binary uses a part")]
pub(crate) mod port;
#[allow(dead_code, reason = "each test binary uses a part")]
pub(crate) mod postgres;
#[allow(dead_code, reason = "each test binary uses a part")]
pub(crate) mod process;
#[allow(dead_code, reason = "each test binary uses a part")]
pub(crate) mod raw;
#[allow(dead_code, unused_imports, unused_macros, reason = "each test binary uses a part")]
pub(crate) mod service;
#[allow(dead_code, reason = "each test binary uses a part")]
pub(crate) mod wait;
#[allow(dead_code, reason = "each test binary uses a part")]
pub(crate) mod wire;
