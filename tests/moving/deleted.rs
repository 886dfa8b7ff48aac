//! A tenant that is deleted while its rows are still there: operators see nothing of it, and move in what it had.

use crate::fixture::{Place, file, rows, tenant, tenant_id, user, user_id, with};
use crate::support::service::{Engine, on_both_databases};

on_both_databases!(
    no_command_sees_anything_of_a_deleted_tenant,
    what_a_deleted_tenant_had_is_imported_again_at_once,
    what_a_deleted_tenant_had_is_imported_by_others_at_once,
);

/// More users than one transaction removes.
const USERS: usize = 600;

/// Two tenants, of whom the first is deleted. No server runs that could remove its rows.
async fn with_a_deleted_tenant(engine: Engine) -> (Place, String) {
    let place = Place::new(engine).await;
    let mut lines = vec![tenant(1), tenant(2), user(USERS + 1, 2)];
    lines.extend((0..USERS).map(|n| user(n, 1)));
    place.import_lines(&lines).await.ok();
    let export = place.export().await;
    let deletion = "UPDATE tenants SET deleted_at = updated_at WHERE name = 'Tenant 1'";
    place.outside().await.run(deletion).await;
    (place, export)
}

async fn no_command_sees_anything_of_a_deleted_tenant(engine: Engine) {
    let (place, export) = with_a_deleted_tenant(engine).await;
    let (id, email) = (tenant_id(1), "user1@example.com");
    let left: Vec<_> = rows(&export).into_iter().filter(|line| !line.contains(&id)).collect();
    assert_eq!(rows(&place.export().await), left);
    assert!(left.len() == 2 && place.outside().await.count("users").await == USERS + 1);
    let listed = place.run(&["tenant", "list"]).await.ok();
    assert!(!listed.contains(&id) && listed.contains(&tenant_id(2)), "{listed}");
    for arguments in [
        &["tenant", "show", &id][..],
        &["tenant", "rename", &id, "--name", "x"],
        &["tenant", "delete", &id, "--yes"],
        &["user", "list", "--tenant", &id],
        &["user", "show", email],
        &["user", "show", &user_id(1)],
        &["user", "show", &user_id(1), "--tenant", &id],
        &["user", "disable", email],
        &["user", "revoke-sessions", email],
        &["user", "delete", email, "--yes"],
    ] {
        let run = place.run(arguments).await;
        assert_eq!(run.code, Some(1), "{arguments:?} {run:?}");
        assert!(run.err.contains("no such"), "{arguments:?} {run:?}");
    }
}

async fn what_a_deleted_tenant_had_is_imported_again_at_once(engine: Engine) {
    let (place, export) = with_a_deleted_tenant(engine).await;
    // A dry run tells the same and writes nothing.
    let dry = place.run_with(&["import", "jsonl", "-", "--dry-run"], &export).await.ok();
    assert!(dry.contains(&format!("users: {USERS} would go in, 1 there already")), "{dry}");
    let printed = place.run_with(&["import", "jsonl", "-"], &export).await.ok();
    assert!(printed.contains(&format!("users: {USERS} imported, 1 there already")), "{printed}");
    assert_eq!(place.export().await, export);
    let mut outside = place.outside().await;
    for table in ["users", "login_names", "passwords"] {
        assert_eq!(outside.count(table).await, USERS + 1, "{table}");
    }
    let erased = "SELECT changes AS cell FROM audit_events WHERE action = 'tenant.erased'";
    let told = outside.texts(erased).await;
    assert!(told.len() == 1 && told[0].contains(&format!("\"{USERS}\"")), "{told:?}");
}

async fn what_a_deleted_tenant_had_is_imported_by_others_at_once(engine: Engine) {
    let (place, _) = with_a_deleted_tenant(engine).await;
    // Its e-mails, and its users' ids, in tenants that are there, and that come.
    let lines: Vec<_> = [tenant(3)]
        .into_iter()
        .chain((0..USERS).map(|n| {
            let of = if n % 2 == 0 { 2 } else { 3 };
            with(user(n, of), "first_name", "Grace")
        }))
        .collect();
    let printed = place.run_with(&["import", "jsonl", "-"], &file(&lines)).await.ok();
    assert!(printed.contains(&format!("users: {USERS} imported")), "{printed}");
    let mut outside = place.outside().await;
    assert_eq!(outside.count("users").await, USERS * 2 + 1, "nothing of the deleted tenant is removed yet");
    assert_eq!(outside.count("login_names").await, USERS + 1);
    let shown = place.run(&["user", "show", "user1@example.com"]).await.ok();
    assert!(shown.contains("Grace") && shown.contains(&tenant_id(3)), "{shown}");
    // A user of a tenant that is not there is refused.
    let orphan = with(user(USERS + 2, 1), "email", "orphan@example.com");
    let printed = place.run_with(&["import", "jsonl", "-"], &file(&[orphan])).await.ok();
    assert!(printed.contains("users: 0 imported"), "{printed}");
    assert_eq!(place.refused(), [(2, "user".to_owned(), "unknown_tenant".to_owned())]);
}
