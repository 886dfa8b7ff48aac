//! Lists of users, a page at a time.

use std::collections::BTreeSet;
use std::time::Duration;

use identity::domain::{Clock as _, SystemClock, Timestamp};
use identity::proto::v1::{ListUsersRequest, Role, User, UserOrder};
use tonic::Code;

use super::{Caller, Crowd, invalid, named, start};
use crate::fixture::{new_id, refusal, refused, visible};
use crate::support::service::{Engine, on_both_databases};
use crate::world::{House, founder};

on_both_databases!(
    everybody_lists_the_users_of_his_tenant,
    users_are_found_by_how_their_email_begins,
    users_are_found_by_role_and_by_the_time_of_their_creation,
    whoever_stays_is_listed_once_while_others_come_and_go,
    users_of_the_same_instant_are_listed_once,
    a_page_has_as_many_as_were_asked_for_and_no_more_than_a_thousand,
    a_list_of_another_tenant_does_not_exist,
);

const ORDERS: [UserOrder; 3] = [UserOrder::Unspecified, UserOrder::NewestFirst, UserOrder::OldestFirst];

fn ids(users: &[User]) -> Vec<String> {
    users.iter().map(|user| user.id.clone()).collect()
}

fn emails(users: &[User]) -> Vec<&str> {
    users.iter().map(|user| user.email.as_str()).collect()
}

/// All pages of a list.
async fn all_pages(caller: &Caller, message: &ListUsersRequest) -> Vec<User> {
    let (mut users, mut page_token) = (Vec::new(), String::new());
    loop {
        let page = caller.list(ListUsersRequest { page_token, ..message.clone() }).await.unwrap();
        users.extend(page.users);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return users;
        }
    }
}

fn at(time: Timestamp) -> prost_types::Timestamp {
    let micros = time.as_unix_micros();
    prost_types::Timestamp {
        seconds: micros.div_euclid(1_000_000),
        nanos: i32::try_from(micros.rem_euclid(1_000_000)).unwrap() * 1_000,
    }
}

async fn everybody_lists_the_users_of_his_tenant(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let house = House::build(&client).await;
    House::build(&client).await;
    let expected = house.people().map(|person| person.user.clone());
    let mut callers: Vec<_> = house.people().map(|person| (Caller::user(&client, person), "")).into();
    callers.push((Caller::user(&client, &house.member), house.tenant.id.as_str()));
    callers.push((Caller::service(&service).await, house.tenant.id.as_str()));
    for (caller, tenant_id) in callers {
        for order in ORDERS {
            let message = ListUsersRequest {
                tenant_id: tenant_id.to_owned(),
                order: order.into(),
                count_total: true,
                ..ListUsersRequest::default()
            };
            let mut listed = caller.list(message.clone()).await.unwrap();
            assert_eq!((listed.total_size, listed.next_page_token.as_str()), (5, ""));
            if order != UserOrder::OldestFirst {
                listed.users.reverse();
            }
            assert_eq!(listed.users, expected, "{order:?}");
            let uncounted = caller.list(ListUsersRequest { count_total: false, ..message }).await.unwrap();
            assert_eq!(uncounted.total_size, 0);
        }
    }
}

async fn users_are_found_by_how_their_email_begins(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let owner = founder(&client, "owner@example.com").await;
    let elsewhere = founder(&client, "ada@elsewhere.example").await;
    for crowd in [Crowd::beside(&service, &owner).await, Crowd::beside(&service, &elsewhere).await] {
        let now = SystemClock.now();
        let n = if crowd.like.profile.email.as_given() == "owner@example.com" { "" } else { "x" };
        let emails = [
            format!("ada{n}@example.com"),
            format!("Ada.Lovelace{n}@Example.com"),
            format!("a%a{n}@example.com"),
            format!("a_a{n}@example.com"),
            format!("Zo\u{eb}{n}@example.com"),
            format!("zo{n}@example.com"),
            format!("\u{39f}\u{394}\u{3a5}\u{3a3}\u{3a3}\u{395}\u{3a5}\u{3a3}{n}@example.com"),
            format!("\u{1f980}{n}@example.com"),
            format!("info{n}@b\u{fc}cher.example"),
        ];
        let users: Vec<_> = emails
            .iter()
            .zip(1..)
            .map(|(email, n)| crowd.member(email, now.plus(Duration::from_secs(n))))
            .collect();
        crowd.insert(&users).await;
    }
    let [ada, lovelace, percent, underline, zoe, zo, odysseus, crab, info] = [
        "ada@example.com",
        "Ada.Lovelace@Example.com",
        "a%a@example.com",
        "a_a@example.com",
        "Zo\u{eb}@example.com",
        "zo@example.com",
        "\u{39f}\u{394}\u{3a5}\u{3a3}\u{3a3}\u{395}\u{3a5}\u{3a3}@example.com",
        "\u{1f980}@example.com",
        "info@b\u{fc}cher.example",
    ];
    let caller = Caller::user(&client, &owner);
    for (prefix, expected) in [
        ("ada", &[ada, lovelace][..]),
        ("ADA.", &[lovelace]),
        ("ada@example.com", &[ada]),
        ("ada@example.comx", &[]),
        ("a%", &[percent]),
        ("A_", &[underline]),
        ("%", &[]),
        ("_", &[]),
        ("\\", &[]),
        ("'", &[]),
        ("a", &[ada, lovelace, percent, underline]),
        ("zo", &[zoe, zo]),
        ("zo\u{eb}", &[zoe]),
        ("ZOE\u{308}", &[zoe]),
        ("zoe", &[]),
        ("zof", &[]),
        ("\u{3bf}\u{3b4}\u{3c5}", &[odysseus]),
        ("\u{39f}\u{394}\u{3a5}", &[odysseus]),
        // Of these letters one has another form at the end of a word.
        ("\u{3bf}\u{3b4}\u{3c5}\u{3c3}", &[odysseus]),
        ("\u{39f}\u{394}\u{3a5}\u{3a3}", &[odysseus]),
        ("\u{39f}\u{394}\u{3a5}\u{3a3}\u{3a3}\u{395}\u{3a5}\u{3a3}", &[odysseus]),
        ("\u{39f}\u{394}\u{3a5}\u{3a3}\u{3a3}\u{395}\u{3a5}\u{3a3}@", &[odysseus]),
        ("\u{1f980}", &[crab]),
        ("info@xn--b", &[info]),
        ("owner", &["owner@example.com"]),
    ] {
        let message = ListUsersRequest {
            email_prefix: prefix.to_owned(),
            order: UserOrder::OldestFirst.into(),
            count_total: true,
            ..ListUsersRequest::default()
        };
        let listed = caller.list(message).await.unwrap();
        assert_eq!(emails(&listed.users), expected, "{prefix:?}");
        assert_eq!(usize::try_from(listed.total_size).unwrap(), expected.len(), "{prefix:?}");
    }
}

async fn users_are_found_by_role_and_by_the_time_of_their_creation(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let house = House::build(&client).await;
    let caller = Caller::user(&client, &house.member);
    let crowd = Crowd::beside(&service, &house.owner).await;
    let first = Timestamp::from_unix_micros(1_000_000_000_000_001);
    let second = first.plus(Duration::from_micros(1));
    let third = second.plus(Duration::from_micros(1));
    let old = [("one@example.com", first), ("two@example.com", second), ("three@example.com", third)]
        .map(|(email, at)| crowd.member(email, at));
    crowd.insert(&old).await;
    let list = async |role: Role, from: Option<Timestamp>, until: Option<Timestamp>| {
        let message = ListUsersRequest {
            role: role.into(),
            created_from: from.map(at),
            created_until: until.map(at),
            order: UserOrder::OldestFirst.into(),
            count_total: true,
            ..ListUsersRequest::default()
        };
        let listed = caller.list(message).await.unwrap();
        assert_eq!(usize::try_from(listed.total_size).unwrap(), listed.users.len());
        ids(&listed.users)
    };
    let of = |people: &[&crate::world::Person]| people.iter().map(|p| p.id().to_owned()).collect::<Vec<_>>();
    let [one, two, three] = [0, 1, 2].map(|n| old[n].id.to_string());
    assert_eq!(list(Role::Owner, None, None).await, of(&[&house.owner, &house.second_owner]));
    assert_eq!(list(Role::Admin, None, None).await, of(&[&house.admin]));
    let all = [vec![one.clone(), two.clone(), three.clone()], of(&[&house.member, &house.other_member])];
    assert_eq!(list(Role::Member, None, None).await, all.concat());
    // From then on, up to just before.
    assert_eq!(list(Role::Unspecified, Some(first), Some(third)).await, [one.clone(), two.clone()]);
    assert_eq!(list(Role::Unspecified, Some(second), Some(third)).await, [two.as_str()]);
    assert_eq!(list(Role::Unspecified, None, Some(second)).await, [one]);
    assert_eq!(list(Role::Member, Some(third), Some(SystemClock.now())).await[0], three);
    assert_eq!(list(Role::Owner, None, Some(third)).await, [""; 0]);
    assert_eq!(list(Role::Unspecified, Some(third), Some(first)).await, [""; 0]);
    assert_eq!(list(Role::Unspecified, Some(second), Some(second)).await, [""; 0]);
    let [begin, end] = [-62_135_596_800_000_000, 253_402_300_799_999_999].map(Timestamp::from_unix_micros);
    assert_eq!(list(Role::Unspecified, Some(begin), Some(end)).await.len(), 8);
}

/// Lists in pages of 7 while users are added and deleted after each page.
async fn whoever_stays_is_listed_once_while_others_come_and_go(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let owner = founder(&client, "owner@example.com").await;
    let caller = Caller::user(&client, &owner);
    let crowd = Crowd::beside(&service, &owner).await;
    let begin = crowd.like.created_at;
    let (mut staying, mut leaving) = (Vec::new(), Vec::new());
    for n in 0_u64..249 {
        // Three in every instant.
        let user = crowd.member(&format!("u{n}@example.com"), begin.plus(Duration::from_millis(n / 3)));
        if n % 5 == 0 { leaving.push(user) } else { staying.push(user) }
    }
    crowd.insert(&staying).await;
    crowd.insert(&leaving).await;
    for (round, order) in [UserOrder::NewestFirst, UserOrder::OldestFirst].into_iter().enumerate() {
        let message = ListUsersRequest {
            page_size: 7,
            order: order.into(),
            email_prefix: if round == 0 { String::new() } else { "u".to_owned() },
            ..ListUsersRequest::default()
        };
        let (mut listed, mut page_token, mut pages) = (Vec::new(), String::new(), 0_u64);
        loop {
            let page = caller.list(ListUsersRequest { page_token, ..message.clone() }).await.unwrap();
            assert!(page.users.len() == 7 || page.next_page_token.is_empty());
            let last_id = page.users.last().map(|user| user.id.clone());
            listed.extend(page.users);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
            pages += 1;
            // One who leaves, be it behind or before the place, and if it can be, the place itself.
            let mut gone: BTreeSet<_> = leaving.pop().into_iter().map(|user| user.id).collect();
            if let Some(at) = leaving.iter().position(|user| Some(user.id.to_string()) == last_id) {
                gone.insert(leaving.remove(at).id);
            }
            crowd.delete(&gone.into_iter().collect::<Vec<_>>()).await;
            // And two who come, at the instants of others.
            let comers = [pages, 83 - (pages % 83)].map(|millis| {
                let email = format!("u{}@example.com", new_id());
                crowd.member(&email, begin.plus(Duration::from_millis(millis)))
            });
            crowd.insert(&comers).await;
            if pages % 2 == 0 {
                leaving.extend(comers);
            }
        }
        assert!(pages > 30, "{pages}");
        let (mut all, mut once) = (ids(&listed), ids(&listed));
        all.sort_unstable();
        once.sort_unstable();
        once.dedup();
        assert_eq!(all, once, "nobody is listed twice, {order:?}");
        for user in &staying {
            assert!(once.binary_search(&user.id.to_string()).is_ok(), "{} is missing, {order:?}", user.id);
        }
        let mut times: Vec<_> = listed
            .iter()
            .map(|user| {
                let at = user.created_at.unwrap();
                (at.seconds, at.nanos, user.id.clone())
            })
            .collect();
        if order == UserOrder::NewestFirst {
            times.reverse();
        }
        assert!(times.is_sorted(), "{order:?}");
    }
}

async fn users_of_the_same_instant_are_listed_once(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let owner = founder(&client, "owner@example.com").await;
    let crowd = Crowd::beside(&service, &owner).await;
    let now = crowd.like.created_at;
    let users: Vec<_> = (0..23).map(|n| crowd.member(&format!("u{n}@example.com"), now)).collect();
    crowd.insert(&users).await;
    let caller = Caller::user(&client, &owner);
    let mut expected: Vec<_> = users.iter().map(|user| user.id.to_string()).collect();
    expected.push(owner.id().to_owned());
    expected.sort_unstable();
    for page_size in [1, 2, 5, 8, 12, 23, 24, 25] {
        for order in ORDERS {
            let message = ListUsersRequest { page_size, order: order.into(), ..ListUsersRequest::default() };
            let mut listed = ids(&all_pages(&caller, &message).await);
            if order != UserOrder::OldestFirst {
                listed.reverse();
            }
            assert_eq!(listed, expected, "{order:?} in pages of {page_size}");
        }
    }
}

async fn a_page_has_as_many_as_were_asked_for_and_no_more_than_a_thousand(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let owner = founder(&client, "owner@example.com").await;
    let crowd = Crowd::beside(&service, &owner).await;
    let now = SystemClock.now();
    let users: Vec<_> = (0..1_004).map(|n| crowd.member(&format!("u{n}@example.com"), now)).collect();
    crowd.insert(&users).await;
    let caller = Caller::user(&client, &owner);
    let list = async |page_size| {
        let message = ListUsersRequest { page_size, count_total: true, ..ListUsersRequest::default() };
        caller.list(message).await
    };
    for (page_size, expected) in
        [(0, 50), (1, 1), (999, 999), (1_000, 1_000), (1_001, 1_000), (i32::MAX, 1_000)]
    {
        let page = list(page_size).await.unwrap();
        assert_eq!((page.users.len(), page.total_size), (expected, 1_005), "{page_size}");
        assert!(!page.next_page_token.is_empty());
    }
    for page_size in [-1, i32::MIN] {
        assert_eq!(invalid(list(page_size).await), named(&["page_size"]));
    }
    let message = ListUsersRequest { page_size: i32::MAX, ..ListUsersRequest::default() };
    assert_eq!(all_pages(&caller, &message).await.len(), 1_005);
}

async fn a_list_of_another_tenant_does_not_exist(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let (house, elsewhere) = (House::build(&client).await, House::build(&client).await);
    let of = |tenant_id: &str| ListUsersRequest {
        tenant_id: tenant_id.to_owned(),
        count_total: true,
        ..ListUsersRequest::default()
    };
    for person in house.people() {
        let caller = Caller::user(&client, person);
        let existing = caller.list(of(&elsewhere.tenant.id)).await.unwrap_err();
        let unknown = caller.list(of(&new_id())).await.unwrap_err();
        assert_eq!(visible(&existing), visible(&unknown));
        let prefix = ListUsersRequest {
            email_prefix: elsewhere.member.user.email.clone(),
            count_total: true,
            ..ListUsersRequest::default()
        };
        let found = caller.list(prefix).await.unwrap();
        assert_eq!((found.users.len(), found.total_size), (0, 0));
    }
    let billing = Caller::service(&service).await;
    let result = billing.list(of(&new_id())).await;
    assert_eq!(refusal(result), refused(Code::NotFound, "TENANT_NOT_FOUND"));
    assert_eq!(invalid(billing.list(of("")).await), named(&["tenant_id"]));
    // A tenant that has nobody of that kind is there.
    let nobody = ListUsersRequest { email_prefix: "nobody".into(), ..of(&house.tenant.id) };
    assert_eq!(billing.list(nobody).await.unwrap().users, []);
}
