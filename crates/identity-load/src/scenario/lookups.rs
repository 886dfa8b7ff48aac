//! Look-ups at a fixed rate: how long they take while nothing else happens.

use std::error::Error;

use super::Stage;
use crate::arguments;
use crate::calls::Lookups;
use crate::open_loop::{self, Offer};
use crate::report::{Open, Report};

pub(super) async fn run(stage: &Stage, arguments: &arguments::Lookups) -> Result<Report, Box<dyn Error>> {
    let offer = Offer { rate: arguments.rate.get(), seconds: arguments.seconds };
    Ok(Report::Lookups(warm(stage.lookups().await?, offer).await))
}

/// The look-ups of `offer`, after a second of the same that does not count.
pub(super) async fn warm(lookups: Lookups, offer: Offer) -> Open {
    open_loop::run(Offer { seconds: 1, ..offer }, lookups.clone()).await;
    open_loop::run(offer, lookups).await.into()
}
