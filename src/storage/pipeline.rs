//! Statements that are sent together, so that a unit of work waits for the server as rarely as it can.
//!
//! PostgreSQL answers statements in the order in which they were sent, and reads the next one while nobody has
//! yet read the answer to the one before. A statement whose answer is not needed at once is kept back until one
//! comes whose answer is: both are then sent together, in their order, and cost one round trip.
//!
//! That changes when a failure is seen, not what it does. In a transaction the server refuses all that comes
//! behind a failed statement, and answers a COMMIT by rolling back, which is no error. So the answers to all
//! statements are read before that to the last one counts.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::Poll;

use diesel::QueryResult;
use diesel_async::AsyncPgConnection;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use super::connection::Conn;
use super::connection_pool::Loan;
use super::error::StorageError;
use super::link::Limits;

/// A statement that was not sent yet, with all its values.
pub(super) type Statement =
    Box<dyn for<'c> FnOnce(&'c AsyncPgConnection) -> BoxFuture<'c, QueryResult<()>> + Send>;

/// Names the type that a closure cannot have by itself.
pub(super) fn statement<F>(statement: F) -> Statement
where
    F: for<'c> FnOnce(&'c AsyncPgConnection) -> BoxFuture<'c, QueryResult<()>> + Send + 'static,
{
    Box::new(statement)
}

/// A connection to PostgreSQL, and what is yet to be sent on it.
pub(super) struct PostgresConn {
    loan: Loan<AsyncPgConnection>,
    unsent: Vec<Statement>,
    /// Whether anything was sent since the connection was lent.
    has_sent: bool,
}

impl PostgresConn {
    /// Nothing is kept back yet.
    pub(super) fn new(loan: Loan<AsyncPgConnection>) -> Self {
        Self { loan, unsent: Vec::new(), has_sent: false }
    }

    /// Whether anything was sent since the connection was lent.
    pub(super) fn has_sent(&self) -> bool {
        self.has_sent
    }

    pub(super) fn loan(&self) -> &Loan<AsyncPgConnection> {
        &self.loan
    }

    pub(super) fn loan_mut(&mut self) -> &mut Loan<AsyncPgConnection> {
        &mut self.loan
    }

    /// Keeps a statement back until the next one whose answer is waited for.
    pub(super) fn keep_back(&mut self, statement: Statement) {
        self.unsent.push(statement);
    }

    pub(super) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Forgets what was kept back.
    pub(super) fn discard_unsent(&mut self) {
        self.unsent.clear();
    }

    /// What was kept back, for [`run`], and the limits for awaiting it.
    pub(super) fn parts(&mut self) -> (&AsyncPgConnection, Vec<Statement>, Limits<'_>) {
        let unsent = std::mem::take(&mut self.unsent);
        self.has_sent = true;
        let (connection, limits) = self.loan.parts();
        (connection, unsent, limits)
    }
}

/// Sends `unsent` and then `last`, without waiting in between; returns the answer to `last` when all have been
/// answered, or the first failure.
///
/// A statement is sent when it is polled first; one that has to be prepared before holds up those behind it,
/// since all take the connection's cache of prepared statements in turn. What fails on this side, before it is
/// sent, fails at its first poll: then nothing behind it is sent.
pub(super) async fn run<T>(
    limits: Limits<'_>,
    connection: &AsyncPgConnection,
    unsent: Vec<Statement>,
    last: impl Future<Output = QueryResult<T>>,
) -> Result<T, StorageError> {
    let answers = AtomicUsize::new(0);
    limits.hold_all(&answers, in_order(connection, unsent, last, &answers)).await
}

async fn in_order<T>(
    connection: &AsyncPgConnection,
    unsent: Vec<Statement>,
    last: impl Future<Output = QueryResult<T>>,
    answers: &AtomicUsize,
) -> QueryResult<T> {
    let mut before: Vec<_> = unsent.into_iter().map(|statement| Some(statement(connection))).collect();
    let mut last = pin!(last);
    let (mut is_last_sent, mut answer, mut failure) = (false, None, None);
    poll_fn(|context| {
        let mut is_waiting = false;
        for slot in &mut before {
            let Some(statement) = slot else { continue };
            match statement.as_mut().poll(context) {
                Poll::Pending => is_waiting = true,
                Poll::Ready(outcome) => {
                    *slot = None;
                    answers.fetch_add(1, Relaxed);
                    if let Err(error) = outcome {
                        failure.get_or_insert(error);
                        if !is_last_sent {
                            break;
                        }
                    }
                }
            }
        }
        if failure.is_some() && !is_last_sent {
            return Poll::Ready(());
        }
        is_last_sent = true;
        if answer.is_none() {
            match last.as_mut().poll(context) {
                Poll::Pending => is_waiting = true,
                Poll::Ready(outcome) => answer = Some(outcome),
            }
        }
        if is_waiting { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    match (failure, answer) {
        (Some(failure), _) => Err(failure),
        (None, Some(answer)) => answer,
        (None, None) => unreachable!("without a failure the last statement is polled until it is answered"),
    }
}

/// The answer to a statement that may not have been sent yet.
#[must_use]
pub struct Answer<T>(oneshot::Receiver<Result<T, StorageError>>);

impl<T: Send> Answer<T> {
    /// An answer, and where it comes from.
    pub(super) fn channel() -> (oneshot::Sender<Result<T, StorageError>>, Self) {
        let (sender, receiver) = oneshot::channel();
        (sender, Self(receiver))
    }

    /// The answer. Where it has not come yet, sends all that was kept back on `conn`, which the question was asked
    /// on, and waits.
    ///
    /// # Errors
    /// [`StorageError`] when the database fails, or the rows break a rule.
    pub async fn receive(mut self, conn: &mut Conn) -> Result<T, StorageError> {
        if let Ok(answer) = self.0.try_recv() {
            return answer;
        }
        conn.flush().await?;
        self.0.try_recv().unwrap_or_else(|_| Err(StorageError::Refused("a statement has no answer".into())))
    }
}
