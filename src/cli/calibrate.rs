//! `identity calibrate`: measures the machine, and recommends a bcrypt cost.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::Outcome;
use super::arguments::Calibrate;
use super::streams::StandardOutput;
use crate::config::HashSettings;
use crate::crypto::Cost;
use crate::crypto::calibration::{Calibration, Recommendation};

/// The cheapest that people read about; JSON has all.
const LEAST_SHOWN: u32 = 8;

/// Measures, and prints tables or JSON.
///
/// # Errors
/// When a thread cannot be started, or standard output is closed.
pub(super) fn run(settings: &HashSettings, arguments: Calibrate) -> Outcome {
    let Calibrate { target, time, json } = arguments;
    let calibration = Calibration::take(settings.threads, settings.lanes, time)?;
    let recommendation = calibration.recommend(target);
    let text = if json {
        let mut json = serde_json::to_string_pretty(&Report::new(&calibration, recommendation, target))?;
        json.push('\n');
        json
    } else {
        text(&calibration, recommendation, target)
    };
    Ok(StandardOutput.write_all(text.as_bytes())?)
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    threads: usize,
    best_lanes: usize,
    target_ms: f64,
    recommended_cost: u32,
    meets_target: bool,
    figures: Vec<Figure>,
}

/// One cell of the table. The rate is that of one core.
#[derive(Serialize)]
struct Figure {
    cost: u32,
    lanes: usize,
    ms: f64,
    hashes_per_second: f64,
}

impl Report {
    fn new(calibration: &Calibration, recommendation: Recommendation, target: Duration) -> Self {
        let figure = |cost: Cost, lanes| Figure {
            cost: cost.get(),
            lanes,
            ms: 1e3 * calibration.seconds(cost, lanes),
            hashes_per_second: calibration.hashes_per_second(cost, lanes),
        };
        Self {
            threads: calibration.threads.get(),
            best_lanes: calibration.best_lanes,
            target_ms: 1e3 * target.as_secs_f64(),
            recommended_cost: recommendation.cost.get(),
            meets_target: recommendation.meets_target,
            figures: Cost::all()
                .flat_map(|cost| calibration.lanes().map(move |lanes| figure(cost, lanes)))
                .collect(),
        }
    }
}

fn text(calibration: &Calibration, recommendation: Recommendation, target: Duration) -> String {
    let Recommendation { cost, meets_target } = recommendation;
    let (best, target) = (calibration.best_lanes, humantime::format_duration(target));
    let milliseconds = |cost, lanes| 1e3 * calibration.seconds(cost, lanes);
    let mut text = String::new();
    table(&mut text, calibration, "Milliseconds a hash takes", milliseconds);
    text.push('\n');
    table(&mut text, calibration, "Hashes a second of one core", |cost, lanes| {
        calibration.hashes_per_second(cost, lanes)
    });
    let _ = write!(
        text,
        "\nMeasured on {} threads at once. The service uses {best} lanes a thread.\n\n\
         IDENTITY_BCRYPT_COST={} {}: {:.0} ms while all lanes are in use, {:.0} ms alone,\n\
         {:.1} hashes a second of one core.\n",
        calibration.threads,
        cost.get(),
        if meets_target {
            format!("is the highest cost within {target}")
        } else {
            format!("exceeds {target}, but less is guessed too fast by who steals the hashes")
        },
        milliseconds(cost, best),
        milliseconds(cost, 1),
        calibration.hashes_per_second(cost, best),
    );
    text
}

fn table(text: &mut String, calibration: &Calibration, title: &str, figure: impl Fn(Cost, usize) -> f64) {
    let _ = writeln!(text, "{title}, by cost and lanes in use:");
    let _ = writeln!(
        text,
        "{:>6}{}",
        "cost",
        calibration.lanes().map(|lanes| format!("{lanes:>9}")).collect::<String>()
    );
    for cost in Cost::all().filter(|cost| cost.get() >= LEAST_SHOWN) {
        let figures = calibration.lanes().map(|lanes| format!("{:>9.1}", figure(cost, lanes)));
        let _ = writeln!(text, "{:>6}{}", cost.get(), figures.collect::<String>());
    }
}
