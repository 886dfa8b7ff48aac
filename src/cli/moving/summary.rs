//! What became of an import, for the operator.

use std::io::Write as _;

use super::files::ReportTargets;
use super::jsonl::Ending;
use crate::cli::Outcome;
use crate::cli::arguments::ImportArguments;
use crate::cli::streams::{StandardOutput, notify};
use crate::service::moving::{Counts, Tally};

/// The counts on standard output, unless a report goes there; on standard error, whether something is missing.
pub(super) fn print_summary(
    counts: &Counts,
    arguments: &ImportArguments,
    reports: &ReportTargets,
) -> Outcome {
    let imported = if arguments.dry_run { "would go in" } else { "imported" };
    let line = |name: &str, tally: Tally| {
        let Tally { imported: number, there, refused } = tally;
        format!("{name}: {number} {imported}, {there} there already, {refused} refused\n")
    };
    let mut text = line("tenants", counts.tenants) + &line("users", counts.users);
    for ((kind, why), count) in &counts.refused {
        text += &format!("refused: {count} {} {}\n", kind.as_str(), why.as_str());
    }
    let printed = if reports.use_standard_output() {
        notify(text.trim_end());
        Ok(())
    } else {
        StandardOutput.write_all(text.as_bytes())
    };
    let refused = counts.refusals();
    if refused > 0 {
        let rows = if refused == 1 { "1 row was".to_owned() } else { format!("{refused} rows were") };
        let report = reports.refused();
        notify(format_args!("identity: NOT ALL WENT IN: {rows} refused and listed in {report}"));
    }
    if arguments.dry_run {
        notify("identity: this was a dry run: nothing was written into the database");
    }
    Ok(printed?)
}

/// Says what the end of a file tells of it.
///
/// # Errors
/// When rows are missing, or there are more than there were. Those that are there went in.
pub(super) fn check_ending(ending: Ending) -> Outcome {
    match ending {
        Ending::Whole => Ok(()),
        Ending::Missing => {
            notify(
                "identity: the input does not end with the number of its rows, as an export does: \
                 it may have been cut off",
            );
            Ok(())
        }
        Ending::Wrong { position, told, found } => Err(format!(
            "line {position} says that the export had {told} rows, and there are {found}: the input is not whole"
        )
        .into()),
    }
}
