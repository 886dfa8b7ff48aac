//! How many passwords a second one core checks, beside the `bcrypt` crate and John the Ripper, in one
//! run and taking turns.
//!
//! `cargo bench -p bcrypt-lanes` prints the processor and the figures, and fails when one is below
//! what the README promises for it. `cargo bench -p bcrypt-lanes -- --plot FILE` draws them as well.
//! John the Ripper is asked when it is installed (Debian: `john`).

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark fails by panicking, and exports nothing")]

mod john;
mod plot;
mod processor;

use std::collections::VecDeque;
use std::hint::black_box;
use std::time::{Duration, Instant};

use bcrypt_lanes::{Cost, Job, Key, Lanes, Measurement, Width};
use processor::Processor;

/// What is timed: dear enough for the beginning and the end of a hash not to count.
const COST: u32 = 8;

/// What the figures are given for; a hash's time is its number of expansions.
const SHOWN_COST: u32 = 10;

/// Expansions between two looks for new jobs.
const SLICE: u32 = 8;

/// How often each figure is taken; the fastest counts, as what disturbs a figure makes it slower.
const TURNS: usize = 25;

fn main() {
    let plot_file = plot_file();
    let processor = Processor::of_this_machine();
    println!("processor: {processor}");
    let figures = Figures::take();
    figures.print();
    let best = figures.best();
    let continuous = continuous(Width::new(best).unwrap());
    println!();
    let mut promises = Promises::default();
    let wanted = if processor.loads_per_cycle >= 3 { 4.0 } else { 3.2 };
    promises.at_least("best width, times the bcrypt crate", figures.ratio(best), wanted);
    promises.at_least("two lanes, times the bcrypt crate", figures.ratio(2), 1.9);
    promises.at_least("one lane, times the bcrypt crate", figures.ratio(1), 1.0);
    promises.at_most("three hashes side by side, in hashes of the bcrypt crate", figures.together(3), 1.25);
    promises.at_most("a slice at the best width, in milliseconds", figures.slice(best), 1.0);
    promises.at_least("random arrivals, times a full batch", continuous, 0.95);
    match john::hashes_per_second(Cost::new(SHOWN_COST).unwrap()) {
        Some(john) => {
            println!("john: {john:.1} hashes a second at cost {SHOWN_COST}");
            promises.at_least("best width, times John the Ripper", figures.rate(best) / john, 1.25);
        }
        None => println!("John the Ripper is not installed (Debian: john): not compared with it"),
    }
    if let Some(file) = plot_file {
        let rates: Vec<_> = Width::all().map(|width| figures.rate(width.get())).collect();
        let title = format!("{processor}: hashes a second on one core, bcrypt cost {SHOWN_COST}");
        std::fs::write(&file, plot::svg(&title, &rates, figures.crate_rate())).unwrap();
        println!("drawn: {file}");
    }
    promises.assert_kept();
}

/// The argument of `--plot`; what cargo passes besides is left alone.
fn plot_file() -> Option<String> {
    std::env::args().skip_while(|argument| argument != "--plot").nth(1)
}

/// The time of one batch, for each number of lanes, and of one hash of the `bcrypt` crate.
struct Figures {
    batches: Vec<Duration>,
    one_of_crate: Duration,
}

impl Figures {
    fn take() -> Self {
        let mut batches = vec![Duration::MAX; Width::MAX.get()];
        let mut one_of_crate = Duration::MAX;
        for _ in 0..TURNS {
            one_of_crate = one_of_crate.min(timed(|| {
                black_box(bcrypt::bcrypt(COST, [7; 16], b"correct horse battery\0"));
            }));
            for (width, best) in Width::all().zip(&mut batches) {
                *best = (*best).min(timed(|| full_batch(width)));
            }
        }
        Self { batches, one_of_crate }
    }

    fn print(&self) {
        let shown = |time: Duration| time.as_secs_f64() * 1e3 * scale();
        println!("cost {SHOWN_COST}: lanes, ms a batch, ms a hash, hashes a second, times the bcrypt crate");
        println!(
            "  bcrypt crate {:>8.1} {:>8.1} {:>8.1}   1.00",
            shown(self.one_of_crate),
            shown(self.one_of_crate),
            self.crate_rate()
        );
        for (lanes, batch) in (1u32..).zip(&self.batches) {
            println!(
                "  {lanes:>12} {:>8.1} {:>8.1} {:>8.1} {:>6.2}",
                shown(*batch),
                shown(*batch / lanes),
                self.rate(lanes as usize),
                self.ratio(lanes as usize)
            );
        }
        let found = Measurement::quick().best_width().get();
        println!("the width that a service would find at its start: {found}");
    }

    /// How many times faster `lanes` lanes are than the crate.
    fn ratio(&self, lanes: usize) -> f64 {
        lanes as f64 / self.together(lanes)
    }

    /// The time of `lanes` hashes side by side, in hashes of the crate.
    fn together(&self, lanes: usize) -> f64 {
        self.batches[lanes - 1].as_secs_f64() / self.one_of_crate.as_secs_f64()
    }

    /// The time in which a job that comes finds a lane that is free, at most, in milliseconds.
    fn slice(&self, lanes: usize) -> f64 {
        let expansions = Cost::new(COST).unwrap().expansions() as f64;
        self.batches[lanes - 1].as_secs_f64() * 1e3 * f64::from(SLICE) / expansions
    }

    /// Hashes a second.
    fn rate(&self, lanes: usize) -> f64 {
        lanes as f64 / (self.batches[lanes - 1].as_secs_f64() * scale())
    }

    fn crate_rate(&self) -> f64 {
        1.0 / (self.one_of_crate.as_secs_f64() * scale())
    }

    fn best(&self) -> usize {
        Width::all().map(Width::get).max_by(|a, b| self.rate(*a).total_cmp(&self.rate(*b))).unwrap()
    }
}

fn timed(work: impl FnOnce()) -> Duration {
    let began = Instant::now();
    work();
    began.elapsed()
}

/// From the cost that is timed to the one that is shown.
fn scale() -> f64 {
    let [timed, shown] = [COST, SHOWN_COST].map(|cost| Cost::new(cost).unwrap().expansions() as f64);
    shown / timed
}

fn job(number: u64, cost: u32) -> Job {
    let mut salt = [7; 16];
    salt[..8].copy_from_slice(&number.to_le_bytes());
    Job::hash(Key::of_password(b"correct horse battery"), salt, Cost::new(cost).unwrap())
}

fn full_batch(width: Width) {
    let mut lanes = Lanes::new(width);
    for number in 0..width.get() as u64 {
        lanes.join(number, job(number, COST)).unwrap();
    }
    while !lanes.is_empty() {
        black_box(lanes.advance(u32::MAX).finished);
    }
}

/// How many times a full batch's hashes a second are computed while jobs of mixed costs arrive at random,
/// taking turns with full batches.
fn continuous(width: Width) -> f64 {
    let mut batch = timed(|| full_batch(width));
    let expansions = width.get() as f64 * Cost::new(COST).unwrap().expansions() as f64;
    let mut arrivals = Arrivals::new(width, batch.as_secs_f64() / expansions);
    let mut best = 0.0_f64;
    for _ in 0..TURNS {
        batch = batch.min(timed(|| full_batch(width)));
        best = best.max(arrivals.serve());
    }
    let shown = Cost::new(SHOWN_COST).unwrap().expansions() as f64;
    println!(
        "random arrivals, {} jobs of costs 5 to 8, {} lanes: {:.1} hashes a second at cost {SHOWN_COST}, \
         full batches in turns with it: {:.1}",
        arrivals.count,
        width.get(),
        best / shown,
        expansions / batch.as_secs_f64() / shown,
    );
    best * batch.as_secs_f64() / expansions
}

/// Jobs of costs 5 to 8 that arrive at random, a tenth faster than they are computed; each joins in the
/// slice after it has arrived, if there is a lane.
struct Arrivals {
    lanes: Lanes<()>,
    waiting: VecDeque<Job>,
    random: u64,
    count: u64,
    /// The time of an expansion of one of all lanes, in seconds.
    expansion: f64,
    /// When the next one arrives, in seconds of what was served so far.
    next: f64,
    served: f64,
}

impl Arrivals {
    fn new(width: Width, expansion: f64) -> Self {
        let random = 0x9e37_79b9_7f4a_7c15;
        let (lanes, waiting) = (Lanes::new(width), VecDeque::new());
        Self { lanes, waiting, random, count: 0, expansion, next: 0.0, served: 0.0 }
    }

    /// Goes on for a while; returns how many expansions were done a second.
    fn serve(&mut self) -> f64 {
        const WHILE: Duration = Duration::from_millis(50);
        let (began, mut done) = (Instant::now(), 0.0);
        while began.elapsed() < WHILE {
            while self.served + began.elapsed().as_secs_f64() >= self.next {
                self.arrive();
            }
            while self.lanes.has_room()
                && let Some(job) = self.waiting.pop_front()
            {
                self.lanes.join((), job).unwrap();
            }
            let advance = self.lanes.advance(SLICE);
            done += f64::from(advance.expansions) * advance.lanes as f64;
        }
        let elapsed = began.elapsed().as_secs_f64();
        self.served += elapsed;
        done / elapsed
    }

    fn arrive(&mut self) {
        let cost = 5 + (self.random() % 4) as u32;
        self.waiting.push_back(job(self.count, cost));
        self.count += 1;
        let uniform = (self.random() >> 11) as f64 / (1_u64 << 53) as f64;
        let mean = Cost::new(cost).unwrap().expansions() as f64 * self.expansion / 1.1;
        self.next += -mean * (1.0 - uniform).ln();
    }

    /// xorshift64: nobody has to be surprised by it.
    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

/// What is promised, checked all at once in the end.
#[derive(Default)]
struct Promises {
    broken: Vec<String>,
}

impl Promises {
    fn at_least(&mut self, what: &str, figure: f64, bound: f64) {
        self.check(what, figure, "at least", bound, figure >= bound);
    }

    fn at_most(&mut self, what: &str, figure: f64, bound: f64) {
        self.check(what, figure, "at most", bound, figure <= bound);
    }

    fn check(&mut self, what: &str, figure: f64, relation: &str, bound: f64, kept: bool) {
        let line = format!("{what}: {figure:.2}, promised {relation} {bound}");
        println!("{line}{}", if kept { "" } else { "  BROKEN" });
        if !kept {
            self.broken.push(line);
        }
    }

    fn assert_kept(self) {
        assert!(self.broken.is_empty(), "broken promises (is the machine idle?): {:#?}", self.broken);
    }
}
