//! What is done to the service, one file a subcommand.

mod connections;
mod delete_tenant;
mod flood;
mod guesses;
mod hammer;
mod lists;
mod locked;
mod logins;
mod lookups;
mod resets;
mod saturate;
mod unread;

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tonic::transport;

use crate::arguments::{Attack, Common, Scenario};
use crate::calls::writes::{Refreshes, Registrations, Renames};
use crate::calls::{Logins, Lookups};
use crate::memory::Process;
use crate::report::Report;
use crate::target::{Connections, Origin, Target};
use crate::users::{self, Names, User};

/// Connections for each kind of call, as if from so many programs.
const CONNECTIONS: usize = 8;

/// How long logins of others may take in an attack.
const OTHER_LOGIN_DEADLINE: Duration = Duration::from_secs(5);

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
        Scenario::Resets(arguments) => resets::run(&stage, arguments).await,
        Scenario::Lists(arguments) => lists::run(&stage, arguments).await,
        Scenario::DeleteTenant(arguments) => delete_tenant::run(&stage, arguments).await,
        Scenario::Connections(arguments) => connections::run(&stage, arguments).await,
        Scenario::Unread(arguments) => unread::run(&stage, arguments).await,
        Scenario::Guesses(arguments) => guesses::run(&stage, arguments).await,
        Scenario::Hammer(arguments) => hammer::run(&stage, arguments).await,
        Scenario::Locked(arguments) => locked::run(&stage, arguments).await,
    }
}

/// A service whose users are there.
struct Stage {
    target: Target,
    users: Arc<[User]>,
}

impl Stage {
    async fn set(common: &Common) -> Result<Self, Box<dyn Error>> {
        let connections = Connections::open(common.target, None, CONNECTIONS).await?;
        Ok(Self { target: common.target, users: users::enrol(&connections, common.users).await? })
    }

    /// Connections of their own, from where the system chooses.
    async fn connections(&self) -> Result<Connections, transport::Error> {
        Connections::open(self.target, None, CONNECTIONS).await
    }

    /// Logins on connections of their own.
    async fn logins(&self, deadline: Duration) -> Result<Logins, transport::Error> {
        self.logins_from(None, deadline).await
    }

    /// As [`Stage::logins`], from that address.
    async fn logins_from(
        &self,
        origin: Option<Origin>,
        deadline: Duration,
    ) -> Result<Logins, transport::Error> {
        let connections = Connections::open(self.target, origin, CONNECTIONS).await?;
        Ok(Logins { connections, users: Arc::clone(&self.users), deadline })
    }

    /// Look-ups on connections of their own.
    async fn lookups(&self) -> Result<Lookups, transport::Error> {
        Ok(Lookups { connections: self.connections().await?, users: Arc::clone(&self.users) })
    }

    /// Sessions that go on, on connections of their own. To be asked for once.
    async fn refreshes(&self) -> Result<Refreshes, transport::Error> {
        Ok(Refreshes::new(self.connections().await?, &self.users))
    }

    /// Users who change, on connections of their own.
    async fn renames(&self) -> Result<Renames, transport::Error> {
        Ok(Renames {
            connections: self.connections().await?,
            users: Arc::clone(&self.users),
            name: "Load ".to_owned(),
        })
    }

    /// Users who come, on connections of their own.
    async fn registrations(&self) -> Result<Registrations, transport::Error> {
        Ok(Registrations { connections: self.connections().await?, names: Names::new() })
    }
}

/// The process whose memory is to be watched. That it is there is found out before anything is measured.
fn process(attack: &Attack) -> io::Result<Option<Process>> {
    let process = attack.pid.map(Process);
    process.map(Process::resident_mb).transpose()?;
    Ok(process)
}
