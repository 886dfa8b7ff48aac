//! What a check of a password finds, and what work it takes.

use super::*;

#[tokio::test]
async fn a_password_that_bcrypt_would_not_see_whole_is_digested_first() {
    let bench = Bench::new(1, 4);
    bench.permit(100);
    for (text, scheme) in [
        ("x".repeat(72), PasswordScheme::Bcrypt),
        ("x".repeat(73), PasswordScheme::BcryptSha256),
        ("x".repeat(1024), PasswordScheme::BcryptSha256),
        ("a\0a".to_owned(), PasswordScheme::BcryptSha256),
    ] {
        let hash = hash_on(&bench.hasher, &password(&text), &ANY).await.unwrap();
        let prefix =
            if scheme == PasswordScheme::Bcrypt { "$2b$04$" } else { "$bcrypt-sha256$v=2,t=2b,r=4$" };
        assert_eq!((hash.scheme, hash.text.starts_with(prefix)), (scheme, true), "{text:?}");
        let again = hash_on(&bench.hasher, &password(&text), &ANY).await.unwrap();
        assert_ne!(again, hash, "every hash has a salt of its own");
        let verdict = verify_on(&bench.hasher, &password(&text), Some(&hash), &ANY).await;
        assert_eq!(verdict, Ok(Verdict::Match { outdated: false }), "{text:?}");
        let verdict = verify_on(&bench.hasher, &password(&text[..1]), Some(&hash), &ANY).await;
        assert_eq!(verdict, Ok(Verdict::Mismatch), "{text:?}");
    }
}

#[tokio::test]
async fn nobody_costs_one_hash_at_the_configured_cost() {
    let bench = Bench::new(1, 6);
    bench.permit(1);
    assert_eq!(verify_on(&bench.hasher, &password("pw"), None, &ANY).await, Ok(Verdict::Mismatch));
    assert_eq!(bench.all_seen(), [(b'd', 6)]);
}

#[tokio::test]
async fn a_failed_check_of_a_cheap_hash_is_topped_up_and_a_match_is_not() {
    let (bench, hash) = (Bench::new(1, 7), stored("pw", PasswordScheme::Bcrypt).await);
    bench.permit(100);
    let work = |exponent| bcrypt_lanes::Cost::new(exponent).unwrap().expansions();
    assert_eq!(verify_on(&bench.hasher, &password("no"), Some(&hash), &ANY).await, Ok(Verdict::Mismatch));
    assert_eq!((bench.all_seen(), bench.worked.recv()), (vec![(b'n', 4)], Ok(work(7))));

    let verdict = verify_on(&bench.hasher, &password("pw"), Some(&hash), &ANY).await;
    assert_eq!(verdict, Ok(Verdict::Match { outdated: true }));
    assert_eq!((bench.all_seen(), bench.worked.recv()), (vec![(b'p', 4)], Ok(work(4))));
}

#[tokio::test]
async fn every_refusal_costs_as_much_as_one_of_the_dearest_stored_hash() {
    let (bench, cheap) = (Bench::new(1, 5), stored("pw", PasswordScheme::Bcrypt).await);
    let dear = PasswordHash { text: cheap.text.replace("$04$", "$06$"), ..cheap.clone() };
    bench.permit(100);
    let work = |exponent| bcrypt_lanes::Cost::new(exponent).unwrap().expansions();
    for (dearest, floor) in [(4, 5), (6, 6), (7, 7), (16, 7), (5, 5)] {
        bench.hasher.set_floor(Cost::new(dearest).unwrap());
        assert_eq!(bench.hasher.floor().get(), floor);
        for stored in [None, Some(&cheap), Some(&dear)] {
            let verdict = verify_on(&bench.hasher, &password("no"), stored, &ANY).await;
            assert_eq!(verdict, Ok(Verdict::Mismatch));
            let least = if stored == Some(&dear) { floor.max(6) } else { floor };
            assert_eq!(bench.worked.recv(), Ok(work(least)), "{dearest}");
        }
    }
    // New hashes and right passwords cost what they cost before.
    bench.hasher.set_floor(Cost::new(7).unwrap());
    let hash = hash_on(&bench.hasher, &password("pw"), &ANY).await.unwrap();
    assert_eq!((hash.text.starts_with("$2b$05$"), bench.worked.recv()), (true, Ok(work(5))));
    let verdict = verify_on(&bench.hasher, &password("pw"), Some(&hash), &ANY).await;
    assert_eq!((verdict, bench.worked.recv()), (Ok(Verdict::Match { outdated: false }), Ok(work(5))));
}

#[tokio::test]
async fn what_the_scheme_would_have_cut_off_never_matches_and_costs_the_same() {
    let text = "x".repeat(72);
    let (bench, hash) = (Bench::new(1, 5), stored(&text, PasswordScheme::Bcrypt).await);
    bench.permit(100);
    for longer in [format!("{text}y"), "x\0x".to_owned()] {
        let verdict = verify_on(&bench.hasher, &password(&longer), Some(&hash), &ANY).await;
        assert_eq!(verdict, Ok(Verdict::Mismatch));
        assert_eq!(bench.all_seen(), [(b'x', 4)]);
        assert_eq!(bench.worked.recv(), Ok(bcrypt_lanes::Cost::new(5).unwrap().expansions()));
    }
    let truncated = PasswordHash { scheme: PasswordScheme::BcryptTruncated, ..hash };
    let verdict = verify_on(&bench.hasher, &password(&format!("{text}y")), Some(&truncated), &ANY).await;
    assert_eq!(verdict, Ok(Verdict::Match { outdated: true }));
}

#[tokio::test]
async fn a_stored_hash_that_makes_no_sense_is_unreadable_at_once() {
    let bench = Bench::new(1, 4);
    let good = stored("pw", PasswordScheme::Bcrypt).await.text;
    let digested = stored(&"x".repeat(73), PasswordScheme::BcryptSha256).await.text;
    for (scheme, text) in [
        (PasswordScheme::Bcrypt, String::new()),
        (PasswordScheme::Bcrypt, "password".to_owned()),
        (PasswordScheme::Bcrypt, good.replace("$2b$", "$2x$")),
        (PasswordScheme::Bcrypt, good.replace("$04$", "$03$")),
        (PasswordScheme::Bcrypt, good.replace("$04$", "$17$")),
        (PasswordScheme::Bcrypt, good.replace("$04$", "$31$")),
        (PasswordScheme::Bcrypt, good.replace("$04$", "$+4$")),
        (PasswordScheme::Bcrypt, good.replace("$04$", "$4$")),
        (PasswordScheme::Bcrypt, format!("{good}x")),
        (PasswordScheme::Bcrypt, format!("{good}$")),
        (PasswordScheme::Bcrypt, good[..59].to_owned()),
        (PasswordScheme::Bcrypt, format!("{}\u{e9}", &good[..58])),
        (PasswordScheme::Bcrypt, format!("{}!", &good[..59])),
        (PasswordScheme::Bcrypt, digested.clone()),
        (PasswordScheme::BcryptTruncated, digested.clone()),
        (PasswordScheme::BcryptSha256, good.clone()),
        (PasswordScheme::BcryptSha256, digested.replace("r=4", "r=17")),
        (PasswordScheme::BcryptSha256, digested.replace("r=4", "r=")),
        (PasswordScheme::BcryptSha256, digested.replace("v=2", "v=1")),
        (PasswordScheme::BcryptSha256, format!("{digested}$")),
    ] {
        let hash = PasswordHash { scheme, text };
        let verdict = verify_on(&bench.hasher, &password("pw"), Some(&hash), &ANY).await;
        assert_eq!(verdict, Err(HashError::Unreadable), "{}", hash.text);
    }
    assert_eq!(bench.all_seen(), []);
}
