//! Writes checked rows, a transaction a batch, and more than one at a time.
//!
//! Batches are decided one after the other, each with what those before it have taken, as if these were
//! written already.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{self, JoinHandle};

use super::check::{Bounds, Candidate, check};
use super::decide::{Decision, Taken, Verdict, decide, keys};
use super::{Counts, ImportError, Incoming, Kind, Ledger, Refusal};
use crate::crypto::foreign::cost_of;
use crate::crypto::hasher::Cost;
use crate::domain::{
    Action, Actor, AuditEvent, Clock, FieldChange, Reason, Target, Tenant, TenantId, Timestamp,
};
use crate::service::directory::changes;
use crate::service::removal;
use crate::storage::bulk::{self, Batch, Keys, Known, NewUser, Written};
use crate::storage::{Storage, StorageError, Tx, audit, hashes};

/// How to import.
#[derive(Clone, Debug)]
pub struct ImportTerms {
    /// Who does it.
    pub actor: Actor,
    /// What the rows come from, for the audit log.
    pub source: &'static str,
    /// Whether everything is done but the writing. Remembers some 50 bytes a row.
    pub dry_run: bool,
    /// The dearest hash that goes in.
    pub max_cost: Cost,
}

/// How often a batch is decided again when others are faster with an id or an e-mail.
const ATTEMPTS: usize = 20;

/// How far the clock that a time was taken from may be ahead of this one.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(24 * 60 * 60);

/// How many batches are written at the same time: PostgreSQL works on each on another core. SQLite has one
/// writer, which the second waits for.
const AT_ONCE: usize = 2;

type Checked = Vec<Result<Candidate, Refusal>>;

/// Imports `rows`, each vector of them as one batch, until the sender is dropped. A thread of its own checks
/// the next batch while others are written.
///
/// # Errors
/// [`ImportError`] when it cannot go on; batches before are in, and to run again goes on from there.
pub async fn import(
    storage: &Storage,
    clock: &dyn Clock,
    terms: &ImportTerms,
    mut rows: mpsc::Receiver<Result<Vec<Incoming>, ImportError>>,
    ledger: &mut dyn Ledger,
) -> Result<Counts, ImportError> {
    let bounds = Bounds { latest: clock.now().plus(CLOCK_TOLERANCE), max_cost: terms.max_cost };
    let (sender, mut checked) = mpsc::channel::<Result<Checked, ImportError>>(1);
    task::spawn_blocking(move || {
        while let Some(batch) = rows.blocking_recv() {
            let batch = batch.map(|rows| rows.into_iter().map(|row| check(row, bounds)).collect());
            if sender.blocking_send(batch).is_err() {
                return;
            }
        }
    });

    if !terms.dry_run {
        storage.begin_bulk().await?;
    }
    let (taken, counts, flights) = (Taken::default(), Counts::default(), VecDeque::new());
    let mut importer = Importer { storage, clock, terms, taken, counts, flights, ledger };
    while let Some(batch) = checked.recv().await {
        let mut refusals = Vec::new();
        let mut candidates = Vec::new();
        for row in batch? {
            match row {
                Ok(candidate) => candidates.push(candidate),
                Err(refusal) => refusals.push(refusal),
            }
        }
        if terms.dry_run {
            let known = bulk::find_known(&mut storage.read().await?, keys(&candidates)).await?;
            let verdicts = decide(&candidates, &known, &mut importer.taken).verdicts;
            importer.settle(&candidates, verdicts, refusals)?;
        } else {
            importer.launch(candidates, refusals).await?;
        }
    }
    while !importer.flights.is_empty() {
        importer.land().await?;
    }
    let counts = importer.counts;
    if !terms.dry_run {
        storage.end_bulk().await?;
        let mut tx = storage.begin("record import").await?;
        audit::insert(&mut tx, &whole_event(terms, &counts, clock.now())).await?;
        tx.commit().await?;
    }
    Ok(counts)
}

struct Importer<'i> {
    storage: &'i Storage,
    clock: &'i dyn Clock,
    terms: &'i ImportTerms,
    /// What the batches under way have taken.
    taken: Taken,
    counts: Counts,
    /// The batches that are being written, in their order.
    flights: VecDeque<Flight>,
    ledger: &'i mut dyn Ledger,
}

/// A batch that is being written.
struct Flight {
    candidates: Vec<Candidate>,
    refusals: Vec<Refusal>,
    verdicts: Vec<Verdict>,
    /// The tenants that go in with it, which no other transaction can refer to before its end.
    tenants: HashSet<TenantId>,
    writing: JoinHandle<Result<Written, StorageError>>,
}

impl Importer<'_> {
    /// Decides on a batch, and begins to write it.
    async fn launch(
        &mut self,
        candidates: Vec<Candidate>,
        refusals: Vec<Refusal>,
    ) -> Result<(), ImportError> {
        let keys = keys(&candidates);
        let waits = |flight: &Flight| keys.tenants.iter().any(|id| flight.tenants.contains(id));
        while self.flights.len() >= AT_ONCE || self.flights.back().is_some_and(waits) {
            self.land().await?;
        }
        self.taken.begin_batch();
        let (tx, known) = self.look(keys).await?;
        let Decision { verdicts, tenants, users } = decide(&candidates, &known, &mut self.taken);
        let batch = self.with_events(tenants, users);
        let tenants = batch.tenants.iter().map(|tenant| tenant.id).collect();
        let writing = task::spawn(write(tx, batch));
        self.flights.push_back(Flight { candidates, refusals, verdicts, tenants, writing });
        Ok(())
    }

    /// Waits for the oldest batch under way. When somebody else was faster with something in it, waits for
    /// all, and decides on it again.
    async fn land(&mut self) -> Result<(), ImportError> {
        let Some(flight) = self.flights.pop_front() else { return Ok(()) };
        let verdicts = match ended(flight.writing).await? {
            Written::All => flight.verdicts,
            Written::Conflict => {
                for other in &mut self.flights {
                    let written = ended(std::mem::replace(&mut other.writing, done(Written::All))).await?;
                    other.writing = done(written);
                }
                self.repeat(&flight.candidates).await?
            }
        };
        self.settle(&flight.candidates, verdicts, flight.refusals)
    }

    /// Decides on a batch anew, and writes it, while no other is under way.
    async fn repeat(&self, candidates: &[Candidate]) -> Result<Vec<Verdict>, ImportError> {
        for _ in 0..ATTEMPTS {
            let (tx, known) = self.look(keys(candidates)).await?;
            let Decision { verdicts, tenants, users } = decide(candidates, &known, &mut Taken::default());
            if write(tx, self.with_events(tenants, users)).await? == Written::All {
                return Ok(verdicts);
            }
        }
        Err(StorageError::Unavailable("others write the same users all the time".to_owned()).into())
    }

    /// Begins the transaction that writes a batch, and looks what is there of it. What deleted tenants have is
    /// free, but the rows of one whose own id comes again have to go first.
    async fn look(&self, keys: Keys) -> Result<(Tx, Known), ImportError> {
        loop {
            let mut tx = self.storage.begin("import").await?;
            let in_the_way = bulk::make_room(&mut tx, keys.clone()).await?;
            if in_the_way.is_empty() {
                let known = bulk::find_known(&mut tx, keys).await?;
                return Ok((tx, known));
            }
            drop(tx);
            for id in in_the_way {
                removal::remove_now(self.storage, self.clock, id).await?;
            }
        }
    }

    fn with_events(&self, tenants: Vec<Tenant>, users: Vec<NewUser>) -> Batch {
        let (terms, now) = (self.terms, self.clock.now());
        let of_tenants = tenants.iter().map(|tenant| tenant_event(terms, tenant, now));
        let events = of_tenants.chain(users.iter().map(|user| user_event(terms, user, now))).collect();
        Batch { tenants, users, events }
    }

    /// Tells what became of a batch, in the order of its rows.
    fn settle(
        &mut self,
        candidates: &[Candidate],
        verdicts: Vec<Verdict>,
        mut refusals: Vec<Refusal>,
    ) -> Result<(), ImportError> {
        for (candidate, verdict) in candidates.iter().zip(verdicts) {
            let tally = match candidate.kind() {
                Kind::Tenant => &mut self.counts.tenants,
                Kind::User | Kind::Line => &mut self.counts.users,
            };
            match verdict {
                Verdict::Import => tally.imported += 1,
                Verdict::There => tally.there += 1,
                Verdict::Refuse(why, detail) => {
                    refusals.push(candidate.refusal(why, detail));
                    continue;
                }
            }
            if candidate.is_renamed && !self.terms.dry_run {
                self.ledger.renamed(candidate.kind(), &candidate.old_id, candidate.new_id())?;
            }
        }
        refusals.sort_by_key(|refusal| refusal.position);
        for refusal in &refusals {
            self.counts.refuse(refusal);
            self.ledger.refused(refusal)?;
        }
        self.ledger.progressed(&self.counts);
        Ok(())
    }
}

/// Writes a batch and commits it, if there is anything in it.
async fn write(mut tx: Tx, batch: Batch) -> Result<Written, StorageError> {
    if batch.tenants.is_empty() && batch.users.is_empty() {
        return Ok(Written::All);
    }
    let dearest = batch.users.iter().filter_map(|user| cost_of(&user.password)).max();
    let written = bulk::insert(&mut tx, batch).await?;
    if written == Written::All {
        if let Some(cost) = dearest {
            hashes::count_imported_cost(&mut tx, cost.get()).await?;
        }
        tx.commit().await?;
    }
    Ok(written)
}

async fn ended(writing: JoinHandle<Result<Written, StorageError>>) -> Result<Written, StorageError> {
    writing.await.unwrap_or_else(|error| Err(StorageError::Unavailable(error.to_string())))
}

fn done(written: Written) -> JoinHandle<Result<Written, StorageError>> {
    task::spawn(std::future::ready(Ok(written)))
}

fn tenant_event(terms: &ImportTerms, tenant: &Tenant, now: Timestamp) -> AuditEvent {
    AuditEvent {
        target: Some(Target::Tenant(tenant.id)),
        changes: vec![FieldChange::set("name", tenant.name.as_str())],
        reason: Some(Reason::Imported),
        ..AuditEvent::new(now, Some(tenant.id), terms.actor.clone(), Action::TenantCreated)
    }
}

fn user_event(terms: &ImportTerms, user: &NewUser, now: Timestamp) -> AuditEvent {
    AuditEvent {
        target: Some(Target::User(user.id)),
        changes: changes::all_set(&user.profile, user.role, user.state),
        reason: Some(Reason::Imported),
        ..AuditEvent::new(now, Some(user.tenant_id), terms.actor.clone(), Action::UserCreated)
    }
}

/// The run as a whole.
fn whole_event(terms: &ImportTerms, counts: &Counts, now: Timestamp) -> AuditEvent {
    let number = |field, count: u64| FieldChange::set(field, count.to_string());
    AuditEvent {
        changes: vec![
            FieldChange::set("source", terms.source),
            number("tenants", counts.tenants.imported),
            number("tenants_there", counts.tenants.there),
            number("users", counts.users.imported),
            number("users_there", counts.users.there),
            number("refused", counts.refusals()),
        ],
        ..AuditEvent::new(now, None, terms.actor.clone(), Action::Imported)
    }
}
