//! Vectors that others have made.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use bcrypt_lanes::{Cost, Hash, Key, Lanes, Outcome, Width, bcrypt};

/// Passwords and their hashes, from the tests of crypt_blowfish (Openwall, `wrapper.c`) and of
/// jBCrypt (OpenBSD), those aside that mark or defend against the sign-extension fault.
fn published() -> Vec<(Vec<u8>, &'static str)> {
    let long = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    let ignored = |kept: &[u8], rest: &str| [kept, rest.as_bytes()].concat();
    vec![
        (b"U*U".to_vec(), "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"),
        (b"U*U*".to_vec(), "$2a$05$CCCCCCCCCCCCCCCCCCCCC.VGOzA784oUp/Z0DY336zx7pLYAy0lwK"),
        (b"U*U*U".to_vec(), "$2a$05$XXXXXXXXXXXXXXXXXXXXXOAcXxm9kjPGEMsLznoKqmqw7tc8WCx4a"),
        (b"".to_vec(), "$2a$05$CCCCCCCCCCCCCCCCCCCCC.7uG0VCzI2bS7j6ymqJi9CdcdxiRTWNy"),
        (long.to_vec(), "$2a$05$abcdefghijklmnopqrstuu5s2v8.iXieOjg/.AySBTTZIIVFJeBui"),
        (
            ignored(long, "chars after 72 are ignored"),
            "$2a$05$abcdefghijklmnopqrstuu5s2v8.iXieOjg/.AySBTTZIIVFJeBui",
        ),
        (b"\xff\xff\xa3".to_vec(), "$2b$05$/OK.fbVrR/bpIqNJ5ianF.CE5elHaaO4EbggVDjb8P19RukzXSM3e"),
        (b"\xff\xff\xa3".to_vec(), "$2y$05$/OK.fbVrR/bpIqNJ5ianF.CE5elHaaO4EbggVDjb8P19RukzXSM3e"),
        (b"\xa3".to_vec(), "$2a$05$/OK.fbVrR/bpIqNJ5ianF.Sa7shbm4.OzKpvFnX1pQLmQW96oUlCq"),
        (b"\xa3".to_vec(), "$2b$05$/OK.fbVrR/bpIqNJ5ianF.Sa7shbm4.OzKpvFnX1pQLmQW96oUlCq"),
        (b"\xff\xa3345".to_vec(), "$2y$05$/OK.fbVrR/bpIqNJ5ianF.nRht2l/HRhr6zmCp9vYUvvsqynflf9e"),
        (b"\xa3ab".to_vec(), "$2a$05$/OK.fbVrR/bpIqNJ5ianF.6IflQkJytoRVc1yuaNtHfiuq.FRlSIS"),
        (
            ignored(&[0xaa; 72], "chars after 72 are ignored as usual"),
            "$2a$05$/OK.fbVrR/bpIqNJ5ianF.swQOIzjOiJ9GHEPuhEkvqrUyvWhEMx6",
        ),
        ([0xaa, 0x55].repeat(36), "$2a$05$/OK.fbVrR/bpIqNJ5ianF.R9xrDjiycxMbQE2bp.vgqlYpW5wx2yy"),
        ([0x55, 0xaa, 0xff].repeat(24), "$2a$05$/OK.fbVrR/bpIqNJ5ianF.9tQZzcJfm3uj2NvJ/n5xkhpqLrMpWCe"),
        (b"".to_vec(), "$2a$06$DCq7YPn5Rq63x1Lad4cll.TV4S6ytwfsfvkgY8jIucDrjc8deX1s."),
        (b"".to_vec(), "$2a$08$HqWuK6/Ng6sg9gQzbLrgb.Tl.ZHfXLhvt/SgVyWhQqgqcZ7ZuUtye"),
        (b"a".to_vec(), "$2a$06$m0CrhHm10qJ3lXRY.5zDGO3rS2KdeeWLuGmsfGlMfOxih58VYVfxe"),
        (b"abc".to_vec(), "$2a$06$If6bvum7DFjUnE9p2uDeDu0YHzrHM6tf.iqN8.yx.jNN1ILEf7h0i"),
        (
            b"abcdefghijklmnopqrstuvwxyz".to_vec(),
            "$2a$06$.rCVZVOThsIa97pEDOxvGuRRgzG64bvtJ0938xuqzv18d3ZpQhstC",
        ),
        (
            b"~!@#$%^&*()      ~!@#$%^&*()PNBFRD".to_vec(),
            "$2a$06$fPIsBO8qRqkjj273rfaOI.HtSV9jLDpTbZn782DC6/t7qT67P6FfO",
        ),
    ]
}

#[test]
fn every_published_hash_is_computed_alike() {
    for (password, text) in published() {
        let hash: Hash = text.parse().unwrap();
        assert_eq!(hash.to_string(), text);
        let digest = bcrypt(&Key::of_password(&password), &hash.salt, hash.cost);
        assert_eq!(Hash { digest, ..hash }.to_string(), text, "{password:?}");
    }
}

/// Of libxcrypt: see `libxcrypt/make.py`.
fn libxcrypt() -> Vec<(Vec<u8>, &'static str)> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    include_str!("libxcrypt/vectors.txt")
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(hex, hash)| (hex.trim_matches('-').as_bytes().chunks(2).map(byte).collect(), hash))
        .collect()
}

#[test]
fn libxcrypt_computes_the_same() {
    let vectors = libxcrypt();
    assert_eq!(vectors.len(), 270);
    for (password, text) in vectors {
        let hash: Hash = text.parse().unwrap();
        let digest = bcrypt(&Key::of_password(&password), &hash.salt, hash.cost);
        assert_eq!(Hash { digest, ..hash }.to_string(), text, "{password:?}");
    }
}

#[test]
fn all_published_hashes_verify_side_by_side_at_every_width() {
    for width in Width::all() {
        let mut lanes = Lanes::new(width);
        let mut waiting: Vec<_> = published().into_iter().enumerate().collect();
        let mut verified = Vec::new();
        while !(waiting.is_empty() && lanes.is_empty()) {
            while lanes.has_room()
                && let Some((index, (password, text))) = waiting.pop()
            {
                lanes.join(index, text.parse::<Hash>().unwrap().check(&password)).unwrap();
            }
            verified.extend(lanes.advance(7).finished);
        }
        verified.sort_by_key(|(index, _)| *index);
        let expected: Vec<_> = (0..published().len()).map(|index| (index, Outcome::Match)).collect();
        assert_eq!(verified, expected, "{width:?}");
    }
}

#[test]
fn what_is_no_hash_is_refused() {
    let good = "$2b$05$/OK.fbVrR/bpIqNJ5ianF.CE5elHaaO4EbggVDjb8P19RukzXSM3e";
    assert!(good.parse::<Hash>().is_ok());
    for bad in [
        String::new(),
        "password".to_owned(),
        good[1..].to_owned(),
        good.replace("$2b$", "$2x$"),
        good.replace("$2b$", "$2$"),
        good.replace("$05$", "$03$"),
        good.replace("$05$", "$32$"),
        good.replace("$05$", "$5$"),
        good.replace("$05$", "$+5$"),
        format!("{good}x"),
        format!("{good}$"),
        good[..59].to_owned(),
        format!("{}\u{e9}", &good[..58]),
        format!("{}!", &good[..59]),
    ] {
        assert!(bad.parse::<Hash>().is_err(), "{bad:?}");
    }
}

#[test]
fn bits_behind_the_last_byte_are_ignored_and_not_written() {
    let good = "$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";
    let other = good.replacen(".E5", "/E5", 1);
    assert_eq!(other.parse::<Hash>().unwrap().to_string(), good);
}

#[test]
fn a_key_is_one_to_seventy_two_bytes() {
    assert!(Key::cyclic(b"").is_none() && Key::cyclic(&[1; 73]).is_none());
    let key = Key::cyclic(b"abc").unwrap();
    assert_eq!(key.to_bytes()[..7], *b"abcabca");
    assert_eq!(Key::cyclic(&[7; 72]).unwrap().to_bytes()[..], [7; 72]);
    assert_eq!(Key::of_password(b"ab").to_bytes()[..], Key::cyclic(b"ab\0").unwrap().to_bytes()[..]);
    assert_eq!(Key::of_password(&[7; 100]).to_bytes()[..], [7; 72]);
}

#[test]
fn costs_and_widths_have_bounds() {
    assert_eq!([3, 4, 31, 32].map(|exponent| Cost::new(exponent).is_some()), [false, true, true, false]);
    assert_eq!([0, 1, 8, 9].map(|lanes| Width::new(lanes).is_some()), [false, true, true, false]);
    assert_eq!(Cost::MIN.expansions(), 33);
    assert_eq!(Cost::MAX.expansions(), (1 << 32) + 1);
}

#[test]
fn nothing_that_is_shown_tells_a_secret() {
    let hash: Hash = "$2b$05$/OK.fbVrR/bpIqNJ5ianF.CE5elHaaO4EbggVDjb8P19RukzXSM3e".parse().unwrap();
    let mut lanes = Lanes::new(Width::MIN);
    assert_eq!(format!("{:?}", Key::of_password(b"secret")), "Key(…)");
    assert_eq!(format!("{hash:?}"), "Hash { cost: 5, .. }");
    lanes.join((), hash.check(b"secret")).unwrap();
    assert_eq!(format!("{lanes:?}"), "Lanes { width: 1, in_flight: 1, .. }");
    assert_eq!(format!("{:?}", Outcome::Digest([1; 23])), "Digest(…)");
    assert_eq!(format!("{:?}", hash.check(b"secret")), "Job { cost: 5, .. }");
}
