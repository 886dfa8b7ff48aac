//! The queries of a connection, for the log.

use diesel::connection::{Instrumentation, InstrumentationEvent};

/// Logs the text of each query, never its parameters, whenever anybody sees it: the log level may
/// change while the connection is open.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueryLog;

impl Instrumentation for QueryLog {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        if let InstrumentationEvent::StartQuery { query, .. } = event
            && tracing::enabled!(tracing::Level::DEBUG)
        {
            let text = query.to_string();
            // Every value is a bound parameter; diesel shows those after this mark.
            let sql = text.split(" -- binds:").next().unwrap_or_default();
            tracing::debug!(db.query = %sql, "query");
        }
    }
}
