//! `identity tenant` beside a server.

use tonic::Code;

use crate::shell::{OPERATOR, Shell, actor, events};
use crate::support::service::{Engine, PASSWORD, TestService, on_both_databases};

on_both_databases!(a_tenant_is_created_shown_renamed_and_deleted_with_its_users);

async fn a_tenant_is_created_shown_renamed_and_deleted_with_its_users(engine: Engine) {
    let service = TestService::start(engine).await;
    let (shell, client) = (Shell::at(&service.database), service.client());
    let id = shell.tenant(" Analytical Engines ").await;
    let shown = shell.run(&format!("tenant show {id}")).await.json();
    assert_eq!((&shown["id"], &shown["name"]), (&id.as_str().into(), &"Analytical Engines".into()));
    assert_eq!((&shown["etag"], &shown["created_at"]), (&"\"1\"".into(), &shown["updated_at"]));
    shell.user(&id, "ada@example.com", "owner").await;
    let token = client.login("ada@example.com", PASSWORD).await.unwrap().access_token;

    let renamed = shell.run_with(&["tenant", "rename", &id, "--name", "Difference"], "").await.json();
    assert_eq!((&renamed["name"], &renamed["etag"]), (&"Difference".into(), &"\"2\"".into()));
    let seen = client.get_user(Some(&token), "").await.unwrap();
    assert_eq!(seen.user.unwrap().tenant.unwrap().name, "Difference");
    let empty = shell.run_with(&["tenant", "rename", &id, "--name", " "], "").await;
    assert!(empty.refused(64).contains("for '--name <NAME>': must not be empty"), "{empty:?}");

    shell.run(&format!("tenant delete {id}")).await.refused(64);
    assert_eq!(shell.run(&format!("tenant delete {id} --yes")).await.json(), renamed);
    let refused = client.get_user(Some(&token), "").await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    for command in [format!("show {id}"), format!("rename {id} --name x"), format!("delete {id} --yes")] {
        let gone = shell.run(&format!("tenant {command}")).await;
        assert_eq!(gone.refused(1), "identity: no such tenant\n");
    }

    // They outlive it.
    let events = events(&service.database, Some(&id)).await;
    let by_operator = events.iter().filter(|event| actor(event) == ("operator", Some(OPERATOR)));
    let actions: Vec<_> = by_operator.map(|event| event.action.as_str()).collect();
    assert_eq!(actions, ["tenant.created", "user.created", "tenant.updated", "tenant.deleted"]);
}
