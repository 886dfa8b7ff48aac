//! How much of the lanes is in use, for those who watch.

use crate::budget::GateUsage;

/// A snapshot of one pool of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolUsage {
    /// Which lane's it is; on SQLite all lanes write through that of `writes`.
    pub name: &'static str,
    /// Connections that are open.
    pub open: u32,
    /// Who has a connection, who waits for one, and who was refused.
    pub calls: GateUsage,
}
