//! `identity user` beside a server.

use identity::domain::LoggedEvent;
use tonic::Code;

use crate::shell::{OPERATOR, Shell, actor, events};
use crate::support::service::{
    Engine, PASSWORD, TestDatabase, TestService, on_both_databases, reason, registration,
};

on_both_databases!(
    a_user_who_was_created_logs_in,
    a_server_starts_on_users_that_were_there_before_it,
    a_user_who_is_disabled_is_refused_by_the_next_call,
    another_password_ends_the_sessions_of_the_old_one,
    revoked_sessions_are_refused_by_the_next_call,
    a_deleted_user_is_gone,
    a_user_is_changed,
    a_tenant_keeps_its_last_owner,
    what_breaks_a_rule_is_refused_and_changes_nothing,
    a_wrong_command_line_exits_with_usage,
    a_password_is_nowhere_but_on_standard_input,
    each_command_is_in_the_audit_log,
);

const OTHER: &str = "staple battery horse";

async fn a_user_who_was_created_logs_in(engine: Engine) {
    let service = TestService::start(engine).await;
    let shell = Shell::at(&service.database);
    let tenant = shell.tenant("Analytical Engines").await;
    let ada = shell.user(&tenant, "Ada@Example.com", "owner").await;
    for (field, value) in [
        ("tenant_id", tenant.as_str()),
        ("email", "Ada@Example.com"),
        ("first_name", "Ada"),
        ("last_name", "Lovelace"),
        ("role", "owner"),
        ("state", "active"),
        ("etag", "\"1\""),
        ("external_id", ""),
    ] {
        assert_eq!(ada[field], value, "{ada}");
    }
    assert_eq!(ada["tenant"]["name"], "Analytical Engines");
    let session = service.client().login("ada@example.com", PASSWORD).await.unwrap();
    assert_eq!(session.user.unwrap().id, ada["id"].as_str().unwrap());

    for whom in [ada["id"].as_str().unwrap(), "ADA@example.com"] {
        assert_eq!(shell.run(&format!("user show {whom}")).await.json(), ada);
        assert_eq!(shell.run(&format!("user show {whom} --tenant {tenant} --json")).await.json(), ada);
    }
    let other = shell.tenant("Difference Engines").await;
    let hidden = shell.run(&format!("user show ada@example.com --tenant {other}")).await;
    assert!(hidden.refused(1).contains("no such user"), "{hidden:?}");
}

async fn a_server_starts_on_users_that_were_there_before_it(engine: Engine) {
    let database = TestDatabase::migrated(engine).await;
    let shell = Shell::at(&database);
    let tenant = shell.tenant("Analytical Engines").await;
    shell.user(&tenant, "ada@example.com", "owner").await;
    // Without the variable, SQLite's key is in a file that the first start makes.
    let key = if engine == Engine::Sqlite { &[("IDENTITY_MASTER_KEY", "")][..] } else { &[] };
    let service = TestService::start_with(database, key).await;
    service.client().login("ada@example.com", PASSWORD).await.unwrap();
}

async fn a_user_who_is_disabled_is_refused_by_the_next_call(engine: Engine) {
    let service = TestService::start(engine).await;
    let (shell, client) = (Shell::at(&service.database), service.client());
    let tenant = shell.tenant("Analytical Engines").await;
    shell.user(&tenant, "ada@example.com", "owner").await;
    shell.user(&tenant, "bob@example.com", "member").await;
    let bob = client.login("bob@example.com", PASSWORD).await.unwrap();
    client.get_user(Some(&bob.access_token), "").await.unwrap();

    let disabled = shell.run("user disable bob@example.com").await.json();
    assert_eq!((&disabled["state"], &disabled["etag"]), (&"disabled".into(), &"\"2\"".into()));
    let refused = client.get_user(Some(&bob.access_token), "").await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert_eq!(reason(&client.login("bob@example.com", PASSWORD).await.unwrap_err()), "LOGIN_FAILED");
    assert_eq!(shell.run("user disable bob@example.com").await.json(), disabled);

    assert_eq!(shell.run("user enable bob@example.com").await.json()["state"], "active");
    client.login("bob@example.com", PASSWORD).await.unwrap();
    // The session from before has ended for good.
    client.get_user(Some(&bob.access_token), "").await.unwrap_err();
}

async fn another_password_ends_the_sessions_of_the_old_one(engine: Engine) {
    let service = TestService::start(engine).await;
    let (shell, client) = (Shell::at(&service.database), service.client());
    let ada = client.register(registration("ada@example.com")).await.unwrap();
    // What follows the first line is not part of it; the line may end as Windows ends it.
    let arguments = ["user", "set-password", "ada@example.com"];
    let set = shell.run_with(&arguments, &format!("{OTHER}\r\nmore\n")).await;
    assert_eq!(set.json()["id"], ada.user.unwrap().id, "{set:?}");
    assert!(!set.out.contains(OTHER) && !set.err.contains(OTHER), "{set:?}");
    client.get_user(Some(&ada.access_token), "").await.unwrap_err();
    client.refresh(&ada.refresh_token).await.unwrap_err();
    client.login("ada@example.com", PASSWORD).await.unwrap_err();
    client.login("ada@example.com", OTHER).await.unwrap();
}

async fn revoked_sessions_are_refused_by_the_next_call(engine: Engine) {
    let service = TestService::start(engine).await;
    let (shell, client) = (Shell::at(&service.database), service.client());
    let ada = client.register(registration("ada@example.com")).await.unwrap();
    assert_eq!(shell.run("user revoke-sessions ada@example.com").await.json()["state"], "active");
    client.get_user(Some(&ada.access_token), "").await.unwrap_err();
    client.login("ada@example.com", PASSWORD).await.unwrap();
}

async fn a_deleted_user_is_gone(engine: Engine) {
    let service = TestService::start(engine).await;
    let (shell, client) = (Shell::at(&service.database), service.client());
    let tenant = shell.tenant("Analytical Engines").await;
    shell.user(&tenant, "ada@example.com", "owner").await;
    let bob = shell.user(&tenant, "bob@example.com", "member").await;
    let token = client.login("bob@example.com", PASSWORD).await.unwrap().access_token;
    let unasked = shell.run("user delete bob@example.com").await;
    assert!(unasked.refused(64).contains("--yes"), "{unasked:?}");
    client.get_user(Some(&token), "").await.unwrap();

    assert_eq!(shell.run("user delete bob@example.com --yes").await.json(), bob);
    client.get_user(Some(&token), "").await.unwrap_err();
    let gone = shell.run("user delete bob@example.com --yes").await;
    assert_eq!(gone.refused(1).lines().last().unwrap(), "identity: no such user");
    // The e-mail can be had again.
    shell.user(&tenant, "bob@example.com", "member").await;
}

async fn a_user_is_changed(engine: Engine) {
    let service = TestService::start(engine).await;
    let (shell, client) = (Shell::at(&service.database), service.client());
    let tenant = shell.tenant("Analytical Engines").await;
    shell.user(&tenant, "ada@example.com", "owner").await;
    shell.user(&tenant, "bob@example.com", "member").await;
    let admin = shell.run("user set-role bob@example.com admin").await.json();
    assert_eq!((&admin["role"], &admin["etag"]), (&"admin".into(), &"\"2\"".into()));
    let arguments =
        ["user", "update", "bob@example.com", "--email", "rob@example.com", "--last-name", "O'Ne il"];
    let renamed = shell.run_with(&arguments, "").await.json();
    assert_eq!((&renamed["email"], &renamed["first_name"]), (&"rob@example.com".into(), &"Ada".into()));
    assert_eq!(renamed["last_name"], "O'Ne il");
    client.login("rob@example.com", PASSWORD).await.unwrap();
    let taken = shell.run("user update rob@example.com --email ada@example.com").await;
    assert_eq!(taken.refused(1), "identity: the e-mail is taken\n");
    client.login("rob@example.com", PASSWORD).await.unwrap();
}

async fn a_tenant_keeps_its_last_owner(engine: Engine) {
    let database = TestDatabase::migrated(engine).await;
    let shell = Shell::at(&database);
    let tenant = shell.tenant("Analytical Engines").await;
    shell.user(&tenant, "ada@example.com", "owner").await;
    let bob = shell.user(&tenant, "bob@example.com", "owner").await;
    let id = bob["id"].as_str().unwrap();
    shell.run("user disable ada@example.com").await.json();
    for command in [format!("disable {id}"), format!("set-role {id} admin"), format!("delete {id} --yes")] {
        let refused = shell.run(&format!("user {command}")).await;
        assert_eq!(refused.refused(1), "identity: the tenant would have no owner left\n");
    }
    assert_eq!(shell.run(&format!("user show {id}")).await.json(), bob);
    shell.run("user enable ada@example.com").await.json();
    shell.run(&format!("user delete {id} --yes")).await.json();
}

async fn what_breaks_a_rule_is_refused_and_changes_nothing(engine: Engine) {
    let database = TestDatabase::migrated(engine).await;
    let mut shell = Shell::at(&database);
    let tenant = shell.tenant("Analytical Engines").await;
    shell.user(&tenant, "ada@example.com", "owner").await;
    let nobody = "018f4e9a-7c1e-7b3a-9d2e-3f5a6b7c8d9e";
    let before = events(&database, Some(&tenant)).await;
    for (tenant, email, password, problem) in [
        (&*tenant, "ADA@example.com", PASSWORD, "the e-mail is taken"),
        (&tenant, "bob@example.com", "short", "the password must have at least 8 characters"),
        (&tenant, "bob@example.com", "password1", "the password must not be a commonly used password"),
        (&tenant, "bob@example.com", "BOB@example.com", "the password must not be the e-mail address"),
        (&tenant, "bob@example.com", "", "the password must not be empty"),
        (&tenant, "bob@example.com", &"x".repeat(1025), "the password must have at most 1024 bytes"),
        (nobody, "bob@example.com", PASSWORD, "no such tenant"),
    ] {
        let refused = shell.create(tenant, email, "member", password).await;
        let line = refused.refused(1).lines().last().unwrap().to_owned();
        assert!(line.starts_with(&format!("identity: {problem}")), "{line}");
        assert!(password.len() < 9 || !refused.err.contains(password), "{line}");
    }
    for (command, problem) in [
        (format!("show {nobody}"), "no such user"),
        ("show bob@example.com".to_owned(), "no such user"),
        (format!("disable {nobody} --tenant {tenant}"), "no such user"),
        (format!("list --tenant {nobody}"), "no such tenant"),
    ] {
        let refused = shell.run(&format!("user {command}")).await;
        assert!(refused.refused(1).starts_with(&format!("identity: {problem}")), "{refused:?}");
    }
    shell.variables.push(("IDENTITY_PASSWORD_MIN_LENGTH", "32".to_owned()));
    let refused = shell.run_with(&["user", "set-password", "ada@example.com"], PASSWORD).await;
    assert!(refused.refused(1).contains("at least 32 characters"), "{refused:?}");
    assert_eq!(events(&database, Some(&tenant)).await, before);
}

async fn a_wrong_command_line_exits_with_usage(engine: Engine) {
    let database = TestDatabase::migrated(engine).await;
    let shell = Shell::at(&database);
    let id = "018f4e9a-7c1e-7b3a-9d2e-3f5a6b7c8d9e";
    for command in [
        "user show 1".to_owned(),
        "user show".to_owned(),
        format!("user show {id} --tenant 1"),
        format!("user set-role {id} boss"),
        format!("user update {id}"),
        format!("user delete {id}"),
        "user list".to_owned(),
        format!("user list --tenant {id} --limit 0"),
        format!("user list --tenant {id} --limit 5 --all"),
        format!("user create --tenant {id} --email a@b.c --first-name A --last-name B --role boss"),
        format!("user create --tenant {id} --email a@b.c --first-name A --last-name B --password {id}"),
        format!("user create --tenant {id} --email bob --first-name A --last-name B"),
        format!("user create --tenant {id} --email a@b.c --first-name \t --last-name B"),
        format!("user create --tenant {id} --email a@b.c --first-name A --last-name \u{7}"),
        "user show bob@".to_owned(),
        "user update ada@example.com --email bob".to_owned(),
        "user update ada@example.com --first-name \t".to_owned(),
        format!("user list --tenant {id} --email-prefix \u{1}"),
        "tenant create --name \u{7}".to_owned(),
        format!("tenant rename {id} --name \t"),
        "tenant show 1".to_owned(),
        format!("tenant delete {id}"),
        "audit list --action user.gone".to_owned(),
        "audit prune".to_owned(),
        "audit prune --yes --older-than 23h".to_owned(),
        "audit prune --yes --older-than 36501d".to_owned(),
        "audit prune --older-than 90d".to_owned(),
    ] {
        shell.run(&command).await.refused(64);
    }
    let unreachable = Shell { variables: vec![("DATABASE_URL", "postgres://127.0.0.1:1/none".to_owned())] };
    let refused = unreachable.run("user show bob@").await;
    let expected = "error: invalid value 'bob@' for '<ID|E-MAIL>': must be an e-mail address";
    assert!(refused.refused(64).starts_with(expected), "{refused:?}");
}

/// `ps` shows arguments, and `/proc` the environment: neither can hold one.
async fn a_password_is_nowhere_but_on_standard_input(engine: Engine) {
    let database = TestDatabase::migrated(engine).await;
    let mut shell = Shell::at(&database);
    let tenant = shell.tenant("Analytical Engines").await;
    for name in ["PASSWORD", "IDENTITY_PASSWORD", "IDENTITY_USER_PASSWORD"] {
        shell.variables.push((name, PASSWORD.to_owned()));
    }
    shell.variables.push(("IDENTITY_LOG", "trace".to_owned()));
    let refused = shell.create(&tenant, "ada@example.com", "owner", "").await;
    assert!(refused.refused(1).contains("the password must not be empty"), "{refused:?}");
    let made = shell.create(&tenant, "ada@example.com", "owner", PASSWORD).await;
    assert_eq!(made.code, Some(0), "{made:?}");
    assert!(!made.err.contains(PASSWORD) && !made.out.contains(PASSWORD), "{made:?}");
    assert!(!made.err.contains("ada@example.com") && !made.err.contains("$2b$"), "{made:?}");
}

async fn each_command_is_in_the_audit_log(engine: Engine) {
    let service = TestService::start(engine).await;
    let shell = Shell::at(&service.database);
    let tenant = shell.tenant("Analytical Engines").await;
    shell.user(&tenant, "ada@example.com", "owner").await;
    let bob = shell.user(&tenant, "bob@example.com", "member").await;
    for command in ["set-role bob@example.com admin", "disable bob@example.com", "enable bob@example.com"] {
        shell.run(&format!("user {command}")).await.json();
    }
    shell.run_with(&["user", "set-password", "bob@example.com"], OTHER).await.json();
    shell.run("user update bob@example.com --first-name Rob").await.json();
    service.client().login("bob@example.com", OTHER).await.unwrap();
    // The second time there is nothing to end, and nothing to tell.
    for _ in 0..2 {
        shell.run("user revoke-sessions bob@example.com").await.json();
    }
    shell.run("user delete bob@example.com --yes").await.json();

    let mut all = events(&service.database, Some(&tenant)).await;
    all.retain(|event| actor(event) == ("operator", Some(OPERATOR)));
    let of_bob = |event: &&LoggedEvent| event.target_id.as_deref() == bob["id"].as_str();
    let actions: Vec<_> = all.iter().filter(of_bob).map(|event| event.action.as_str()).collect();
    let expected = [
        "user.created",
        "user.updated",
        "user.disabled",
        "user.enabled",
        "user.password_set",
        "user.updated",
        "user.sessions_revoked",
        "user.deleted",
    ];
    assert_eq!(actions, expected);
    assert_eq!((all.len(), all[0].action.as_str()), (10, "tenant.created"));
}
