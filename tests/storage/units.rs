//! A write goes on when its caller has gone, and happens once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use identity::budget::Rate;
use identity::crypto::access_token::{AccessTokens, TokenSettings};
use identity::crypto::fingerprint::Fingerprinter;
use identity::crypto::hasher::{Cost, Hasher, HasherSettings};
use identity::crypto::master_key::{MasterKey, MasterKeys};
use identity::crypto::page_token::PageTokens;
use identity::crypto::refresh_token::RefreshTokens;
use identity::crypto::service_token::ServiceTokens;
use identity::crypto::{KeyAlgorithm, Keyring, SigningKey};
use identity::domain::{
    Clock, Email, Password, PasswordPolicy, PersonName, Profile, RequestId, TenantName, Timestamp,
};
use identity::service::access::{AccessTable, Rpc};
use identity::service::accounts::Registration;
use identity::service::{
    ChangeRules, Changes, Deletions, Guesses, OpenTo, OpenedSession, Outages, Parts, Presented, Refusals,
    RefusedCalls, RegistrationRules, Service, ServiceError, SessionRules, Turns, UnitsOfWork,
};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::fixture::{Fixture, LONG, at, user};
use crate::support::service::{Engine, on_both_databases};
use crate::support::wait::eventually;

on_both_databases!(a_registration_whose_caller_has_gone_is_written_once);

/// Tells when it is asked for the time: by a registration, as the first thing in its unit of work.
#[derive(Default)]
struct SignallingClock {
    armed: AtomicBool,
    asked: Notify,
}

impl Clock for SignallingClock {
    fn now(&self) -> Timestamp {
        if self.armed.load(Ordering::SeqCst) {
            self.asked.notify_one();
        }
        at(0)
    }
}

fn service(fixture: &Fixture, clock: Arc<SignallingClock>, units: UnitsOfWork) -> Service {
    let master_keys = MasterKeys::from(MasterKey::generate());
    let keyring = Keyring::new(SigningKey::generate(KeyAlgorithm::EdDsa).0, Vec::new());
    let hour = Duration::from_secs(3_600);
    Service::new(Parts {
        storage: fixture.storage.clone(),
        hasher: Hasher::start(HasherSettings::new(Cost::MIN)).unwrap(),
        access_tokens: AccessTokens::new(
            keyring,
            TokenSettings { issuer: "test".into(), audience: "test".into(), access_ttl: hour },
        ),
        refresh_tokens: RefreshTokens::new(&master_keys),
        page_tokens: PageTokens::new(&master_keys),
        service_tokens: ServiceTokens::new(&master_keys),
        guesses: Guesses::default(),
        fingerprints: Fingerprinter::of_requests(&master_keys),
        attempt_keys: Fingerprinter::of_attempts(&master_keys),
        turns: Turns::default(),
        refusals: Refusals::default(),
        refused_calls: RefusedCalls::default(),
        outages: Outages::default(),
        access: AccessTable::default(),
        changes: Changes::new(ChangeRules { user: Rate { burst: 100, per_second: 100 } }),
        registration_rules: RegistrationRules { open_to: OpenTo::Anybody, hourly: None },
        password_policy: PasswordPolicy::new(8),
        session_rules: SessionRules { idle: hour, max: hour, refresh_grace: Duration::ZERO, per_user: 9 },
        clock,
        deletions: Deletions::default(),
        audit_retention: None,
        units,
    })
}

fn registration() -> Registration {
    Registration {
        profile: Profile {
            email: Email::parse("ada@example.com").unwrap(),
            first_name: PersonName::parse("Ada").unwrap(),
            last_name: PersonName::parse("Lovelace").unwrap(),
            external_id: None,
        },
        password: Password::new("correct horse battery".to_owned()).unwrap(),
        tenant_name: TenantName::parse("Analytical Engines").unwrap(),
        request_id: Some(RequestId::from(user(1).id.as_uuid())),
    }
}

/// Registers as somebody who presents nothing.
async fn register(service: &Service) -> Result<OpenedSession, ServiceError> {
    let call = service.admit(Rpc::Register, Presented::default()).await?;
    service.register(call, registration()).await
}

async fn a_registration_whose_caller_has_gone_is_written_once(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let clock = Arc::new(SignallingClock::default());
    let units = UnitsOfWork::new();
    let service = service(&fixture, Arc::clone(&clock), units.clone());

    // Nobody writes while another has the lock.
    let mut outside = fixture.outside().await;
    outside
        .run(match engine {
            Engine::Sqlite => "BEGIN IMMEDIATE",
            Engine::Postgres => "BEGIN; LOCK TABLE tenants, request_outcomes IN EXCLUSIVE MODE",
        })
        .await;
    clock.armed.store(true, Ordering::SeqCst);
    let call = tokio::spawn({
        let service = service.clone();
        async move { register(&service).await.map(drop) }
    });
    timeout(LONG, clock.asked.notified()).await.expect("the unit of work begins");
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    outside.run("COMMIT").await;

    eventually("it is written", async || outside.count("tenants").await == 1).await;

    // Trying again, as a caller would who heard nothing, finds what was written.
    let again = register(&service).await.unwrap();
    timeout(LONG, units.finished()).await.expect("all units end");
    let counts = [outside.count("tenants").await, outside.count("users").await];
    assert_eq!(counts, [1, 1]);
    assert_eq!(outside.count("sessions").await, 2, "the first session was opened all the same");
    let mut conn = fixture.storage.read().await.unwrap();
    let email = registration().profile.email;
    let login = identity::storage::logins::find_by_email(&mut conn, &email).await.unwrap().unwrap();
    assert_eq!(login.user, again.user);
}
