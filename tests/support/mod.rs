//! What the tests share. Each test binary includes this module and uses a part of it.

#[allow(dead_code, reason = "each test binary uses a part")]
pub(crate) mod port;
#[allow(dead_code, reason = "each test binary uses a part")]
pub(crate) mod postgres;
#[allow(dead_code, reason = "each test binary uses a part")]
pub(crate) mod wire;
