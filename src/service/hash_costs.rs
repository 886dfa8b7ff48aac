//! Follows the costs of the stored password hashes, so that refusals of every user take as long as those of the
//! user whose hash is the dearest. Otherwise the time of a refusal would tell of accounts that were imported, or
//! that date from before the configured cost was lowered.
//!
//! The hashes are walked through in the order of their keys, a piece at a time, again and again. A dearer one
//! counts from the piece on in which it is found, and no more once a whole walk has found none.
//!
//! A walk rests for a minute and more. So imports by other processes note how dear their hashes are, with these
//! hashes, and that is looked at every few seconds.

use std::time::{Duration, Instant};

use uuid::Uuid;

use super::{Service, ServiceError};
use crate::crypto::foreign::cost_of;
use crate::crypto::hasher::Cost;
use crate::domain::{TenantId, UserId};
use crate::storage::hashes::{self, ImportedCost, KeyedHash};

/// How many hashes are read at once.
const PIECE: usize = 2_000;
/// Between two pieces, at least, and this many times what the last one took.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_FACTOR: u32 = 3;
/// Between two walks, at least, and this many times what the last one took, pauses aside.
const REST: Duration = Duration::from_secs(60);
const REST_FACTOR: u32 = 30;

/// How far a walk through all hashes has come.
#[derive(Debug)]
pub struct CostWalk {
    /// Behind this key. No user has the nil UUID.
    after: (TenantId, UserId),
    dearest: Cost,
    took: Duration,
    /// The cost beyond the highest floor that was warned of last.
    warned_of: Option<Cost>,
    /// What imports had noted at the last look; nothing before the first.
    imported: Option<Vec<ImportedCost>>,
}

impl Default for CostWalk {
    fn default() -> Self {
        let after = (TenantId::from(Uuid::nil()), UserId::from(Uuid::nil()));
        Self { after, dearest: Cost::MIN, took: Duration::ZERO, warned_of: None, imported: None }
    }
}

impl CostWalk {
    fn see(&mut self, found: &[KeyedHash]) {
        let costs = found.iter().filter_map(|keyed| cost_of(keyed.hash.as_ref()?));
        self.dearest = costs.fold(self.dearest, Cost::max);
        if let Some(last) = found.last() {
            self.after = (last.tenant_id, last.user_id);
        }
    }

    /// Warns of hashes that are dearer than any floor, once of each cost.
    fn warn(&mut self, floor: Cost) {
        let beyond = Some(self.dearest).filter(|dearest| *dearest > floor);
        if beyond == std::mem::replace(&mut self.warned_of, beyond) {
            return;
        }
        if let Some(dearest) = beyond {
            tracing::warn!(
                password.cost = dearest.get(),
                password.refusal_cost = floor.get(),
                "some stored password hashes are so dear that refusals of their users take longer than those of \
                 others, which tells that they exist"
            );
        }
    }
}

impl Service {
    /// Looks at the next hashes of `walk`. Returns how long to wait before the ones after that.
    ///
    /// # Errors
    /// [`ServiceError::Storage`]; the walk goes on from there the next time.
    pub async fn follow_hash_costs(&self, walk: &mut CostWalk) -> Result<Duration, ServiceError> {
        let begun = Instant::now();
        let found = {
            let mut conn = self.0.storage.read().await?;
            hashes::list(&mut conn, walk.after, PIECE).await?
        };
        walk.see(&found);
        let took = begun.elapsed();
        walk.took += took;
        let hasher = &self.0.hasher;
        if found.len() == PIECE {
            hasher.set_floor(walk.dearest.max(hasher.floor()));
            return Ok(PAUSE.max(took * PAUSE_FACTOR));
        }
        hasher.set_floor(walk.dearest);
        walk.warn(hasher.floor());
        let rest = REST.max(walk.took * REST_FACTOR);
        let imported = walk.imported.take();
        *walk = CostWalk { warned_of: walk.warned_of, imported, ..CostWalk::default() };
        Ok(rest)
    }

    /// Raises the cost of refusals to that of hashes which another process has imported since the last look. They
    /// count for this walk, which may have passed them; the next one finds them.
    ///
    /// # Errors
    /// [`ServiceError::Storage`].
    pub async fn follow_imported_costs(&self, walk: &mut CostWalk) -> Result<(), ServiceError> {
        let imported = hashes::list_imported_costs(&mut self.0.storage.read().await?).await?;
        if let Some(before) = walk.imported.replace(imported.clone()) {
            let new = imported.iter().filter(|noted| !before.contains(noted));
            let dearest = new.filter_map(|noted| Cost::new(noted.cost)).max();
            walk.dearest = dearest.map_or(walk.dearest, |dearest| walk.dearest.max(dearest));
            self.0.hasher.set_floor(walk.dearest.max(self.0.hasher.floor()));
        }
        Ok(())
    }
}
