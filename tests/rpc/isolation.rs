//! Whatever the users of one tenant call, another one is out of their reach, and might as well not exist.
//!
//! Thousands of random calls are made by people of a tenant A, whose fields name what belongs to A, what
//! belongs to another tenant B, and what belongs to nobody. Each that names something of B is made again with
//! what belongs to nobody in its place: that has to look the same.

mod messages;

use std::collections::BTreeMap;

use identity::domain::{Clock as _, SystemClock};
use identity::proto::v1::{ListAuditEventsRequest, ListUsersRequest, UpdateUserRequest, User};
use prost_types::FieldMask;
use tonic::Status;
use tonic::metadata::MetadataMap;

use self::messages::Mix;
use crate::database::{execute, values};
use crate::fixture::{TestClock, call_raw, claim, new_id, rpcs, visible};
use crate::support::service::{
    Client, Engine, PASSWORD, TestDatabase, TestService, on_both_databases, reason,
};
use crate::world::{House, Person, REGISTRATIONS, is_in, log_in};

on_both_databases!(no_call_of_one_tenant_reaches_another);

const CALLS: usize = 10_000;

/// The variable with the seed of the calls, to make those of a run that failed again; else the time is the seed.
const SEED: &str = "IDENTITY_TEST_SEED";

/// How many calls are made until B is looked at.
const INTERVAL: usize = 500;

/// What random calls are drawn from: SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }

    fn one_of<'t>(&mut self, all: &[&'t str]) -> &'t str {
        all[self.below(all.len())]
    }

    fn of<'t>(&mut self, all: &'t [String]) -> &'t str {
        &all[self.below(all.len())]
    }

    /// True so often in a hundred times.
    fn percent(&mut self, often: usize) -> bool {
        self.below(100) < often
    }
}

/// What calls may name of a tenant.
struct Facts {
    /// What all its e-mails begin with.
    name: String,
    tenant_id: String,
    user_ids: Vec<String>,
    emails: Vec<String>,
    session_ids: Vec<String>,
    page_tokens: Vec<String>,
    etags: Vec<String>,
}

impl Facts {
    async fn of(client: &Client, house: &House) -> Self {
        let owner = &house.owner;
        let mut people = house.people().map(Person::clone).to_vec();
        people.push(log_in(client, &owner.user.email, PASSWORD).await);
        let users = ListUsersRequest { page_size: 1, ..ListUsersRequest::default() };
        let users = client.directory.clone().list_users(owner.request(users)).await.unwrap().into_inner();
        let events = ListAuditEventsRequest { page_size: 1, ..ListAuditEventsRequest::default() };
        let events =
            client.audit.clone().list_audit_events(owner.request(events)).await.unwrap().into_inner();
        let sessions = client.list_sessions(&owner.access_token, 1, "").await.unwrap();
        let page_tokens = [users.next_page_token, events.next_page_token, sessions.next_page_token];
        let emails = house.people().map(|person| person.user.email.clone());
        Self {
            name: owner.user.email.strip_suffix("-owner@example.com").unwrap().to_owned(),
            tenant_id: house.tenant.id.clone(),
            user_ids: house.people().map(|person| person.id().to_owned()).into(),
            emails: emails.iter().cloned().chain(emails.iter().map(|email| email.to_uppercase())).collect(),
            session_ids: people.iter().map(|person| claim(&person.access_token, "sid")).collect(),
            page_tokens: page_tokens.into_iter().filter(|token| !token.is_empty()).collect(),
            etags: house.people().map(|person| person.user.etag.clone()).into(),
        }
    }

    /// All that is this tenant's alone, as it may stand in a message.
    fn own(&self) -> impl Iterator<Item = &str> {
        let texts = [&self.name, &self.tenant_id].into_iter();
        texts.chain(&self.user_ids).chain(&self.session_ids).chain(&self.page_tokens).map(String::as_str)
    }
}

/// Whoever is in B, with what is his, and what stands for it when it is to be nobody's.
struct Neighbour {
    house: House,
    facts: Facts,
    /// Of the same length each, so that messages stay whole.
    nobodys: Vec<(Vec<u8>, Vec<u8>)>,
    /// What no answer may have in it.
    secrets: Vec<String>,
}

impl Neighbour {
    async fn move_in(client: &Client) -> Self {
        let house = House::build(client).await;
        for person in house.people() {
            let user = User {
                id: person.id().into(),
                first_name: "Boadicea".into(),
                last_name: "Bonaparte".into(),
                ..User::default()
            };
            let paths = vec!["first_name".to_owned(), "last_name".to_owned()];
            let message = UpdateUserRequest {
                user: Some(user),
                update_mask: Some(FieldMask { paths }),
                ..UpdateUserRequest::default()
            };
            client.directory.clone().update_user(house.owner.request(message)).await.unwrap();
        }
        let facts = Facts::of(client, &house).await;
        let mut nobodys = Vec::new();
        for text in facts.own() {
            let made_up: String = match text.len() == new_id().len() {
                true => new_id(),
                false => new_id().chars().filter(|c| *c != '-').cycle().take(text.len()).collect(),
            };
            nobodys.push((text.to_uppercase().into_bytes(), made_up.to_uppercase().into_bytes()));
            nobodys.push((text.as_bytes().to_vec(), made_up.into_bytes()));
        }
        let texts = facts.own().flat_map(|text| [text.to_owned(), text.to_uppercase()]);
        let secrets = texts.chain(["Boadicea", "Bonaparte"].map(str::to_owned)).collect();
        Self { house, facts, nobodys, secrets }
    }

    /// The message with nobody's in the place of all that is B's.
    fn replaced(&self, message: &[u8]) -> Vec<u8> {
        let mut replaced = message.to_vec();
        for (own, made_up) in &self.nobodys {
            let mut at = 0;
            while let Some(found) = replaced[at..].windows(own.len()).position(|window| window == own) {
                at += found;
                replaced[at..at + own.len()].copy_from_slice(made_up);
                at += own.len();
            }
        }
        replaced
    }

    fn assert_not_in(&self, outcome: &Result<Vec<u8>, Status>, about: &str) {
        let text = match outcome {
            Ok(bytes) => bytes.clone(),
            Err(status) => {
                let (_, message, details, metadata) = visible(status);
                let metadata = metadata.into_values().flatten();
                message.into_bytes().into_iter().chain(details).chain(metadata).collect()
            }
        };
        let text = String::from_utf8_lossy(&text);
        for secret in &self.secrets {
            assert!(!text.contains(secret), "{about} shows {secret}");
        }
    }

    /// All rows of B.
    fn rows(&self, database: &TestDatabase) -> BTreeMap<&'static str, Vec<String>> {
        let id = &self.facts.tenant_id;
        let rows = |table| {
            let tenant_id = if table == "tenants" { "id" } else { "tenant_id" };
            let sql = if database.postgres.is_some() {
                format!("SELECT t::text AS value FROM {table} t WHERE t.{tenant_id} = '{id}'")
            } else {
                let columns =
                    values(database, &format!("SELECT name AS value FROM pragma_table_info('{table}')"));
                let columns: Vec<_> = columns.iter().map(|column| format!("quote({column})")).collect();
                let id = id.replace('-', "").to_uppercase();
                format!(
                    "SELECT {} AS value FROM {table} WHERE hex({tenant_id}) = '{id}'",
                    columns.join(" || ',' || ")
                )
            };
            let mut rows = values(database, &sql);
            rows.sort_unstable();
            assert!(!rows.is_empty(), "{table}");
            (table, rows)
        };
        ["tenants", "users", "login_names", "passwords", "sessions"].map(rows).into()
    }
}

/// Tenant A, and who calls.
struct Home {
    house: House,
    facts: Facts,
}

impl Home {
    async fn build(client: &Client) -> Self {
        let house = House::build(client).await;
        let facts = Facts::of(client, &house).await;
        Self { house, facts }
    }
}

/// As calls look for them; a call may have given somebody else one of them before.
const GIVE_EXTERNAL_IDS: &str =
    "UPDATE users SET external_id = 'x-' || email WHERE external_id IS NULL AND NOT EXISTS
    (SELECT 1 FROM users AS others
     WHERE others.tenant_id = users.tenant_id AND others.external_id = 'x-' || users.email)";

fn only_reads(method: &str) -> bool {
    ["Get", "List", "BatchGet", "Verify"].iter().any(|verb| method.starts_with(verb))
}

async fn no_call_of_one_tenant_reaches_another(engine: Engine) {
    #[expect(clippy::disallowed_methods, reason = "a test has no settings")]
    let given = std::env::var(SEED);
    let seed = match given {
        Ok(given) => given.parse().unwrap_or_else(|_| panic!("{SEED} must be a whole number: {given}")),
        Err(_) => u64::try_from(SystemClock.now().as_unix_micros()).unwrap(),
    };
    eprintln!("the calls are those of {SEED}={seed}");
    let mut random = Random(seed);
    // Time stands still: what two calls show differs by what they are told alone.
    let database = TestDatabase::migrated(engine).await;
    let service = TestService::start_at(database, &[REGISTRATIONS], TestClock::new()).await;
    let client = service.client();
    let neighbour = Neighbour::move_in(&client).await;
    let mut home = Home::build(&client).await;
    execute(&service.database, GIVE_EXTERNAL_IDS);
    let before = neighbour.rows(&service.database);
    let rpcs = rpcs();
    let (mut made, mut named) = (BTreeMap::new(), 0);
    for number in 1..=CALLS {
        let rpc = &rpcs[random.below(rpcs.len())];
        let method = rpc.rsplit('/').next().unwrap();
        let message = Mix { random: &mut random, home: &home.house, a: &home.facts, b: &neighbour.facts }
            .message(method);
        let caller = match random.below(10) {
            0 => None,
            1..=3 => Some(&home.house.member),
            4..=6 => Some(&home.house.admin),
            _ => Some(&home.house.owner),
        };
        let mut metadata = MetadataMap::new();
        if let Some(caller) = caller {
            metadata.insert("authorization", caller.bearer().parse().unwrap());
        }
        let outcome = call_raw(&client, rpc, message.clone(), metadata.clone()).await;
        let about = format!(
            "call {number} of seed {seed}: {method} by {caller:?} with {}: {outcome:?}",
            String::from_utf8_lossy(&message)
        );
        neighbour.assert_not_in(&outcome, &about);
        let (calls, successes) = made.entry(method).or_insert((0, 0));
        *calls += 1;
        *successes += usize::from(outcome.is_ok());

        let replaced = neighbour.replaced(&message);
        let is_taken = outcome.as_ref().is_err_and(|status| reason(status) == "EMAIL_TAKEN");
        if is_taken {
            assert!(["Register", "CreateUser", "UpdateUser"].contains(&method), "{about}");
        } else if replaced != message {
            named += 1;
            assert!(outcome.is_err() || only_reads(method), "what names B changes something: {about}");
            let other = call_raw(&client, rpc, replaced, metadata).await;
            match (&outcome, &other) {
                (Ok(one), Ok(other)) => assert_eq!(one, other, "{about}"),
                (Err(one), Err(other)) => assert_eq!(visible(one), visible(other), "{about}"),
                _ => panic!("nobody's is told from B's: {other:?} instead of {about}"),
            }
        }
        if caller.is_some() && outcome.is_err_and(|status| reason(&status) == "TOKEN_INVALID") {
            home = Home::build(&client).await;
            execute(&service.database, GIVE_EXTERNAL_IDS);
        }
        if number % 50 == 0 {
            // What was tried and refused must not keep the next ones from being tried.
            execute(&service.database, "DELETE FROM attempts");
        }
        if number % INTERVAL == 0 {
            assert_eq!(neighbour.rows(&service.database), before, "after call {number} of seed {seed}");
            for person in neighbour.house.people() {
                assert!(is_in(&service, person).await, "{person:?} after call {number} of seed {seed}");
            }
        }
    }
    // The calls are worth their while.
    for rpc in &rpcs {
        let method = rpc.rsplit('/').next().unwrap();
        let (calls, successes) = made[method];
        assert!(calls > 100, "{method} was called {calls} times");
        assert!(method == "ListTenants" || successes > 0, "{method} never succeeded, seed {seed}");
    }
    assert!(named > CALLS / 4, "{named} calls named something of B");
}
