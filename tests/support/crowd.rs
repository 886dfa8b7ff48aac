//! Tenants with many users, written past the service.

use diesel::connection::SimpleConnection as _;
use diesel::{Connection as _, SqliteConnection};
use tokio::task::block_in_place;

use super::service::TestDatabase;

/// Users of the only tenant: `u1@example.com` and on, where the initial is `u`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crowd {
    pub(crate) initial: char,
    pub(crate) users: i64,
    /// How many microseconds after the tenant the first one was created; each of the others one later.
    pub(crate) after: i64,
}

impl TestDatabase {
    /// Adds members whose hash is `h`, so that nobody logs in as one of them.
    pub(crate) fn fill(&self, Crowd { initial, users, after }: Crowd) {
        let [numbers, id, later] = match &self.postgres {
            Some(_) => [
                format!("WITH n (i) AS (SELECT generate_series(1, {users}))"),
                "gen_random_uuid()".to_owned(),
                format!("t.created_at + (i + {after}) * interval '1 microsecond'"),
            ],
            None => [
                format!("WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {users})"),
                "randomblob(16)".to_owned(),
                format!("t.created_at + i + {after}"),
            ],
        };
        let sql = format!(
            "{numbers} INSERT INTO users (tenant_id, id, email, first_name, last_name, role, state, version,
                 created_at, updated_at)
             SELECT t.id, {id}, '{initial}' || i || '@example.com', 'A', 'B', 'member', 'active', 1,
                 {later}, {later}
             FROM tenants t CROSS JOIN n;
             INSERT INTO login_names (email_normalized, tenant_id, user_id)
             SELECT email, tenant_id, id FROM users WHERE email LIKE '{initial}%' AND role = 'member';
             INSERT INTO passwords (tenant_id, user_id, scheme, hash, changed_at)
             SELECT tenant_id, id, 'bcrypt', 'h', created_at FROM users
             WHERE email LIKE '{initial}%' AND role = 'member';"
        );
        block_in_place(|| match &self.postgres {
            Some(database) => drop(database.admin(&sql)),
            None => {
                let path = self.folder.path().join("identity.db");
                let mut connection = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
                connection.batch_execute("PRAGMA busy_timeout = 10000").unwrap();
                connection.batch_execute(&format!("BEGIN; {sql} COMMIT")).unwrap();
            }
        });
    }
}
