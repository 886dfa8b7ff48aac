//! A tenant of many users, as JSON lines for `identity import jsonl`: far faster than by calls.

use std::io::{self, BufWriter, Write};

use crate::users::LARGE;

/// [`crate::users::PASSWORD`] by bcrypt, at a cost at which it takes no time: those who log in are few.
const PASSWORD_HASH: &str = "$2b$04$loadloadloadloadloadluLb2Rz1q4.VjwQ.DdVK8DwZVB5.nfhT6";

/// The hash of a password that nobody knows.
const UNKNOWN_HASH: &str = "$2b$04$abcdefghijklmnopqrstuuvTk.XNgvfQYFxTE7fHvlDa3t6ElX8da";

/// Writes the tenant with an owner, a member and `users` members `u0@large.example` and so on, who have
/// passwords that nobody knows.
pub(crate) fn write(users: u32, out: impl Write) -> io::Result<()> {
    let mut out = BufWriter::new(out);
    writeln!(out, r#"{{"type":"identity-export","version":1}}"#)?;
    let created = created(0);
    writeln!(
        out,
        r#"{{"type":"tenant","id":"{LARGE}","name":"Large","created_at":"{created}","updated_at":"{created}"}}"#
    )?;
    user(&mut out, "owner", "owner", PASSWORD_HASH, 0)?;
    user(&mut out, "member", "member", PASSWORD_HASH, 0)?;
    for index in 0..users {
        user(&mut out, &format!("u{index}"), "member", UNKNOWN_HASH, index)?;
    }
    writeln!(out, r#"{{"type":"identity-export-end","rows":{}}}"#, u64::from(users) + 3)?;
    out.flush()
}

fn user(out: &mut impl Write, name: &str, role: &str, hash: &str, index: u32) -> io::Result<()> {
    let created = created(index);
    writeln!(
        out,
        concat!(
            r#"{{"type":"user","id":"{LARGE}-{name}","tenant_id":"{LARGE}","email":"{name}@{LARGE}.example","#,
            r#""first_name":"Load","last_name":"{name}","role":"{role}","#,
            r#""created_at":"{created}","updated_at":"{created}","password_hash":"{hash}"}}"#,
        ),
        LARGE = LARGE,
        name = name,
        role = role,
        created = created,
        hash = hash,
    )
}

/// When the user with that number was created: each a second after the one before, for up to 31 days.
fn created(index: u32) -> String {
    let (minutes, second) = (index / 60, index % 60);
    let (hours, minute) = (minutes / 60, minutes % 60);
    let (days, hour) = (hours / 24, hours % 24);
    format!("2024-01-{:02}T{hour:02}:{minute:02}:{second:02}Z", days + 1)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::users::PASSWORD;

    #[test]
    fn the_hash_is_that_of_the_password_and_the_other_one_is_none_of_it() {
        let mut out = Vec::new();
        write(1, &mut out).unwrap();
        let hashes: Vec<_> = String::from_utf8(out)
            .unwrap()
            .lines()
            .filter_map(|line| {
                serde_json::from_str::<Value>(line).unwrap()["password_hash"].as_str().map(str::to_owned)
            })
            .collect();
        let matching: Vec<_> = hashes.iter().map(|hash| bcrypt::verify(PASSWORD, hash).unwrap()).collect();
        assert_eq!(matching, [true, true, false]);
    }

    #[test]
    fn a_file_is_its_tenant_two_users_with_passwords_and_as_many_as_are_wanted() {
        let mut out = Vec::new();
        write(3, &mut out).unwrap();
        let lines: Vec<Value> =
            String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2 + 2 + 3 + 1);
        assert_eq!((&lines[0]["version"], &lines[1]["id"]), (&Value::from(1), &Value::from(LARGE)));
        assert_eq!(lines[2]["role"], "owner");
        assert_eq!(lines[6]["email"], "u2@large.example");
        assert_eq!(lines[7]["rows"], 1 + 2 + 3);
        assert!(lines[2..7].iter().all(|line| line["tenant_id"] == LARGE));
    }

    #[test]
    fn users_are_created_a_second_after_each_other() {
        assert_eq!(created(0), "2024-01-01T00:00:00Z");
        assert_eq!(created(86_399), "2024-01-01T23:59:59Z");
        assert_eq!(created(1_000_000), "2024-01-12T13:46:40Z");
    }
}
