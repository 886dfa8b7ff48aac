//! Which folder may know which: reads the paths in the sources, and fails on one that points the
//! wrong way. What only tests use is left aside.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::fs;
use std::path::Path;

/// A folder or file of `src/`, and which of its siblings it may use; with `::`, only that part of one.
const SIBLINGS: [(&str, &[&str]); 13] = [
    ("domain", &[]),
    ("budget", &["domain"]),
    ("telemetry", &[]),
    ("proto", &[]),
    ("crypto", &["domain", "telemetry::durations", "telemetry::metrics"]),
    ("storage", &["budget", "domain"]),
    ("service", &["budget", "domain", "crypto", "storage", "telemetry::metrics"]),
    ("rpc", &["domain", "service", "proto"]),
    // The settings are of the types that they are used as, and the files that they name are checked by
    // those who read them.
    (
        "config",
        &[
            "budget::Rate",
            "domain",
            "service::ChangeRules",
            "service::OpenTo",
            "service::RegistrationRules",
            "service::SessionRules",
            "service::keys::Propagation",
            "storage::LaneSizes",
            "storage::StorageSettings",
            "storage::url",
            "storage::postgres::Connector",
            "crypto::MasterKey",
            "crypto::KeyAlgorithm",
            "crypto::MasterKeyError",
            "crypto::access_token::TokenSettings",
            "crypto::hasher::Cost",
            "crypto::hasher::HashEngine",
            "crypto::tls",
            "telemetry",
        ],
    ),
    (
        "server",
        &[
            "budget",
            "config",
            "domain",
            "crypto",
            "storage",
            "service",
            "rpc",
            "proto",
            "telemetry::durations",
            "telemetry::lines",
            "telemetry::metrics",
        ],
    ),
    (
        "cli",
        &[
            "config",
            "domain",
            "crypto::Cost",
            "crypto::MasterKey",
            "crypto::calibration",
            // A password that an operator gives somebody is hashed without a server.
            "crypto::hasher",
            "service::access",
            "service::service_tokens",
            // What an operator does to keys, users, tenants and events needs no server, and is what the server
            // does for others.
            "service::Authority",
            "service::ServiceError",
            "service::audit",
            "service::directory::changes",
            "service::directory::find_tenants",
            "service::directory::pieces",
            "service::directory::user_search",
            "service::keys",
            "service::moving",
            "service::removal",
            "storage",
            "server",
            "telemetry",
        ],
    ),
    ("main", &[]),
    ("lib", &[]),
];

/// Crates, or parts of one, that only some of `src/` may use.
const CRATES: [(&str, &[&str]); 19] = [
    ("bcrypt", &["crypto"]),
    ("bcrypt_lanes", &["crypto"]),
    ("thread_priority", &["crypto"]),
    ("jsonwebtoken", &["crypto"]),
    ("bb8", &["storage"]),
    ("diesel", &["storage"]),
    ("diesel_async", &["storage"]),
    ("diesel_migrations", &["storage"]),
    ("libsqlite3_sys", &["storage"]),
    ("tokio_postgres", &["storage"]),
    ("tokio_postgres_rustls", &["storage"]),
    ("prost", &["proto", "rpc", "server"]),
    ("tonic", &["proto", "rpc", "server"]),
    ("tonic_health", &["server"]),
    ("tonic_prost", &["proto", "rpc"]),
    ("tonic_reflection", &["server"]),
    ("tonic_types", &["rpc", "server"]),
    ("tokio", &["budget", "cli", "crypto", "rpc", "server", "service", "storage"]),
    ("std::env", &["config", "main"]),
];

#[test]
fn every_arrow_between_folders_points_the_right_way() {
    let mut wrong = Vec::new();
    let mut files = 0;
    visit(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), &mut |path, source| {
        files += 1;
        wrong.extend(wrong_paths(path, source).into_iter().map(|path_in| format!("{path}: {path_in}")));
    });
    assert!(files > 50, "only {files} files were found");
    assert!(wrong.is_empty(), "not allowed, see tests/architecture.rs:\n  {}", wrong.join("\n  "));
}

/// Calls `each` with every source file: its path below `folder`, and its text.
fn visit(folder: &Path, each: &mut impl FnMut(&str, &str)) {
    fn walk(root: &Path, folder: &Path, each: &mut impl FnMut(&str, &str)) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(root, &path, each);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                each(path.strip_prefix(root).unwrap().to_str().unwrap(), &fs::read_to_string(&path).unwrap());
            }
        }
    }
    walk(folder, folder, each);
}

/// The paths in a source file that the tables forbid.
fn wrong_paths(file: &str, source: &str) -> Vec<String> {
    if file.ends_with("tests.rs") {
        return Vec::new();
    }
    let owner = file.split(['/', '.']).next().unwrap();
    let Some((_, siblings)) = SIBLINGS.iter().find(|(name, _)| *name == owner) else {
        return vec![format!("{owner} is in no table")];
    };
    let covers = |allowed: &str, path: &str| path == allowed || path.starts_with(&format!("{allowed}::"));
    let may_use = |path: &String| match path.strip_prefix("crate::") {
        Some(path) => {
            let is_sibling = SIBLINGS.iter().any(|(name, _)| covers(name, path));
            !is_sibling || covers(owner, path) || siblings.iter().any(|allowed| covers(allowed, path))
        }
        None => {
            let limited = CRATES.iter().find(|(name, _)| covers(name, path));
            limited.is_none_or(|(_, users)| users.contains(&owner))
        }
    };
    let depth = file.trim_end_matches(".rs").trim_end_matches("/mod").split('/').count();
    let mut wrong: Vec<_> = paths(source, depth).into_iter().filter(|path| !may_use(path)).collect();
    wrong.dedup();
    wrong
}

/// Every path in a source, groups in braces taken apart, from the crate's root where it leads there.
/// `depth` is how many modules deep the source is.
fn paths(source: &str, depth: usize) -> Vec<String> {
    let tokens = without_tests(&tokens(source));
    let mut paths = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        at = if is_name(&tokens[at]) { read_path(&tokens, at, "", depth, &mut paths) } else { at + 1 };
    }
    paths
}

/// Reads the path that starts at `at`, below `prefix`; returns where it ends.
fn read_path(tokens: &[String], mut at: usize, prefix: &str, depth: usize, paths: &mut Vec<String>) -> usize {
    let mut path = prefix.to_owned();
    loop {
        match tokens.get(at).map(String::as_str) {
            Some("{") if path.ends_with("::") => {
                at += 1;
                while at < tokens.len() && tokens[at] != "}" {
                    at = match tokens[at].as_str() {
                        // The name behind it is no path.
                        "as" => at + 2,
                        part if is_name(part) => read_path(tokens, at, &path, depth, paths),
                        _ => at + 1,
                    };
                }
                return at + 1;
            }
            Some(token) if is_name(token) => {
                path.push_str(token);
                at += 1;
            }
            _ => {}
        }
        if tokens.get(at).map(String::as_str) != Some("::") {
            break;
        }
        path.push_str("::");
        at += 1;
        if !tokens.get(at).is_some_and(|next| is_name(next) || next == "{") {
            break;
        }
    }
    let path = path.trim_end_matches("::");
    // One `super` a module leads to the root.
    let supers = "super::".repeat(depth);
    paths.push(match path.strip_prefix(&supers) {
        Some(rest) if depth > 0 => format!("crate::{rest}"),
        _ => path.to_owned(),
    });
    at
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Names, `::` and single signs; no comments, no texts.
fn tokens(source: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(length) = text_length(rest) {
            length
        } else if first.is_alphabetic() || first == '_' {
            let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            tokens.push(rest[..length].to_owned());
            length
        } else if rest.starts_with("::") {
            tokens.push("::".to_owned());
            2
        } else {
            if !first.is_whitespace() {
                tokens.push(first.to_string());
            }
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    tokens
}

/// How long the text or character is that `rest` starts with, if it does.
fn text_length(rest: &str) -> Option<usize> {
    if let Some(raw) = rest.strip_prefix(['b', 'c']).unwrap_or(rest).strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let start = rest.len() - raw.len() + hashes + 1;
            let end = format!("\"{}", "#".repeat(hashes));
            return rest[start..].find(&end).map(|length| start + length + end.len());
        }
    }
    let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    // A lifetime has no quote at its end.
    if quote == '\'' && !rest.starts_with("'\\") && rest.chars().nth(2) != Some('\'') {
        return None;
    }
    let mut escaped = false;
    let end = rest.char_indices().skip(1).find(|(_, c)| {
        let ends = *c == quote && !escaped;
        escaped = *c == '\\' && !escaped;
        ends
    });
    end.map(|(at, _)| at + 1)
}

/// Without what follows `#[cfg(test)]`: a module or another item in braces, or one that ends in `;`.
fn without_tests(tokens: &[String]) -> Vec<String> {
    let marker = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if !tokens[at..].iter().map(String::as_str).take(marker.len()).eq(marker) {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        let mut open = 0;
        for token in &tokens[at..] {
            at += 1;
            match token.as_str() {
                "{" => open += 1,
                "}" => open -= 1,
                _ => {}
            }
            if open == 0 && matches!(token.as_str(), "}" | ";") {
                break;
            }
        }
    }
    kept
}

#[test]
fn paths_are_read_from_code_and_from_nothing_else() {
    let source = r##"
        //! Not [`crate::storage`].
        use crate::domain::{self, Email as Mail, text::{Text, NAME}};
        use super::super::crypto;
        use std::{env, fmt};
        /* nor crate::rpc */
        pub(crate) fn f<'a>(x: &'a diesel::Row) -> char {
            let text = "crate::server // \" diesel::x"; let raw = r#"crate::cli " "#;
            let quote = '"'; let other = '\''; tokio::spawn(async {}); <u8 as bcrypt::Hash>::x();
        }
        #[cfg(test)]
        mod tests { use crate::proto; fn f() { if true { crate::rpc::x() } } }
        #[cfg(test)]
        use crate::proto;
        fn after() -> tonic::Status { crate::telemetry::x() }
    "##;
    let paths = paths(source, 2);
    let read: Vec<_> = paths.iter().filter(|path| path.contains("::")).map(String::as_str).collect();
    assert_eq!(
        read,
        [
            "crate::domain::self",
            "crate::domain::Email",
            "crate::domain::text::Text",
            "crate::domain::text::NAME",
            "crate::crypto",
            "std::env",
            "std::fmt",
            "diesel::Row",
            "tokio::spawn",
            "bcrypt::Hash",
            "tonic::Status",
            "crate::telemetry::x",
        ]
    );
}

#[test]
fn an_arrow_the_wrong_way_is_found() {
    for (file, source, wrong) in [
        ("domain/user.rs", "use crate::storage::Tx;", "crate::storage::Tx"),
        ("domain/user.rs", "use super::super::storage;", "crate::storage"),
        ("domain/user.rs", "async fn f() { tokio::task::yield_now().await }", "tokio::task::yield_now"),
        ("domain/mod.rs", "use super::crypto::random;", "crate::crypto::random"),
        ("crypto/hasher/mod.rs", "use crate::{domain::Email, service::Service};", "crate::service::Service"),
        ("storage/users.rs", "fn f() -> tonic::Status { todo!() }", "tonic::Status"),
        ("service/users.rs", "use diesel::prelude::*;", "diesel::prelude"),
        ("service/users.rs", "fn f(_: crate::proto::v1::User) {}", "crate::proto::v1::User"),
        ("rpc/status.rs", "use crate::storage::StorageError;", "crate::storage::StorageError"),
        ("rpc/status.rs", "use jsonwebtoken as jwt;", "jsonwebtoken"),
        ("config/mod.rs", "use crate::storage::Storage;", "crate::storage::Storage"),
        ("server/run.rs", "fn f() { let _ = std::env::var_os(\"X\"); }", "std::env::var_os"),
        ("server/run.rs", "use std::{env, fmt};", "std::env"),
        ("novel/mod.rs", "", "novel is in no table"),
    ] {
        assert_eq!(wrong_paths(file, source), [wrong], "{file}: {source}");
    }
    for (file, source) in [
        ("domain/user.rs", "use super::email::Email; use crate::domain::Role;"),
        ("service/users.rs", "use crate::storage::{self, users}; use super::caller::Caller;"),
        ("config/settings.rs", "use crate::storage::url::DatabaseUrl;"),
        ("main.rs", "fn main() { std::env::args_os(); }"),
        ("service/access.rs", "#[cfg(test)] mod tests { use crate::proto::DESCRIPTOR_SET; }"),
        ("config/settings/tests.rs", "use crate::storage::Storage;"),
    ] {
        assert_eq!(wrong_paths(file, source), Vec::<String>::new(), "{file}: {source}");
    }
}
