//! John the Ripper, the fastest bcrypt for processors that is known, when it is installed.

use std::process::Command;

use bcrypt_lanes::Cost;

/// What John's own benchmark uses: "Cost 1 (iteration count) of 32".
const ITS_COST: u32 = 5;

/// How many hashes at `cost` John the Ripper computes in a second, on one core: its own figure, for
/// its own cost, scaled by the work; `None` when it is not there.
pub(crate) fn hashes_per_second(cost: Cost) -> Option<f64> {
    let names = ["john", "/usr/sbin/john"];
    let output = names.iter().find_map(|name| {
        let mut john = Command::new(name);
        john.args(["--test", "--format=bcrypt"]).env("OMP_NUM_THREADS", "1").output().ok()
    })?;
    let said = String::from_utf8_lossy(&output.stdout);
    let figure = said.lines().find_map(|line| line.strip_prefix("Raw:")).unwrap_or_else(|| {
        panic!("john says something else than it used to: {said}");
    });
    let figure: f64 = figure.split_whitespace().next().unwrap().parse().unwrap();
    let its_cost = Cost::new(ITS_COST).unwrap();
    Some(figure * its_cost.expansions() as f64 / cost.expansions() as f64)
}
