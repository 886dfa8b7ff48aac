//! Password hashes that other programs made verify here.

use std::num::NonZeroUsize;

use identity::crypto::{Cost, HashError, Hasher, HasherSettings, Terms, Verdict};
use identity::domain::{Password, PasswordHash, PasswordScheme};

struct Vector {
    /// Which program made it, and what is special about it.
    name: String,
    password: String,
    hash: PasswordHash,
}

/// What `scripts/password-vectors` made.
fn vectors() -> Vec<Vector> {
    let rows: Vec<serde_json::Value> =
        serde_json::from_str(include_str!("../vectors/passwords.json")).unwrap();
    let text = |row: &serde_json::Value, name| row[name].as_str().unwrap().to_owned();
    rows.iter()
        .map(|row| Vector {
            name: format!("{}: {}: {}", text(row, "source"), text(row, "scheme"), text(row, "case")),
            password: text(row, "password"),
            hash: PasswordHash {
                scheme: PasswordScheme::from_name(&text(row, "scheme")).unwrap(),
                text: text(row, "hash"),
            },
        })
        .collect()
}

fn hasher(cost: u32) -> Hasher {
    Hasher::start(HasherSettings::new(Cost::new(cost).unwrap())).unwrap()
}

async fn hash(hasher: &Hasher, password: &Password) -> Result<PasswordHash, HashError> {
    hasher.reserve(&Terms::SYSTEM)?.hash(password).await
}

async fn verify(
    hasher: &Hasher,
    password: &Password,
    stored: Option<&PasswordHash>,
) -> Result<Verdict, HashError> {
    hasher.reserve(&Terms::SYSTEM)?.verify(password, stored).await
}

fn password(text: &str) -> Password {
    Password::new(text.to_owned()).unwrap()
}

#[tokio::test]
async fn every_hash_of_another_program_matches_its_password() {
    let hasher = hasher(4);
    for Vector { name, password: text, hash } in vectors() {
        let verdict = verify(&hasher, &password(&text), Some(&hash)).await;
        let fits = text.len() <= 72 && !text.contains('\0');
        let (scheme, start) = match fits {
            true => (PasswordScheme::Bcrypt, "$2b$04$"),
            false => (PasswordScheme::BcryptSha256, "$bcrypt-sha256$v=2,t=2b,r=4$"),
        };
        let outdated = hash.scheme != scheme || !hash.text.starts_with(start);
        assert_eq!(verdict, Ok(Verdict::Match { outdated }), "{name}");
    }
}

#[tokio::test]
async fn no_hash_of_another_program_matches_another_password() {
    let hasher = hasher(4);
    for Vector { name, password: text, hash } in vectors() {
        let before: String = text.chars().take(1023).collect();
        let before = password(&format!("~{}", &before[..before.floor_char_boundary(1023)]));
        let verdict = verify(&hasher, &before, Some(&hash)).await;
        assert_eq!(verdict, Ok(Verdict::Mismatch), "{name}");
        if hash.scheme != PasswordScheme::BcryptTruncated && text.len() < 1024 {
            let behind = verify(&hasher, &password(&format!("{text}~")), Some(&hash)).await;
            assert_eq!(behind, Ok(Verdict::Mismatch), "{name}");
        }
    }
}

#[tokio::test]
async fn a_hash_of_any_other_cost_is_outdated() {
    let hash = hash(&hasher(5), &password("correct horse")).await.unwrap();
    for (cost, outdated) in [(4, true), (5, false), (6, true)] {
        let verdict = verify(&hasher(cost), &password("correct horse"), Some(&hash)).await;
        assert_eq!(verdict, Ok(Verdict::Match { outdated }), "at cost {cost}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_many_callers_gets_the_answer_to_his_own_question() {
    let settings = HasherSettings {
        threads: NonZeroUsize::new(2).unwrap(),
        queue_capacity: 1000,
        ..HasherSettings::new(Cost::new(4).unwrap())
    };
    let hasher = Hasher::start(settings).unwrap();
    let callers: Vec<_> = (0..100)
        .map(|number| {
            let hasher = hasher.clone();
            tokio::spawn(async move {
                let (right, wrong) = (password(&format!("right {number}")), password("wrong"));
                if number % 5 == 0 {
                    // Asks and leaves.
                    let asked = hash(&hasher, &wrong);
                    let _ = tokio::time::timeout(std::time::Duration::ZERO, asked).await;
                }
                let hash = if number % 2 == 0 {
                    hash(&hasher, &right).await.unwrap()
                } else {
                    hasher.rehash(&right).await.unwrap()
                };
                let verdicts = tokio::join!(
                    verify(&hasher, &right, Some(&hash)),
                    verify(&hasher, &wrong, Some(&hash)),
                    verify(&hasher, &right, None),
                );
                let expected =
                    (Ok(Verdict::Match { outdated: false }), Ok(Verdict::Mismatch), Ok(Verdict::Mismatch));
                assert_eq!(verdicts, expected, "caller {number}");
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
}
