//! Lists of users and tenants: filtered, in order, and from behind a place on.

use std::time::Duration;

use identity::domain::{
    Email, EmailPrefix, Order, PageSize, Role, Tenant, TenantId, Timestamp, User, UserId,
};
use identity::service::directory::pieces::Pieces;
use identity::service::directory::user_search::{count_users, find_users};
use identity::storage;
use identity::storage::user_lists::{self, UserCursor, UserFilter};
use identity::storage::user_scans::{self, Scanned, scan};
use uuid::Uuid;

use crate::directory::{add, colleague};
use crate::fixture::{Fixture, at, user, with_email};
use crate::support::service::{Engine, on_both_databases};

on_both_databases!(
    users_are_filtered_ordered_and_counted,
    users_are_listed_from_behind_a_place_on,
    users_are_found_by_their_ids,
    a_walk_reads_as_many_users_as_it_may_and_says_where_it_came_to,
    names_are_looked_up_unless_there_are_too_many,
    counts_end_where_they_are_told_to,
    the_last_character_there_is_ends_no_prefix,
    tenants_are_listed_newest_first_and_counted,
);

fn place(user: &User) -> UserCursor {
    (user.created_at, user.id)
}

fn all_of(tenant_id: TenantId) -> UserFilter {
    UserFilter { tenant_id, email_prefix: None, role: None, created_from: None, created_until: None }
}

async fn users_are_filtered_ordered_and_counted(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let (ada, eve) = (user(1), user(2));
    fixture.register(&ada).await;
    fixture.register(&eve).await;
    let named = |n, second, email: &str| with_email(colleague(&ada, n, second), Email::parse(email).unwrap());
    let one = named(1, 10, "a%b@example.com");
    let two = User { role: Role::Admin, ..named(2, 11, "A_B@example.com") };
    let three = named(3, 12, "axb@example.com");
    let other = with_email(colleague(&eve, 4, 11), Email::parse("ayb@example.com").unwrap());
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
    let pieces = Pieces::of(&fixture.storage);
    for (filter, expected) in cases {
        let mut expected: Vec<User> = expected.iter().copied().cloned().collect();
        for order in [Order::OldestFirst, Order::NewestFirst] {
            let found = find_users(&pieces, &filter, order, PageSize::DEFAULT, None).await.unwrap();
            assert_eq!((found.entries.as_slice(), found.next), (expected.as_slice(), None), "{filter:?}");
            if let Some(prefix) = &filter.email_prefix {
                let places: Vec<_> = expected.iter().map(place).collect();
                let scanned = scan(&mut conn, &filter, prefix, (order, None), 9).await.unwrap();
                assert_eq!(scanned, Scanned { found: places, to: None }, "{filter:?}");
            }
            expected.reverse();
        }
        let count = count_users(&pieces, &filter).await.unwrap();
        assert_eq!((count.number, count.is_estimate), (expected.len(), false), "{filter:?}");
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

/// Ada's tenant with one user a second, whose e-mails begin with `x` but for every third, and one of another
/// tenant.
async fn crowd(fixture: &Fixture) -> (UserFilter, Vec<User>) {
    let (ada, eve) = (user(1), user(2));
    fixture.register(&ada).await;
    fixture.register(&eve).await;
    let member = |n: u8| {
        let initial = if n.is_multiple_of(3) { "y" } else { "x" };
        let email = Email::parse(&format!("{initial}{n}@example.com")).unwrap();
        with_email(colleague(&ada, n, 10 + i64::from(n)), email)
    };
    let users: Vec<_> = (10..40).map(member).collect();
    let other = with_email(colleague(&eve, 9, 11), Email::parse("x@example.com").unwrap());
    add(fixture, &users.iter().chain([&other]).collect::<Vec<_>>()).await;
    let prefix = Some(EmailPrefix::parse("x").unwrap());
    (UserFilter { email_prefix: prefix, role: Some(Role::Member), ..all_of(ada.tenant.id) }, users)
}

async fn a_walk_reads_as_many_users_as_it_may_and_says_where_it_came_to(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let (filter, mut users) = crowd(&fixture).await;
    let prefix = filter.email_prefix.clone().unwrap();
    let mut conn = fixture.storage.read().await.unwrap();
    for order in [Order::OldestFirst, Order::NewestFirst] {
        for rows in [1, 4, 29, 30, 31] {
            let (mut after, mut found, mut read) = (None, Vec::new(), 0);
            loop {
                let scanned = scan(&mut conn, &filter, &prefix, (order, after), rows).await.unwrap();
                found.extend(scanned.found);
                let Some(to) = scanned.to else { break };
                read += rows;
                assert_eq!(to, place(&users[read - 1]));
                after = Some(to);
            }
            let expected = users.iter().filter(|user| user.profile.email.as_given().starts_with('x'));
            assert_eq!(found, expected.map(place).collect::<Vec<_>>(), "{rows} at once");
            assert_eq!(read, 30 / rows * rows);
        }
        users.reverse();
    }
}

async fn names_are_looked_up_unless_there_are_too_many(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let (filter, users) = crowd(&fixture).await;
    let prefix = filter.email_prefix.clone().unwrap();
    let mut conn = fixture.storage.read().await.unwrap();
    let mut found = user_scans::find_named(&mut conn, &filter, &prefix, 20).await.unwrap().unwrap();
    found.sort_unstable();
    let expected = users.iter().filter(|user| user.profile.email.as_given().starts_with('x')).map(place);
    assert_eq!(found, expected.collect::<Vec<_>>());
    assert_eq!(user_scans::find_named(&mut conn, &filter, &prefix, 19).await.unwrap(), None);
    let owners = UserFilter { role: Some(Role::Owner), ..filter };
    assert_eq!(user_scans::find_named(&mut conn, &owners, &prefix, 20).await.unwrap(), Some(vec![]));
}

async fn counts_end_where_they_are_told_to(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let (filter, _) = crowd(&fixture).await;
    let prefix = filter.email_prefix.clone().unwrap();
    let mut conn = fixture.storage.read().await.unwrap();
    for (most, of_filter, of_names) in [(7, 7, 7), (20, 20, 20), (21, 21, 20), (30, 30, 20), (31, 30, 20)] {
        assert_eq!(user_scans::count(&mut conn, &filter, most).await.unwrap(), of_filter);
        let names = user_scans::count_names(&mut conn, &filter, &prefix, most).await.unwrap();
        assert_eq!(names, of_names);
        assert_eq!(storage::tenants::count(&mut conn, most).await.unwrap(), 2);
    }
    assert_eq!(storage::tenants::count(&mut conn, 1).await.unwrap(), 1);
    // In pieces, the names in the order of their bytes, those of a time alone.
    let late = UserFilter { created_from: Some(at(30)), ..filter };
    let [(from, end)] = &prefix.ranges()[..] else { panic!("one range") };
    for rows in [1, 7, 20, 21] {
        let (mut after, mut count, mut pieces) = (None::<String>, 0, 0);
        loop {
            let range = (from.as_str(), end.as_str());
            let counted = user_scans::count_some_names(&mut conn, &late, range, after.as_deref(), rows);
            let counted = counted.await.unwrap();
            count += counted.count;
            pieces += 1;
            after = counted.to;
            if after.is_none() {
                break;
            }
        }
        assert_eq!((count, pieces), (13, 20 / rows + 1), "{rows} at once");
    }
}

async fn the_last_character_there_is_ends_no_prefix(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let ada = user(1);
    fixture.register(&ada).await;
    let named = |n, email: &str| with_email(colleague(&ada, n, 10), Email::parse_existing(email).unwrap());
    let last = char::MAX;
    let one = named(1, &format!("a{last}@example.com"));
    let two = named(2, &format!("a{last}{last}b@example.com"));
    let three = named(3, "b@example.com");
    add(&fixture, &[&one, &two, &three]).await;
    let pieces = Pieces::of(&fixture.storage);
    for (prefix, expected) in [
        ("a".to_owned(), vec![one.id, two.id]),
        (format!("a{last}"), vec![one.id, two.id]),
        (format!("a{last}{last}"), vec![two.id]),
        (last.to_string(), vec![]),
    ] {
        let email_prefix = Some(EmailPrefix::parse(&prefix).unwrap());
        let filter = UserFilter { email_prefix, ..all_of(ada.tenant.id) };
        let found = find_users(&pieces, &filter, Order::OldestFirst, PageSize::DEFAULT, None).await.unwrap();
        assert_eq!(found.entries.iter().map(|user| user.id).collect::<Vec<_>>(), expected, "{prefix:?}");
        assert_eq!(count_users(&pieces, &filter).await.unwrap().number, expected.len(), "{prefix:?}");
    }
}

async fn users_are_found_by_their_ids(engine: Engine) {
    let fixture = Fixture::new(engine).await;
    let (ada, eve) = (user(1), user(2));
    fixture.register(&ada).await;
    fixture.register(&eve).await;
    // The same id in either tenant.
    let (one, other) = (colleague(&ada, 9, 3), with_email(colleague(&eve, 9, 3), user(9).profile.email));
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
    assert_eq!(storage::tenants::count(&mut conn, 9).await.unwrap(), 0);
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
    assert_eq!(storage::tenants::count(&mut conn, 9).await.unwrap(), 5);
    assert_eq!(storage::tenants::list(&mut conn, None, 9).await.unwrap(), expected);
    assert_eq!(storage::tenants::list(&mut conn, None, 2).await.unwrap(), expected[..2]);
    for (place, tenant) in expected.iter().enumerate() {
        let after = Some((tenant.created_at, tenant.id));
        assert_eq!(storage::tenants::list(&mut conn, after, 9).await.unwrap(), expected[place + 1..]);
    }
}
