//! How many hashes a second all cores compute together, over a while: what a service at its best could
//! reach on this machine as it is just now.
//!
//! `cargo run --release -p bcrypt-lanes --example throughput [COST [SECONDS]]` prints one number.

#![allow(clippy::unwrap_used, reason = "an example fails by panicking")]

use std::thread;
use std::time::{Duration, Instant};

use bcrypt_lanes::{Cost, Job, Key, Lanes, Measurement, Width};

fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u32>().unwrap());
    let cost = Cost::new(arguments.next().unwrap_or(10)).unwrap();
    let time = Duration::from_secs(arguments.next().unwrap_or(5).into());
    let width = Measurement::quick().best_width();
    let threads = thread::available_parallelism().unwrap().get();
    let started: Vec<_> = (0..threads).map(|_| thread::spawn(move || rate(width, cost, time))).collect();
    let rates = started.into_iter().map(|thread| thread.join().unwrap());
    println!("{:.1}", rates.sum::<f64>());
}

/// Hashes a second of one thread, its lanes always full.
fn rate(width: Width, cost: Cost, time: Duration) -> f64 {
    let mut lanes = Lanes::new(width);
    let (began, mut expansions) = (Instant::now(), 0.0);
    while began.elapsed() < time {
        while lanes.has_room() {
            lanes.join((), Job::hash(Key::of_password(b"correct horse"), [7; 16], cost)).unwrap();
        }
        let advance = lanes.advance(8);
        expansions += f64::from(advance.expansions) * advance.lanes as f64;
    }
    expansions / cost.expansions() as f64 / began.elapsed().as_secs_f64()
}
