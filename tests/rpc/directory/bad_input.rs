//! Requests that break rules: every field that does is named, and nothing is changed.

use identity::proto::v1::{
    BatchGetUsersRequest, CreateUserRequest, DeleteTenantRequest, DeleteUserRequest, GetTenantRequest,
    GetUserByEmailRequest, GetUserByExternalIdRequest, ListAuditEventsRequest, ListTenantsRequest,
    ListUsersRequest, RevokeUserSessionsRequest, Role, SetPasswordRequest, SetUserStateRequest, Tenant,
    UpdateTenantRequest, UpdateUserRequest, User,
};
use prost::Message;
use prost_types::Timestamp;
use tonic::metadata::MetadataMap;

use super::{Caller, mask, named, start};
use crate::database::census;
use crate::fixture::{call_raw, new_id};
use crate::support::service::{Engine, PASSWORD, bad_fields, on_both_databases};
use crate::world::{House, newcomer};

on_both_databases!(
    every_field_that_breaks_a_rule_is_named,
    a_mask_that_names_what_cannot_be_changed_is_refused,
);

/// Requests of one method, each with the fields that it has to be refused for.
type Cases = Vec<(&'static str, Vec<u8>, &'static [&'static str])>;

fn case(
    method: &'static str,
    message: &impl Message,
    fields: &'static [&'static str],
) -> (&'static str, Vec<u8>, &'static [&'static str]) {
    (method, message.encode_to_vec(), fields)
}

const UNKNOWN: i32 = 77;

fn creations() -> Cases {
    let valid = newcomer("new@example.com", Role::Member);
    type Change = fn(&mut CreateUserRequest);
    let changes: [(&[&str], Change); 19] = [
        (&["tenant_id"], |request| request.tenant_id = "1".into()),
        (&["email"], |request| request.email = String::new()),
        (&["email"], |request| request.email = "eve@".into()),
        (&["email"], |request| request.email = "a".repeat(255)),
        (&["email"], |request| request.email = "new\u{200b}@example.com".into()),
        (&["first_name"], |request| request.first_name = "\u{2060}".into()),
        (&["password"], |request| request.password = String::new()),
        (&["password"], |request| request.password = "1234567".into()),
        (&["password"], |request| request.password = "x".repeat(1025)),
        (&["password"], |request| request.password = "NEW@example.com".into()),
        (&["first_name"], |request| request.first_name = "\u{3000}".into()),
        (&["first_name"], |request| request.first_name = "x".repeat(101)),
        (&["last_name"], |request| request.last_name = "a\0b".into()),
        (&["last_name"], |request| request.last_name = String::new()),
        (&["role"], |request| request.role = UNKNOWN),
        (&["role"], |request| request.role = -1),
        (&["email", "password", "first_name", "last_name"], |request| {
            *request = CreateUserRequest::default()
        }),
        (&["external_id"], |request| request.external_id = "x\u{7}".into()),
        (&["tenant_id", "email", "password", "first_name", "last_name", "role", "external_id"], |request| {
            *request = CreateUserRequest {
                tenant_id: "\0".into(),
                email: "\0".into(),
                password: "\0".into(),
                first_name: "\0".into(),
                last_name: "\0".into(),
                role: i32::MIN,
                external_id: "\0".into(),
            };
        }),
    ];
    changes
        .into_iter()
        .map(|(fields, change)| {
            let mut request = valid.clone();
            change(&mut request);
            case("CreateUser", &request, fields)
        })
        .collect()
}

fn updates(id: &str) -> Cases {
    let request = |user: User, paths: &[&str]| UpdateUserRequest {
        user: Some(User { id: if user.id.is_empty() { id.to_owned() } else { user.id.clone() }, ..user }),
        update_mask: mask(paths),
        ..UpdateUserRequest::default()
    };
    let user = User::default;
    let all = &["email", "first_name", "last_name", "role"];
    vec![
        case("UpdateUser", &UpdateUserRequest::default(), &["user.id", "update_mask"]),
        case(
            "UpdateUser",
            &UpdateUserRequest { update_mask: mask(&["role"]), ..UpdateUserRequest::default() },
            &["user.id", "user.role"],
        ),
        case(
            "UpdateUser",
            &request(User { id: "x".into(), first_name: "A".into(), ..user() }, &["first_name"]),
            &["user.id"],
        ),
        case(
            "UpdateUser",
            &request(User { tenant_id: "x".into(), first_name: "A".into(), ..user() }, &["first_name"]),
            &["user.tenant_id"],
        ),
        case("UpdateUser", &request(User { email: "x".into(), ..user() }, &["email"]), &["user.email"]),
        case(
            "UpdateUser",
            &request(
                User { email: "a\u{feff}@example.com".into(), last_name: "\u{feff}".into(), ..user() },
                &["email", "last_name"],
            ),
            &["user.email", "user.last_name"],
        ),
        case(
            "UpdateUser",
            &request(User { first_name: "x".repeat(101), ..user() }, &["first_name"]),
            &["user.first_name"],
        ),
        case(
            "UpdateUser",
            &request(User { last_name: "\u{7}".into(), ..user() }, &["last_name"]),
            &["user.last_name"],
        ),
        case("UpdateUser", &request(User { role: UNKNOWN, ..user() }, &["role"]), &["user.role"]),
        case("UpdateUser", &request(user(), &["role"]), &["user.role"]),
        case(
            "UpdateUser",
            &request(user(), all),
            &["user.email", "user.first_name", "user.last_name", "user.role"],
        ),
        case(
            "UpdateUser",
            &request(
                User { id: "x".into(), tenant_id: "y".into(), ..user() },
                &["email", "last_name", "state"],
            ),
            &["user.id", "user.tenant_id", "user.email", "user.last_name", "update_mask"],
        ),
    ]
}

fn others(id: &str) -> Cases {
    let (id, bad) = (id.to_owned(), "{}".to_owned());
    let state = |user_id: &str, tenant_id: &str, state| SetUserStateRequest {
        user_id: user_id.into(),
        tenant_id: tenant_id.into(),
        state,
        etag: String::new(),
    };
    let password = |user_id: &str, tenant_id: &str, new_password: &str| SetPasswordRequest {
        user_id: user_id.into(),
        tenant_id: tenant_id.into(),
        new_password: new_password.into(),
    };
    let ids = |user_ids: &[&str], tenant_id: &str| BatchGetUsersRequest {
        user_ids: user_ids.iter().map(|id| (*id).to_owned()).collect(),
        tenant_id: tenant_id.into(),
    };
    let tenant = |name: &str, id: &str| UpdateTenantRequest {
        tenant: Some(Tenant { name: name.into(), id: id.into(), ..Tenant::default() }),
        update_mask: mask(&["name"]),
    };
    let revocation = |user_id: &str, tenant_id: &str| RevokeUserSessionsRequest {
        user_id: user_id.into(),
        tenant_id: tenant_id.into(),
    };
    let external = |tenant_id: &str, external_id: &str| GetUserByExternalIdRequest {
        tenant_id: tenant_id.to_owned(),
        external_id: external_id.to_owned(),
    };
    let deletion = |user_id: &str, tenant_id: &str| DeleteUserRequest {
        user_id: user_id.into(),
        tenant_id: tenant_id.into(),
        etag: String::new(),
    };
    vec![
        case("SetUserState", &state(&id, "", 0), &["state"]),
        case("SetUserState", &state(&id, "", UNKNOWN), &["state"]),
        case("SetUserState", &state("", "", 1), &["user_id"]),
        case("SetUserState", &state("x", "y", -1), &["user_id", "tenant_id", "state"]),
        case("SetPassword", &password(&id, "", ""), &["new_password"]),
        case("SetPassword", &password(&id, "", "Password1"), &["new_password"]),
        case("SetPassword", &password(&id, "", &"x".repeat(1025)), &["new_password"]),
        case("SetPassword", &password("", "", PASSWORD), &["user_id"]),
        case("SetPassword", &password("x", "y", "short"), &["user_id", "tenant_id", "new_password"]),
        case("RevokeUserSessions", &revocation("", ""), &["user_id"]),
        case("RevokeUserSessions", &revocation("x", "y"), &["user_id", "tenant_id"]),
        case("DeleteUser", &deletion("", ""), &["user_id"]),
        case("DeleteUser", &deletion(&format!("{id}0"), "y"), &["user_id", "tenant_id"]),
        case("BatchGetUsers", &ids(&[], ""), &["user_ids"]),
        case("BatchGetUsers", &ids(&[&id, ""], ""), &["user_ids"]),
        case("BatchGetUsers", &ids(&[&bad, &bad], "x"), &["user_ids", "tenant_id"]),
        case("GetUserByEmail", &GetUserByEmailRequest { email: String::new() }, &["email"]),
        case("GetUserByEmail", &GetUserByEmailRequest { email: "a b@example.com".into() }, &["email"]),
        case("GetUserByExternalId", &external("", ""), &["external_id"]),
        case("GetUserByExternalId", &external("x", " 7"), &["tenant_id", "external_id"]),
        case("GetUserByExternalId", &external("", &"x".repeat(256)), &["external_id"]),
        case("GetTenant", &GetTenantRequest { tenant_id: bad.clone() }, &["tenant_id"]),
        case("UpdateTenant", &UpdateTenantRequest::default(), &["update_mask"]),
        case("UpdateTenant", &tenant("", ""), &["tenant.name"]),
        case("UpdateTenant", &tenant(&"x".repeat(201), "x"), &["tenant.id", "tenant.name"]),
        case("DeleteTenant", &DeleteTenantRequest::default(), &["tenant_id"]),
        case("DeleteTenant", &DeleteTenantRequest { tenant_id: bad, etag: String::new() }, &["tenant_id"]),
    ]
}

/// Times that no google.protobuf.Timestamp may be.
const BAD_TIMES: [(i64, i32); 6] =
    [(-62_135_596_801, 0), (253_402_300_800, 0), (i64::MAX, 0), (i64::MIN, 0), (0, -1), (0, 1_000_000_000)];

fn lists() -> Cases {
    let all = ListUsersRequest {
        tenant_id: "x".into(),
        page_size: -1,
        email_prefix: "x".repeat(255),
        role: UNKNOWN,
        created_from: Some(Timestamp { seconds: i64::MIN, nanos: 0 }),
        created_until: Some(Timestamp { seconds: 0, nanos: i32::MIN }),
        order: UNKNOWN,
        ..ListUsersRequest::default()
    };
    let users = ListUsersRequest::default;
    let mut cases = vec![
        case("ListUsers", &ListUsersRequest { tenant_id: "x".into(), ..users() }, &["tenant_id"]),
        case("ListUsers", &ListUsersRequest { page_size: -1, ..users() }, &["page_size"]),
        case("ListUsers", &ListUsersRequest { page_token: "x".into(), ..users() }, &["page_token"]),
        case("ListUsers", &ListUsersRequest { email_prefix: "a\0".into(), ..users() }, &["email_prefix"]),
        case("ListUsers", &ListUsersRequest { email_prefix: " ".into(), ..users() }, &["email_prefix"]),
        case("ListUsers", &ListUsersRequest { email_prefix: "a".repeat(255), ..users() }, &["email_prefix"]),
        case("ListUsers", &ListUsersRequest { role: UNKNOWN, ..users() }, &["role"]),
        case("ListUsers", &ListUsersRequest { order: UNKNOWN, ..users() }, &["order"]),
        case(
            "ListUsers",
            &all,
            &["tenant_id", "page_size", "email_prefix", "role", "created_from", "created_until", "order"],
        ),
    ];
    for (seconds, nanos) in BAD_TIMES {
        let bad = Some(Timestamp { seconds, nanos });
        let events = ListAuditEventsRequest::default;
        cases.extend([
            case("ListUsers", &ListUsersRequest { created_from: bad, ..users() }, &["created_from"]),
            case("ListUsers", &ListUsersRequest { created_until: bad, ..users() }, &["created_until"]),
            case(
                "ListAuditEvents",
                &ListAuditEventsRequest { occurred_from: bad, occurred_until: bad, ..events() },
                &["occurred_from", "occurred_until"],
            ),
        ]);
    }
    cases
}

async fn every_field_that_breaks_a_rule_is_named(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let house = House::build(&client).await;
    let mut metadata = MetadataMap::new();
    metadata.insert("authorization", house.owner.bearer().parse().unwrap());
    let before = census(&service.database);
    let id = house.member.id();
    for (method, message, fields) in [creations(), updates(id), others(id), lists()].concat() {
        let of = if method == "ListAuditEvents" { "AuditService" } else { "DirectoryService" };
        let rpc = format!("identity.v1.{of}/{method}");
        let status = call_raw(&client, &rpc, message.clone(), metadata.clone()).await.unwrap_err();
        assert_eq!((status.code(), bad_fields(&status)), named(fields), "{method} {message:?}");
        assert!(!format!("{status:?}").contains("NEW@example.com"));
    }
    let billing = Caller::service(&service).await;
    let page = ListTenantsRequest { page_size: -1, page_token: "x".into(), count_total: true };
    let status = billing.list_tenants(page).await.unwrap_err();
    assert_eq!(bad_fields(&status), ["page_size"]);
    assert_eq!(census(&service.database), before);
    let owner = Caller::user(&client, &house.owner);
    assert_eq!(owner.get(id).await.as_ref(), Some(&house.member.user));
    assert_eq!(owner.get_tenant("").await.unwrap(), house.tenant);
}

async fn a_mask_that_names_what_cannot_be_changed_is_refused(engine: Engine) {
    let service = start(engine).await;
    let client = service.client();
    let house = House::build(&client).await;
    let owner = Caller::user(&client, &house.owner);
    let (id, tenant_id) = (house.member.id(), house.tenant.id.as_str());
    let user = User {
        id: id.to_owned(),
        first_name: "New".into(),
        email: format!("{}@example.com", new_id()),
        ..User::default()
    };
    let unchangeable = [
        "",
        " ",
        "*",
        "id",
        "tenant_id",
        "tenant",
        "state",
        "etag",
        "created_at",
        "updated_at",
        "password",
        "x",
        "First_name",
        "firstName",
        "first_name ",
        "user.first_name",
        "first_name.x",
        "first_name,last_name",
        "\u{1f511}",
    ];
    for paths in [&[][..], &["", "", ""], &["id", "*", "password"]] {
        assert_eq!(
            super::invalid(owner.update(user.clone(), paths).await),
            named(&["update_mask"]),
            "{paths:?}"
        );
    }
    for path in unchangeable {
        for paths in [&[path][..], &["first_name", path], &[path, "email"]] {
            let result = owner.update(user.clone(), paths).await;
            assert_eq!(super::invalid(result), named(&["update_mask"]), "{paths:?}");
        }
    }
    for path in ["", "*", "id", "etag", "created_at", "updated_at", "users", "Name", "tenant.name", "name.x"]
    {
        for paths in [&[path][..], &["name", path], &[path, "x"]] {
            let tenant = Tenant { id: tenant_id.to_owned(), name: "New".into(), ..Tenant::default() };
            let message = UpdateTenantRequest { tenant: Some(tenant), update_mask: mask(paths) };
            let result = client.directory.clone().update_tenant(owner.request(message)).await;
            assert_eq!(super::invalid(result), named(&["update_mask"]), "{paths:?}");
        }
    }
    assert_eq!(owner.get(id).await.as_ref(), Some(&house.member.user));
    assert_eq!(owner.get_tenant("").await.unwrap(), house.tenant);
}
