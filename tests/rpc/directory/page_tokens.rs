//! Page tokens of lists of users and tenants, and of what they are good for.

use identity::proto::v1::{ListTenantsRequest, ListUsersRequest, Role, UserOrder};

use super::{Caller, invalid, named, start};
use crate::fixture::visible;
use crate::support::service::{Client, Engine, PASSWORD, on_both_databases};
use crate::world::{House, hire, log_in};

on_both_databases!(a_page_token_is_good_for_its_list_only);

/// Page tokens of other lists that the caller may see, and of one that he may not.
async fn other_tokens(client: &Client, house: &House, elsewhere: &House, billing: &Caller) -> Vec<String> {
    let page = |page_size| ListUsersRequest { page_size, ..ListUsersRequest::default() };
    let of_users = async |caller: &Caller, message| caller.list(message).await.unwrap().next_page_token;
    let in_tenant = |house: &House| ListUsersRequest { tenant_id: house.tenant.id.clone(), ..page(1) };
    log_in(client, &house.owner.user.email, PASSWORD).await;
    let sessions = client.list_sessions(&house.owner.access_token, 1, "").await.unwrap();
    let tenants = ListTenantsRequest { page_size: 1, ..ListTenantsRequest::default() };
    vec![
        of_users(&Caller::user(client, &house.admin), page(1)).await,
        of_users(&Caller::user(client, &elsewhere.owner), page(1)).await,
        of_users(billing, in_tenant(house)).await,
        of_users(billing, in_tenant(elsewhere)).await,
        sessions.next_page_token,
        billing.list_tenants(tenants).await.unwrap().next_page_token,
    ]
}

async fn a_page_token_is_good_for_its_list_only(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let (house, elsewhere) = (House::build(&client).await, House::build(&client).await);
    let name = house.owner.user.email.split('-').next().unwrap();
    hire(&client, &house.owner, &format!("{name}-third@example.com"), Role::Owner).await;
    let billing = Caller::service(&service).await;
    let owner = Caller::user(&client, &house.owner);
    let [from, until] = [1, 4_000_000_000].map(|seconds| prost_types::Timestamp { seconds, nanos: 0 });
    let whole = ListUsersRequest {
        page_size: 1,
        email_prefix: name.to_owned(),
        role: Role::Owner.into(),
        created_from: Some(from),
        created_until: Some(until),
        order: UserOrder::OldestFirst.into(),
        ..ListUsersRequest::default()
    };
    let token = owner.list(whole.clone()).await.unwrap().next_page_token;
    let with = |page_token: &str| ListUsersRequest { page_token: page_token.to_owned(), ..whole.clone() };
    let later = Some(prost_types::Timestamp { seconds: 4_000_000_000, nanos: 1_000 });
    let mut requests = vec![
        ListUsersRequest { email_prefix: String::new(), ..with(&token) },
        ListUsersRequest { email_prefix: format!("{name}-"), ..with(&token) },
        ListUsersRequest { role: Role::Unspecified.into(), ..with(&token) },
        ListUsersRequest { role: Role::Member.into(), ..with(&token) },
        ListUsersRequest { created_from: None, ..with(&token) },
        ListUsersRequest { created_from: later, ..with(&token) },
        ListUsersRequest { created_until: None, ..with(&token) },
        ListUsersRequest { created_until: later, ..with(&token) },
        ListUsersRequest { order: UserOrder::NewestFirst.into(), ..with(&token) },
        ListUsersRequest { order: UserOrder::Unspecified.into(), ..with(&token) },
        with("x"),
        with(&token[1..]),
        with(&format!("{token}A")),
        with(&"A".repeat(50_000)),
    ];
    for at in 0..token.len() {
        let mut altered = token.clone().into_bytes();
        altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
        requests.push(with(std::str::from_utf8(&altered).unwrap()));
    }
    for other in other_tokens(&client, &house, &elsewhere, &billing).await {
        assert!(!other.is_empty());
        requests.push(ListUsersRequest { page_token: other, ..ListUsersRequest::default() });
    }
    let mut refusals = Vec::new();
    for request in requests {
        let about = format!("{request:?}");
        let status = owner.list(request).await.unwrap_err();
        refusals.push(visible(&status));
        assert_eq!(invalid::<()>(Err(status)), named(&["page_token"]), "{about}");
    }
    assert!(refusals.iter().all(|refusal| *refusal == refusals[0]), "all are told the same");
    for (caller, tenant_id) in
        [(Caller::user(&client, &house.second_owner), ""), (billing.clone(), house.tenant.id.as_str())]
    {
        let request = ListUsersRequest { tenant_id: tenant_id.to_owned(), ..with(&token) };
        assert_eq!(invalid(caller.list(request).await), named(&["page_token"]));
    }
    let tenants = ListTenantsRequest { page_token: token.clone(), ..ListTenantsRequest::default() };
    assert_eq!(invalid(billing.list_tenants(tenants).await), named(&["page_token"]));
    let sessions = client.list_sessions(&house.owner.access_token, 1, &token).await;
    assert_eq!(invalid(sessions), named(&["page_token"]));
    // With the tenant named, and in pages of another size, it is the same list.
    let next = ListUsersRequest { tenant_id: house.tenant.id.clone(), page_size: 9, ..with(&token) };
    assert_eq!(owner.list(next).await.unwrap().users.len(), 2);
}
