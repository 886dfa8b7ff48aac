//! Lists of large tenants: pages end in time and by their bytes, counts end at ten thousand, and whoever follows
//! the tokens gets all of it.

use identity::domain::{
    Action, Actor, AuditEvent, Clock as _, Email, ExternalId, FieldChange, PersonName, Profile, SystemClock,
    TenantId,
};
use identity::proto::v1::{
    ListAuditEventsRequest, ListAuditEventsResponse, ListUsersRequest, ListUsersResponse, Role, User,
    UserOrder,
};
use identity::storage;
use prost::Message as _;

use super::{Caller, Crowd, start};
use crate::database::storage;
use crate::support::crowd;
use crate::support::service::{Engine, on_both_databases};
use crate::world::founder;

on_both_databases!(
    a_page_has_a_mebibyte_at_most,
    a_page_of_events_has_a_mebibyte_at_most,
    a_search_ends_in_time_and_goes_on_where_it_ended,
    events_are_found_among_many_others,
);

const MEBIBYTE: usize = 1 << 20;

/// All pages of a list.
async fn pages(caller: &Caller, message: &ListUsersRequest) -> Vec<ListUsersResponse> {
    let (mut pages, mut page_token) = (Vec::new(), String::new());
    loop {
        let page = caller.list(ListUsersRequest { page_token, ..message.clone() }).await.unwrap();
        page_token = page.next_page_token.clone();
        pages.push(page);
        if page_token.is_empty() {
            return pages;
        }
    }
}

async fn event_pages(caller: &Caller, message: &ListAuditEventsRequest) -> Vec<ListAuditEventsResponse> {
    let (mut pages, mut page_token) = (Vec::new(), String::new());
    loop {
        let message = ListAuditEventsRequest { page_token, ..message.clone() };
        let listed = caller.client.audit.clone().list_audit_events(caller.request(message)).await;
        let page = listed.unwrap().into_inner();
        page_token = page.next_page_token.clone();
        pages.push(page);
        if page_token.is_empty() {
            return pages;
        }
    }
}

async fn a_page_has_a_mebibyte_at_most(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let owner = founder(&client, "owner@example.com").await;
    let caller = Caller::user(&client, &owner);
    // As long as names may be.
    let renamed = caller.update_tenant("", &"\u{1f3e2}".repeat(200), "").await.unwrap();
    let crowd = Crowd::beside(&service, &owner).await;
    let name = PersonName::parse(&"\u{1f980}".repeat(100)).unwrap();
    let now = SystemClock.now();
    let users: Vec<_> = (0..1_000)
        .map(|n| identity::domain::User {
            profile: Profile {
                email: Email::parse(&format!("u{n}-{}@{}.example", "x".repeat(50), "y".repeat(60))).unwrap(),
                first_name: name.clone(),
                last_name: name.clone(),
                external_id: Some(ExternalId::parse(&format!("{n}{}", "\u{1f980}".repeat(250))).unwrap()),
            },
            ..crowd.member("u@example.com", now)
        })
        .collect();
    crowd.insert(&users).await;
    for email_prefix in ["", "u"] {
        let message = ListUsersRequest {
            page_size: 1_000,
            email_prefix: email_prefix.to_owned(),
            ..ListUsersRequest::default()
        };
        let pages = pages(&caller, &message).await;
        for page in &pages {
            assert!(page.encoded_len() <= MEBIBYTE, "{}", page.encoded_len());
            assert!(page.users.iter().all(|user| user.tenant.as_ref().unwrap().name == renamed.name));
        }
        // No page is much smaller than it has to be.
        assert!(pages[0].encoded_len() > MEBIBYTE / 2, "{}", pages[0].encoded_len());
        let mut ids: Vec<_> = pages.iter().flat_map(|page| &page.users).map(|user| &user.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), if email_prefix.is_empty() { 1_001 } else { 1_000 });
    }
}

async fn a_page_of_events_has_a_mebibyte_at_most(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let owner = founder(&client, "owner@example.com").await;
    let caller = Caller::user(&client, &owner);
    let tenant_id = TenantId::parse(&owner.user.tenant_id).unwrap();
    let now = SystemClock.now();
    let events: Vec<_> = (0..700)
        .map(|_| AuditEvent {
            changes: vec![FieldChange::set("first_name", "\u{1f980}".repeat(1_500))],
            ..AuditEvent::new(now, Some(tenant_id), Actor::System, Action::UserUpdated)
        })
        .collect();
    let mut tx = storage(&service.database).begin("fill").await.unwrap();
    storage::audit::insert_all(&mut tx, &events).await.unwrap();
    tx.commit().await.unwrap();
    let message = ListAuditEventsRequest { page_size: 1_000, ..ListAuditEventsRequest::default() };
    let pages = event_pages(&caller, &message).await;
    for page in &pages {
        assert!(page.encoded_len() <= MEBIBYTE, "{}", page.encoded_len());
    }
    assert!(pages[0].encoded_len() > MEBIBYTE / 2, "{}", pages[0].encoded_len());
    let of = |action: &str| {
        let all = pages.iter().flat_map(|page| &page.events);
        all.filter(|event| event.action == action).count()
    };
    assert_eq!((of("user.updated"), of("tenant.created")), (700, 1));
}

async fn a_search_ends_in_time_and_goes_on_where_it_ended(engine: Engine) {
    const OLD: i64 = 600;
    const YOUNG: i64 = 60_000;
    let service = start(engine).await;
    let client = service.client();
    let owner = founder(&client, "owner@example.com").await;
    let caller = Caller::user(&client, &owner);
    service.database.fill(crowd::Crowd { initial: 'x', users: OLD, after: -OLD });
    service.database.fill(crowd::Crowd { initial: 'u', users: YOUNG, after: 1 });
    // More begin so than are looked up by name, and all of them come last.
    let message = ListUsersRequest {
        email_prefix: "X".to_owned(),
        page_size: 1_000,
        count_total: true,
        ..ListUsersRequest::default()
    };
    let number = |user: &User| user.email[1..].split('@').next().unwrap().parse::<i64>().unwrap();
    for (order, role) in [
        (UserOrder::NewestFirst, Role::Unspecified),
        (UserOrder::OldestFirst, Role::Unspecified),
        (UserOrder::NewestFirst, Role::Member),
    ] {
        let message = ListUsersRequest { order: order.into(), role: role.into(), ..message.clone() };
        let pages = pages(&caller, &message).await;
        for page in &pages {
            assert_eq!((page.total_size, page.total_size_is_estimate), (600, false));
        }
        let mut listed: Vec<_> = pages.iter().flat_map(|page| &page.users).map(number).collect();
        if order == UserOrder::NewestFirst {
            assert!(pages.len() > 1 && pages[0].users.is_empty(), "{} pages", pages.len());
            listed.reverse();
        }
        assert_eq!(listed, (1..=OLD).collect::<Vec<_>>());
    }
    let count = async |email_prefix: &str, role: Role| {
        let (email_prefix, role) = (email_prefix.to_owned(), role.into());
        let counted = ListUsersRequest { count_total: true, email_prefix, role, ..Default::default() };
        let page = caller.list(counted).await.unwrap();
        (page.total_size, page.total_size_is_estimate)
    };
    assert_eq!(count("", Role::Unspecified).await, (10_000, true));
    assert_eq!(count("u", Role::Unspecified).await, (10_000, true));
    assert_eq!(count("", Role::Member).await, (10_000, true));
    assert_eq!(count("nobody", Role::Unspecified).await, (0, false));
    assert_eq!(count("u1@", Role::Member).await, (1, false));
    assert_eq!(count("", Role::Owner).await, (1, false));
    assert_eq!(count("u", Role::Owner).await, (0, false));
    // What takes too long is counted as far as it goes.
    let (number, is_estimate) = count("u", Role::Member).await;
    assert!(is_estimate && (1..=10_000).contains(&number), "{number}");
}

async fn events_are_found_among_many_others(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let owner = founder(&client, "owner@example.com").await;
    let caller = Caller::user(&client, &owner);
    let tenant_id = TenantId::parse(&owner.user.tenant_id).unwrap();
    let now = SystemClock.now();
    let events: Vec<_> = (0..9_000)
        .map(|_| AuditEvent::new(now, Some(tenant_id), Actor::System, Action::LoginFailed))
        .collect();
    for events in events.chunks(1_000) {
        let mut tx = storage(&service.database).begin("fill").await.unwrap();
        storage::audit::insert_all(&mut tx, events).await.unwrap();
        tx.commit().await.unwrap();
    }
    let names = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let user_id = owner.id().to_owned();
    for (message, expected) in [
        (
            ListAuditEventsRequest { actions: names(&["tenant.created"]), ..Default::default() },
            &["tenant.created"][..],
        ),
        (
            ListAuditEventsRequest {
                actions: names(&["tenant.created", "user.created"]),
                ..Default::default()
            },
            &["tenant.created", "user.created"],
        ),
        (ListAuditEventsRequest { target_id: user_id.clone(), ..Default::default() }, &["user.created"]),
        (
            ListAuditEventsRequest {
                actor_id: user_id,
                actions: names(&["session.opened"]),
                ..Default::default()
            },
            &["session.opened"],
        ),
    ] {
        let pages = event_pages(&caller, &message).await;
        let events = pages.iter().flat_map(|page| &page.events);
        let mut found: Vec<_> = events.map(|event| event.action.as_str()).collect();
        found.sort_unstable();
        assert_eq!(found, expected);
    }
}
