//! Lists: their order, their filters, and more entries than are in memory at once.

use identity::domain::{
    Clock as _, Email, PasswordHash, PasswordScheme, PersonName, Profile, Role, SystemClock, TenantId,
};
use identity::service::Authority;
use identity::service::directory::changes::{self, NewUser};
use serde_json::Value;

use crate::shell::{Ended, Shell, storage};
use crate::support::service::{Engine, TestDatabase, on_both_databases};

on_both_databases!(a_list_is_one_array_however_long_it_is, a_list_of_nothing_is_empty);

/// More than two pages.
const USERS: usize = 1_003;

async fn filled(database: &TestDatabase, tenant: TenantId) {
    let by = Authority::operator(None);
    let hash = PasswordHash { scheme: PasswordScheme::Bcrypt, text: format!("$2b$04${}", "a".repeat(53)) };
    let mut tx = storage(database).begin("fill").await.unwrap();
    for n in 0..USERS {
        let name = |text: &str| PersonName::parse(text).unwrap();
        let new = NewUser {
            profile: Profile {
                email: Email::parse(&format!("user{n:04}@example.com")).unwrap(),
                first_name: name("Ada"),
                last_name: name(&n.to_string()),
                external_id: None,
            },
            role: if n % 100 == 0 { Role::Owner } else { Role::Member },
        };
        changes::create_user(&mut tx, &by, tenant, new, &hash, SystemClock.now()).await.unwrap().unwrap();
    }
    tx.commit().await.unwrap();
}

/// The numbers of the users listed.
fn numbers(ended: &Ended) -> Vec<usize> {
    let list: Vec<Value> = serde_json::from_value(ended.json()).unwrap();
    list.iter().map(|user| user["last_name"].as_str().unwrap().parse().unwrap()).collect()
}

async fn a_list_is_one_array_however_long_it_is(engine: Engine) {
    let database = TestDatabase::migrated(engine).await;
    let shell = Shell::at(&database);
    let tenant = shell.tenant("Analytical Engines").await;
    filled(&database, TenantId::parse(&tenant).unwrap()).await;
    let list = async |arguments: &str| shell.run(&format!("user list --tenant {tenant}{arguments}")).await;

    let all = list(" --all --oldest-first").await;
    assert_eq!((numbers(&all), all.err.as_str()), ((0..USERS).collect(), ""));
    assert_eq!(all.out.lines().count(), USERS + 2);
    let newest = list(" --limit 1000").await;
    assert_eq!(numbers(&newest), (3..USERS).rev().collect::<Vec<_>>());
    assert!(newest.err.contains("--all"), "{}", newest.err);
    assert_eq!(numbers(&list("").await).len(), 50);
    let exactly = list(" --limit 1003").await;
    assert_eq!((numbers(&exactly).len(), exactly.err.as_str()), (USERS, ""));
    assert_eq!(
        numbers(&list(" --role owner --oldest-first").await),
        (0..=10).map(|n| n * 100).collect::<Vec<_>>()
    );
    assert_eq!(
        numbers(&list(" --email-prefix USER099 --oldest-first").await),
        (990..1_000).collect::<Vec<_>>()
    );

    let events = shell.run(&format!("audit list --tenant {tenant} --action user.created --all")).await.json();
    let events = events.as_array().unwrap();
    assert_eq!(events.len(), USERS);
    assert!(events.iter().all(|event| event["action"] == "user.created"));
    let first = &events[USERS - 1];
    assert_eq!((&first["actor_kind"], &first["target_kind"]), (&"operator".into(), &"user".into()));
    assert_eq!(first["changes"][0]["after"], "user0000@example.com");
}

async fn a_list_of_nothing_is_empty(engine: Engine) {
    let database = TestDatabase::migrated(engine).await;
    let shell = Shell::at(&database);
    for command in ["tenant list", "tenant list --json --all", "audit list"] {
        assert_eq!(shell.run(command).await.out, "[]\n", "{command}");
    }
    for name in ["one", "two", "three"] {
        shell.tenant(name).await;
    }
    let listed = shell.run("tenant list --limit 2").await.json();
    assert_eq!((&listed[0]["name"], &listed[1]["name"]), (&"three".into(), &"two".into()));
    assert_eq!(listed.as_array().unwrap().len(), 2);
}
