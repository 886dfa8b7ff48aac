//! Random bytes.

/// `N` bytes from the operating system's generator, by way of AWS-LC's.
pub(super) fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fill(&mut bytes);
    bytes
}

/// Fills `bytes` as [`bytes`] does, in place, so that no copy stays behind.
pub(super) fn fill(bytes: &mut [u8]) {
    aws_lc_rs::rand::fill(bytes).expect("the operating system always has random bytes once it is up");
}
