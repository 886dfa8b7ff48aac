//! Wrong passwords for the users of one domain, from one source: the domain's own users shall get in.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use identity::proto::v1::LoginRequest;

use super::{OTHER_LOGIN_DEADLINE, Stage, process};
use crate::calls::{Call, Logins, Outcome, outcome, request};
use crate::report::{Attacked, Report};
use crate::target::{Connections, Origin, pick};
use crate::timeline::Timeline;
use crate::users::{self, Names};
use crate::{arguments, memory, open_loop};

const DOMAIN: &str = "victim.example";

/// Users of the domain, each at an address of their own.
const USERS: u8 = 20;

/// Names that are guessed for: those of the users, and of as many others as nobody has, so that no account is
/// guessed for so often that it is closed.
const NAMES: u64 = 2_000;

/// What others do each second: users of the domain log in, and users of other tenants look themselves up.
const LOGINS: u32 = 2;
const LOOKUPS: u32 = 200;

/// How long one who guesses waits.
const GUESS_DEADLINE: Duration = Duration::from_secs(5);

pub(super) async fn run(stage: &Stage, arguments: &arguments::Guesses) -> Result<Report, Box<dyn Error>> {
    let attack = &arguments.attack;
    let process = process(attack)?;
    let names = Names::of_domain(DOMAIN);
    let emails = (0..u64::from(USERS)).map(|index| names.email(index)).collect();
    let users = users::enrol_all(&stage.connections().await?, emails).await?;
    let from_their_addresses = try_join_all((0..USERS).map(async |index| {
        let origin = Origin(IpAddr::V4(Ipv4Addr::new(127, 0, 1, index + 1)));
        Connections::open(stage.target, Some(origin), 1).await
    }));
    let own = OwnLogins(
        from_their_addresses
            .await?
            .into_iter()
            .zip(users.iter())
            .map(|(connections, user)| Logins {
                connections,
                users: Arc::from([user.clone()]),
                deadline: OTHER_LOGIN_DEADLINE,
            })
            .collect(),
    );
    let guesses = Guesses {
        connections: Connections::open(stage.target, Some(attack.attacker), super::CONNECTIONS).await?,
        names,
    };
    let lookups = stage.lookups().await?;

    let timeline = Timeline::begin(attack.seconds);
    let offer = open_loop::Offer { rate: arguments.rate.get(), seconds: attack.seconds };
    let (logins, lookups, guessed, memory) = tokio::join!(
        timeline.beside(LOGINS, own),
        timeline.beside(LOOKUPS, lookups),
        async {
            timeline.attack_begins().await;
            open_loop::run(offer, guesses).await
        },
        memory::watch(process, timeline),
    );
    let report = Attacked::new(attack.seconds, [("own logins", logins), ("look-ups", lookups)], memory?)
        .called("guesses", guessed.tally);
    Ok(Report::Attacked(Box::new(report)))
}

/// Users who log in, each from an address of their own.
struct OwnLogins(Vec<Logins>);

impl Call for OwnLogins {
    async fn call(&self, index: u64, due: Instant) -> Outcome {
        pick(&self.0, index).call(index, due).await
    }
}

/// Wrong passwords for one name after the other.
struct Guesses {
    connections: Connections,
    names: Names,
}

impl Call for Guesses {
    async fn call(&self, index: u64, due: Instant) -> Outcome {
        let deadline = due + GUESS_DEADLINE;
        // Spread over the names, each once before any comes again.
        let email = self.names.email(index * 1_009 % NAMES);
        let login = LoginRequest { email, password: format!("guess number {index}") };
        let answer = self.connections.client(index).login(request(login, deadline)).await;
        outcome(answer, due, deadline)
    }
}
