//! The loop that everything else is built around: Blowfish's key expansion, for several states side
//! by side.
//!
//! One expansion is 521 encryptions in a chain, each of 16 rounds in a chain, and a round waits for
//! four look-ups in tables of 1 KiB. A core that computes one chain idles for most of that time; in
//! this loop it goes on with the other lanes' rounds meanwhile. Nothing here knows what a password is.
//!
//! What the shape of this file rests on (figures in the README):
//!
//! - The code is scalar on purpose. Vector gathers, which compilers like to form here, are three to
//!   eight times slower than scalar loads.
//! - The states live in two banks, even lanes in one and odd ones in the other, which reach the loop
//!   as two references. LLVM forms a gather only over addresses that it can trace to one object, and
//!   neighbouring lanes have none in common. `benches/gathers` checks what it makes of this.
//! - The subkeys and the tables are one array in the order in which an expansion replaces them, so
//!   that there is one loop and one copy of the code.

use zeroize::Zeroize;

use crate::pi::PI;

/// Most lanes that a kernel is made for. Eight states take 33 KiB, what the L1 data caches of servers
/// hold, and no processor tried was much faster with eight than with five.
pub(crate) const MAX_LANES: usize = 8;

/// Subkeys of Blowfish: one for each of the 16 rounds, and two for after the last.
const SUBKEYS: usize = 18;

/// Words of one of the four tables.
const TABLE: usize = 256;

/// Words of a state: 4,168 bytes.
pub(crate) const WORDS: usize = SUBKEYS + 4 * TABLE;

/// What is xored into the subkeys before an expansion.
pub(crate) type Subkeys = [u32; SUBKEYS];

/// One Blowfish state: the subkeys, then the four tables.
#[derive(Clone)]
#[repr(align(64))]
pub(crate) struct State([u32; WORDS]);

impl State {
    /// The state that bcrypt begins with.
    pub(crate) const INITIAL: Self = Self(PI);

    /// The state of no lane.
    pub(crate) const ERASED: Self = Self([0; WORDS]);

    /// Blowfish's round function.
    #[inline(always)]
    fn f(&self, x: u32) -> u32 {
        let table = |index: usize, byte: u8| self.0[SUBKEYS + index * TABLE + usize::from(byte)];
        let [d, c, b, a] = x.to_le_bytes();
        (table(0, a).wrapping_add(table(1, b)) ^ table(2, c)).wrapping_add(table(3, d))
    }
}

#[cfg(test)]
impl State {
    pub(crate) fn is_erased(&self) -> bool {
        self.0 == Self::ERASED.0
    }
}

#[cfg(test)]
impl Schedule {
    pub(crate) fn is_erased(&self) -> bool {
        self.words == [[0; SUBKEYS]; 2] && self.salt == [0; 4]
    }
}

impl Zeroize for State {
    fn zeroize(&mut self) {
        self.0.zeroize();
    }
}

/// Half of the states: lane `n` is number `n / 2` of the even or the odd bank.
pub(crate) type Bank = [State; MAX_LANES / 2];

/// What the next expansions of one lane mix in.
pub(crate) struct Schedule {
    /// The password and the salt, which take turns.
    words: [Subkeys; 2],
    /// Which of the two is next.
    turn: usize,
    /// The salt's four words, as the first expansion mixes them into what is encrypted.
    salt: [u32; 4],
}

impl Schedule {
    /// The schedule of a lane that begins, with the password's turn first.
    pub(crate) fn new(key: &Subkeys, salt: [u32; 4]) -> Self {
        let cycled = std::array::from_fn(|i| salt[i % 4]);
        Self { words: [*key, cycled], turn: 0, salt }
    }

    /// The schedule of no lane.
    pub(crate) const fn idle() -> Self {
        Self { words: [[0; SUBKEYS]; 2], turn: 0, salt: [0; 4] }
    }

    /// What comes after the first expansion: nothing is mixed into what is encrypted any more, and the
    /// password has its turn again.
    pub(crate) fn begin_rounds(&mut self) {
        self.salt = [0; 4];
        self.turn = 0;
    }
}

impl Zeroize for Schedule {
    fn zeroize(&mut self) {
        self.words.zeroize();
        self.salt.zeroize();
    }
}

/// Both banks at once.
pub(crate) struct Banks<'a> {
    pub(crate) even: &'a mut Bank,
    pub(crate) odd: &'a mut Bank,
}

impl Banks<'_> {
    /// Lane `n`'s state.
    #[inline(always)]
    pub(crate) fn lane(&self, n: usize) -> &State {
        if n.is_multiple_of(2) { &self.even[n / 2] } else { &self.odd[n / 2] }
    }

    /// Lane `n`'s state.
    #[inline(always)]
    pub(crate) fn lane_mut(&mut self, n: usize) -> &mut State {
        if n.is_multiple_of(2) { &mut self.even[n / 2] } else { &mut self.odd[n / 2] }
    }

    /// Exchanges the states of two lanes, without a copy of either left behind.
    pub(crate) fn swap(&mut self, a: usize, b: usize) {
        match (a % 2, b % 2) {
            (0, 0) => self.even.swap(a / 2, b / 2),
            (1, 1) => self.odd.swap(a / 2, b / 2),
            (0, _) => std::mem::swap(&mut self.even[a / 2], &mut self.odd[b / 2]),
            (_, _) => std::mem::swap(&mut self.odd[a / 2], &mut self.even[b / 2]),
        }
    }
}

/// Runs `count` expansions of each of the first `schedules.len()` lanes, 1 to [`MAX_LANES`].
///
/// With `SALTED`, lanes that begin mix their salt into what they encrypt; the others mix in zeros,
/// which changes nothing. It costs a little, so it is on only while a lane begins.
pub(crate) fn run<const SALTED: bool>(banks: &mut Banks<'_>, schedules: &mut [Schedule], count: u32) {
    macro_rules! dispatch {
        ($($lanes:literal)*) => {
            match schedules.len() {
                $($lanes => {
                    let schedules = schedules.first_chunk_mut().expect("the length was just looked at");
                    expand::<$lanes, SALTED>(banks.even, banks.odd, schedules, count);
                })*
                lanes => unreachable!("there is no kernel for {lanes} lanes"),
            }
        };
    }
    dispatch!(1 2 3 4 5 6 7 8);
}

/// The kernel for `N` lanes. Not to be inlined: in its caller the banks would be parts of one object.
#[inline(never)]
fn expand<const N: usize, const SALTED: bool>(
    even: &mut Bank,
    odd: &mut Bank,
    schedules: &mut [Schedule; N],
    count: u32,
) {
    let mut banks = Banks { even, odd };
    for _ in 0..count {
        for (n, schedule) in schedules.iter_mut().enumerate() {
            let words = &schedule.words[schedule.turn];
            schedule.turn ^= 1;
            for (subkey, word) in banks.lane_mut(n).0.iter_mut().zip(words) {
                *subkey ^= word;
            }
        }
        let (mut left, mut right) = ([0; N], [0; N]);
        for i in 0..WORDS / 2 {
            if SALTED {
                for n in 0..N {
                    left[n] ^= schedules[n].salt[2 * (i % 2)];
                    right[n] ^= schedules[n].salt[2 * (i % 2) + 1];
                }
            }
            encrypt(&banks, &mut left, &mut right);
            for n in 0..N {
                let state = banks.lane_mut(n);
                state.0[2 * i] = left[n];
                state.0[2 * i + 1] = right[n];
            }
        }
    }
}

/// Encrypts one block of each lane, in 16 rounds.
#[inline(always)]
fn encrypt<const N: usize>(banks: &Banks<'_>, left: &mut [u32; N], right: &mut [u32; N]) {
    for (n, left) in left.iter_mut().enumerate() {
        *left ^= banks.lane(n).0[0];
    }
    for quarter in 0..4 {
        two_rounds(banks, 4 * quarter, left, right);
        two_rounds(banks, 4 * quarter + 2, left, right);
    }
    for (n, right) in right.iter_mut().enumerate() {
        *right ^= banks.lane(n).0[SUBKEYS - 1];
    }
    std::mem::swap(left, right);
}

/// Two rounds of each lane, the first of them number `round`. A lane's two follow each other, which
/// needs fewer registers than taking turns after each; the processor finds the parallelism itself.
#[inline(always)]
fn two_rounds<const N: usize>(banks: &Banks<'_>, round: usize, left: &mut [u32; N], right: &mut [u32; N]) {
    for n in 0..N {
        let state = banks.lane(n);
        right[n] ^= state.0[round + 1] ^ state.f(left[n]);
        left[n] ^= state.0[round + 2] ^ state.f(right[n]);
    }
}

/// What bcrypt encrypts 64 times in the end.
const MAGIC: &[u8; 24] = b"OrpheanBeholderScryDoubt";

/// The 24 bytes that bcrypt makes of a state, whose three blocks are computed side by side.
pub(crate) fn finish(state: &State) -> [u8; 24] {
    let word = |i: usize| u32::from_be_bytes(std::array::from_fn(|byte| MAGIC[4 * i + byte]));
    let (mut left, mut right) = ([0, 2, 4].map(word), [1, 3, 5].map(word));
    for _ in 0..64 {
        left = left.map(|left| left ^ state.0[0]);
        for round in (0..16).step_by(2) {
            for n in 0..3 {
                right[n] ^= state.0[round + 1] ^ state.f(left[n]);
                left[n] ^= state.0[round + 2] ^ state.f(right[n]);
            }
        }
        right = right.map(|right| right ^ state.0[SUBKEYS - 1]);
        std::mem::swap(&mut left, &mut right);
    }
    let mut output = [0; 24];
    for (bytes, words) in output.chunks_exact_mut(8).zip(left.iter().zip(&right)) {
        bytes[..4].copy_from_slice(&words.0.to_be_bytes());
        bytes[4..].copy_from_slice(&words.1.to_be_bytes());
    }
    output
}
