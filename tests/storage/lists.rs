//! Lists of users and tenants: filtered, in order, and from behind a place on.

use std::time::Duration;

use identity::domain::{Email, EmailPrefix, Order, Role, Tenant, TenantId, Timestamp, User, UserId};
use identity::storage;
use identity::storage::user_lists::{self, UserFilter};
use uuid::Uuid;

use crate::directory::{add, colleague};
use crate::fixture::{Fixture, at, user};
use crate::support::service::{Engine, on_both_databases};

on_both_databases!(
    users_are_filtered_ordered_and_counted,
    users_are_listed_from_behind_a_place_on,
    users_are_found_by_their_ids,
    tenants_are_listed_newest_first_and_counted,
);

fn all_of(tenant_id: TenantId) -> UserFilter {
    UserFilter { tenant_id, email_prefix: None, role: None, created_from: None, created_until: None }
}

async fn users_are_filtered_ordered_and_counted(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let (ada, eve) = (user(1), user(2));
    fixture.register(&ada).await;
    fixture.register(&eve).await;
    let named =
        |n, second, email: &str| User { email: Email::parse(email).unwrap(), ..colleague(&ada, n, second) };
    let one = named(1, 10, "a%b@example.com");
    let two = User { role: Role::Admin, ..named(2, 11, "A_B@example.com") };
    let three = named(3, 12, "axb@example.com");
    let other = User { email: Email::parse("ayb@example.com").unwrap(), ..colleague(&eve, 4, 11) };
    add(&fixture, &[&three, &one, &two, &other]).await;
    let all = all_of(ada.tenant.id);
    let prefix = |text: &str| Some(EmailPrefix::parse(text).unwrap());
    let just_after = at(11).plus(Duration::from_micros(1));
    let cases: [(UserFilter, &[&User]); 12] = [
        (all.clone(), &[&ada, &one, &two, &three]),
        (UserFilter { email_prefix: prefix("A"), ..all.clone() }, &[&one, &two, &three]),
        (UserFilter { email_prefix: prefix("a%"), ..all.clone() }, &[&one]),
        (UserFilter { email_prefix: prefix("a_b"), ..all.clone() }, &[&two]),
        (UserFilter { email_prefix: prefix("ay"), ..all.clone() }, &[]),
        (UserFilter { role: Some(Role::Admin), ..all.clone() }, &[&two]),
        (UserFilter { role: Some(Role::Owner), email_prefix: prefix("a"), ..all.clone() }, &[]),
        (UserFilter { created_from: Some(at(11)), ..all.clone() }, &[&two, &three]),
        (UserFilter { created_until: Some(at(11)), ..all.clone() }, &[&ada, &one]),
        (UserFilter { created_from: Some(at(11)), created_until: Some(just_after), ..all.clone() }, &[&two]),
        (UserFilter { created_from: Some(just_after), role: Some(Role::Member), ..all }, &[&three]),
        (all_of(user(3).tenant.id), &[]),
    ];
    let mut conn = fixture.storage.read().await.unwrap();
    for (filter, expected) in cases {
        let mut expected: Vec<User> = expected.iter().copied().cloned().collect();
        let listed = user_lists::list(&mut conn, &filter, Order::OldestFirst, None, 9).await.unwrap();
        assert_eq!(listed, expected, "{filter:?}");
        expected.reverse();
        let listed = user_lists::list(&mut conn, &filter, Order::NewestFirst, None, 9).await.unwrap();
        assert_eq!(listed, expected, "{filter:?}");
        let count = user_lists::count(&mut conn, &filter).await.unwrap();
        assert_eq!(usize::try_from(count).unwrap(), expected.len(), "{filter:?}");
    }
}

async fn users_are_listed_from_behind_a_place_on(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let (ada, eve) = (user(1), user(2));
    fixture.register(&ada).await;
    fixture.register(&eve).await;
    // Of the same moment, and with ids whose first bit is set: the greater comes behind.
    let users =
        [colleague(&ada, 7, 10), colleague(&ada, 0xf0, 10), colleague(&ada, 3, 10), colleague(&ada, 1, 11)];
    add(&fixture, &users.iter().collect::<Vec<_>>()).await;
    let [second, third, first, last] = users;
    let expected = [ada.clone(), first, second, third, last];
    let mut conn = fixture.storage.read().await.unwrap();
    let filter = all_of(ada.tenant.id);
    for (place, user) in expected.iter().enumerate() {
        let after = Some((user.created_at, user.id));
        let behind = user_lists::list(&mut conn, &filter, Order::OldestFirst, after, 9).await.unwrap();
        assert_eq!(behind, expected[place + 1..]);
        let mut before = user_lists::list(&mut conn, &filter, Order::NewestFirst, after, 9).await.unwrap();
        before.reverse();
        assert_eq!(before, expected[..place]);
        let some = user_lists::list(&mut conn, &filter, Order::OldestFirst, after, 1).await.unwrap();
        assert_eq!(some.first(), expected.get(place + 1));
    }
}

async fn users_are_found_by_their_ids(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let (ada, eve) = (user(1), user(2));
    fixture.register(&ada).await;
    fixture.register(&eve).await;
    // The same id in either tenant.
    let (one, other) = (colleague(&ada, 9, 3), User { email: user(9).email, ..colleague(&eve, 9, 3) });
    add(&fixture, &[&one, &other]).await;
    let ids = [eve.id, ada.id, one.id, one.id, UserId::from(Uuid::nil())];
    let mut conn = fixture.storage.read().await.unwrap();
    for (tenant_id, mut expected) in [
        (Some(ada.tenant.id), vec![&ada, &one]),
        (Some(eve.tenant.id), vec![&eve, &other]),
        (Some(user(3).tenant.id), vec![]),
        (None, vec![&ada, &eve, &one, &other]),
    ] {
        let mut found = user_lists::list_by_ids(&mut conn, tenant_id, &ids).await.unwrap();
        let place = |user: &User| (user.tenant.id.as_uuid(), user.id.as_uuid());
        found.sort_unstable_by_key(place);
        expected.sort_unstable_by_key(|user| place(user));
        assert_eq!(found.iter().collect::<Vec<_>>(), expected);
    }
    assert_eq!(user_lists::list_by_ids(&mut conn, None, &[]).await.unwrap(), []);
}

async fn tenants_are_listed_newest_first_and_counted(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let tenant = |n: u8, created_at: Timestamp| Tenant {
        id: TenantId::from(Uuid::from_bytes([n; 16])),
        created_at,
        updated_at: created_at,
        ..user(n).tenant
    };
    let mut conn = fixture.storage.read().await.unwrap();
    assert_eq!(storage::tenants::count(&mut conn).await.unwrap(), 0);
    drop(conn);
    // Three of the same moment: the greater id first.
    let expected =
        [tenant(1, at(9)), tenant(0xf0, at(8)), tenant(7, at(8)), tenant(3, at(8)), tenant(9, at(-9))];
    let mut tx = fixture.begin().await;
    for place in [2, 0, 4, 1, 3] {
        storage::tenants::insert(&mut tx, &expected[place]).await.unwrap();
    }
    tx.commit().await.unwrap();
    let mut conn = fixture.storage.read().await.unwrap();
    assert_eq!(storage::tenants::count(&mut conn).await.unwrap(), 5);
    assert_eq!(storage::tenants::list(&mut conn, None, 9).await.unwrap(), expected);
    assert_eq!(storage::tenants::list(&mut conn, None, 2).await.unwrap(), expected[..2]);
    for (place, tenant) in expected.iter().enumerate() {
        let after = Some((tenant.created_at, tenant.id));
        assert_eq!(storage::tenants::list(&mut conn, after, 9).await.unwrap(), expected[place + 1..]);
    }
}
