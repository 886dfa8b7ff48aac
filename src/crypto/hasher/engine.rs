//! What computes bcrypt. The one thing to replace in order to compute it faster.

use bcrypt_lanes::{Cost, Digest, Goal, Job, Key, Lanes, Measurement, Outcome, Width, same};

use super::pace::Ideal;

/// Computes bcrypt on the thread that calls it, in slices. Every worker has an engine of its own. `T`
/// is what its owner knows a job by.
pub(super) trait Engine<T>: Send + 'static {
    /// The most jobs in flight.
    fn width(&self) -> usize;

    /// Jobs in flight.
    fn in_flight(&self) -> usize;

    /// Takes a job in. For use only while fewer are in flight than the width.
    fn join(&mut self, tag: T, job: Job);

    /// Goes on with all jobs in flight, by `expansions` each if that can be chosen.
    fn advance(&mut self, expansions: u32) -> Slice<T>;

    /// Drops the jobs whose tag satisfies `is_gone`, and returns how many those were.
    fn abandon_if(&mut self, is_gone: impl FnMut(&T) -> bool) -> usize;

    /// The most work that is still to be done, in expansions.
    fn expansions_left(&self) -> u64;
}

/// What an engine did in one call.
pub(super) struct Slice<T> {
    /// How many jobs were in flight.
    pub(super) lanes: usize,
    /// By how many expansions each of them was advanced.
    pub(super) expansions: u64,
    /// The jobs that are done.
    pub(super) finished: Vec<(T, Outcome)>,
}

impl<T: Send + 'static> Engine<T> for Lanes<T> {
    fn width(&self) -> usize {
        self.width().get()
    }

    fn in_flight(&self) -> usize {
        self.len()
    }

    fn join(&mut self, tag: T, job: Job) {
        if self.join(tag, job).is_err() {
            unreachable!("a worker takes a job only when it has a lane for it");
        }
    }

    fn advance(&mut self, expansions: u32) -> Slice<T> {
        let advance = self.advance(expansions);
        Slice { lanes: advance.lanes, expansions: u64::from(advance.expansions), finished: advance.finished }
    }

    fn abandon_if(&mut self, is_gone: impl FnMut(&T) -> bool) -> usize {
        self.abandon_if(is_gone)
    }

    fn expansions_left(&self) -> u64 {
        self.expansions_left()
    }
}

/// The ideal pace of [`Lanes`], and the width to use them at unless one is given.
pub(super) fn measure_lanes(width: Option<Width>) -> (Width, Ideal) {
    let measured = Measurement::quick();
    let width = width.unwrap_or_else(|| measured.best_width());
    let up_to = Width::all().take(width.get());
    (width, Ideal::new(up_to.map(|lanes| measured.expansion(lanes)).collect()))
}

/// An engine that computes one job at a time, each in one go.
pub(super) struct Serial<T, C> {
    compute: C,
    job: Option<(T, Job)>,
}

impl<T, C: FnMut(&Job) -> (Outcome, u64)> Serial<T, C> {
    /// An engine around `compute`, which says as well how many expansions it took.
    pub(super) fn new(compute: C) -> Self {
        Self { compute, job: None }
    }
}

impl<T, C> Engine<T> for Serial<T, C>
where
    T: Send + 'static,
    C: FnMut(&Job) -> (Outcome, u64) + Send + 'static,
{
    fn width(&self) -> usize {
        1
    }

    fn in_flight(&self) -> usize {
        usize::from(self.job.is_some())
    }

    fn join(&mut self, tag: T, job: Job) {
        self.job = Some((tag, job));
    }

    fn advance(&mut self, _expansions: u32) -> Slice<T> {
        let Some((tag, job)) = self.job.take() else {
            return Slice { lanes: 0, expansions: 0, finished: Vec::new() };
        };
        let (outcome, expansions) = (self.compute)(&job);
        Slice { lanes: 1, expansions, finished: vec![(tag, outcome)] }
    }

    fn abandon_if(&mut self, mut is_gone: impl FnMut(&T) -> bool) -> usize {
        usize::from(self.job.take_if(|(tag, _)| is_gone(tag)).is_some())
    }

    fn expansions_left(&self) -> u64 {
        self.job.as_ref().map_or(0, |(_, job)| job.max_expansions())
    }
}

/// What the `bcrypt` crate makes of a job, and how many expansions that took. Kept to compare with.
pub(super) fn bcrypt_crate(job: &Job) -> (Outcome, u64) {
    let digest = bcrypt_crate_digest(&job.key, job.salt, job.cost);
    match job.goal {
        Goal::Digest => (Outcome::Digest(digest), job.cost.expansions()),
        Goal::Check { expected, .. } if same(&expected, &digest) => (Outcome::Match, job.cost.expansions()),
        Goal::Check { floor, .. } => {
            // Each cost from the hash's own to below the floor once makes up what the floor asks for:
            // 2^c + 2^c + 2^(c+1) + … + 2^(f-1) = 2^f.
            for exponent in job.cost.get()..floor.get() {
                let cost = Cost::new(exponent).expect("between two costs lie costs");
                std::hint::black_box(bcrypt_crate_digest(&job.key, job.salt, cost));
            }
            (Outcome::Mismatch, job.max_expansions())
        }
    }
}

fn bcrypt_crate_digest(key: &Key, salt: [u8; 16], cost: Cost) -> Digest {
    let output = bcrypt::bcrypt(cost.get(), salt, &*key.to_bytes());
    *output.first_chunk().expect("24 bytes begin with 23")
}

/// The ideal pace of the `bcrypt` crate.
pub(super) fn measure_bcrypt_crate() -> Ideal {
    let job = Job::hash(Key::of_password(b""), [0; 16], Cost::MIN);
    let fastest = (0..3).map(|_| {
        let began = std::time::Instant::now();
        std::hint::black_box(bcrypt_crate(&job));
        began.elapsed()
    });
    let one = fastest.min().expect("three tries have a fastest");
    Ideal::new(vec![one.div_f64(Cost::MIN.expansions() as f64)])
}
