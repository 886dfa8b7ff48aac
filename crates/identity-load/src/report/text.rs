//! Figures as people read them.

use std::fmt::{self, Display, Formatter};

use super::attacked::{Answers, Attacked};
use super::{Closed, Flood, Memory, Open, Report, Saturate};
use crate::memory::Resident;
use crate::tally::{Codes, Latency};

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Logins(logins) => write_closed(f, "logins", logins),
            Self::Lookups(lookups) => write_open(f, "look-ups", lookups),
            Self::Flood(flood) => flood.fmt(f),
            Self::Saturate(saturate) => saturate.fmt(f),
            Self::Attacked(attacked) => attacked.fmt(f),
        }
    }
}

impl Display for Flood {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write_open(f, "look-ups alone", &self.lookups_alone)?;
        write_open(f, "look-ups beside logins", &self.lookups_beside)?;
        for logins in &self.logins_beside {
            write_closed(f, "logins beside look-ups", logins)?;
        }
        write_open(f, "look-ups in the flood", &self.lookups_flooded)?;
        line(f, "p99 of what it is alone", Figure(self.p99_ratio))?;
        let logins = &self.logins;
        writeln!(f, "logins offered at {} a second", logins.per_second)?;
        line(f, "achieved", format_args!("{:.1} a second", logins.achieved_per_second))?;
        line(f, "offered", logins.offered)?;
        line(f, "admitted", logins.admitted)?;
        line(f, "served meanwhile", format_args!("{:.1} a second", logins.served_per_second))?;
        line(f, "of what can be served", Figure(self.admitted_ratio))?;
        line(f, "refused", logins.refused)?;
        line(f, "other codes", Counts(&logins.other))?;
        line(f, "late", logins.late)?;
        line(f, "refused, no RetryInfo", logins.refused_without_retry_info)?;
        line(f, "latency if admitted", Figures(logins.admitted_latency))?;
        line(f, "latency if refused", Figures(logins.refused_latency))?;
        if let Some(Memory { before_mb, middle_mb, end_mb }) = self.memory {
            let memory =
                format_args!("{before_mb:.1} MB before, {middle_mb:.1} amid, {end_mb:.1} at the end");
            line(f, "resident memory", memory)?;
        }
        Ok(())
    }
}

impl Display for Saturate {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write_closed(f, "logins alone", &self.logins_alone)?;
        write_closed(f, "logins beside look-ups", &self.logins_beside)?;
        line(f, "of what they are alone", Figure(self.logins_ratio))?;
        write_closed(f, "look-ups", &self.lookups)
    }
}

impl Display for Attacked {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (name, calls) in &self.others {
            writeln!(f, "{name}: {} a second", calls.per_second)?;
            for (phase, answers) in
                [("before", &calls.before), ("during", &calls.during), ("after", &calls.after)]
            {
                write_answers(f, phase, answers)?;
            }
            line(f, "of which before sent", Figures(calls.sent_behind))?;
        }
        writeln!(f, "attack of {} s", self.seconds)?;
        for (name, answers) in &self.calls {
            write_answers(f, name, answers)?;
        }
        for (name, count) in &self.counts {
            line(f, name, count)?;
        }
        if let Some(Resident { before_mb, peak_mb, end_mb, after_mb }) = self.memory {
            let memory = format_args!(
                "{before_mb:.1} MB before, {peak_mb:.1} at most, {end_mb:.1} at the end, {after_mb:.1} after"
            );
            line(f, "resident memory", memory)?;
        }
        Ok(())
    }
}

fn write_answers(f: &mut Formatter<'_>, name: &str, answers: &Answers) -> fmt::Result {
    line(f, name, Figures(answers.latency))?;
    line(f, "", Counts(&answers.codes))
}

fn write_closed(f: &mut Formatter<'_>, title: &str, calls: &Closed) -> fmt::Result {
    writeln!(f, "{title}: {} clients without a pause for {} s", calls.clients, calls.seconds)?;
    line(f, "answered OK", format_args!("{:.1} a second", calls.ok_per_second))?;
    line(f, "latency if OK", Figures(calls.latency))?;
    line(f, "codes", Counts(&calls.codes))?;
    line(f, "before and after", Counts(&calls.codes_outside))
}

fn write_open(f: &mut Formatter<'_>, title: &str, calls: &Open) -> fmt::Result {
    writeln!(f, "{title}: {} a second for {} s", calls.per_second, calls.seconds)?;
    line(f, "achieved", format_args!("{:.1} a second", calls.achieved_per_second))?;
    line(f, "latency from when due", Figures(calls.latency))?;
    line(f, "of which before sent", Figures(calls.sent_behind))?;
    line(f, "codes", Counts(&calls.codes))
}

fn line(f: &mut Formatter<'_>, name: &str, value: impl Display) -> fmt::Result {
    writeln!(f, "  {name:<24} {value}")
}

struct Figure(Option<f64>);

impl Display for Figure {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(figure) => write!(f, "{figure:.2}"),
            None => f.write_str("none"),
        }
    }
}

struct Figures(Option<Latency>);

impl Display for Figures {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(Latency { p50_ms, p99_ms, p999_ms, max_ms }) => {
                write!(f, "p50 {p50_ms:.2}  p99 {p99_ms:.2}  p99.9 {p999_ms:.2}  max {max_ms:.2} ms")
            }
            None => f.write_str("none"),
        }
    }
}

struct Counts<'a>(&'a Codes);

impl Display for Counts<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        let counts: Vec<_> = self.0.iter().map(|(code, count)| format!("{code} {count}")).collect();
        f.write_str(&counts.join(", "))
    }
}
