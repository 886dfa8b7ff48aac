//! What is done to the service, one file a subcommand.

mod flood;
mod logins;
mod lookups;
mod saturate;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use tonic::transport;

use crate::arguments::{Common, Scenario};
use crate::calls::{Logins, Lookups};
use crate::report::Report;
use crate::target::{Connections, Target};
use crate::users::{self, User};

/// Connections for each kind of call, as if from so many programs.
const CONNECTIONS: usize = 8;

/// Prepares and runs `scenario`.
///
/// # Errors
/// It could not be prepared: the service is not there, or took no users.
pub(crate) async fn run(scenario: &Scenario) -> Result<Report, Box<dyn Error>> {
    let stage = Stage::set(scenario.common()).await?;
    match scenario {
        Scenario::Logins(arguments) => logins::run(&stage, arguments).await,
        Scenario::Lookups(arguments) => lookups::run(&stage, arguments).await,
        Scenario::Flood(arguments) => flood::run(&stage, arguments).await,
        Scenario::Saturate(arguments) => saturate::run(&stage, arguments).await,
    }
}

/// A service whose users are there.
struct Stage {
    target: Target,
    users: Arc<[User]>,
}

impl Stage {
    async fn set(common: &Common) -> Result<Self, Box<dyn Error>> {
        let connections = Connections::open(common.target, CONNECTIONS).await?;
        Ok(Self { target: common.target, users: users::enrol(&connections, common.users).await? })
    }

    /// Logins on connections of their own.
    async fn logins(&self, deadline: Duration) -> Result<Logins, transport::Error> {
        let connections = Connections::open(self.target, CONNECTIONS).await?;
        Ok(Logins { connections, users: Arc::clone(&self.users), deadline })
    }

    /// Look-ups on connections of their own.
    async fn lookups(&self) -> Result<Lookups, transport::Error> {
        let connections = Connections::open(self.target, CONNECTIONS).await?;
        Ok(Lookups { connections, users: Arc::clone(&self.users) })
    }
}
