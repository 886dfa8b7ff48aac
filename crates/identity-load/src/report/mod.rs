//! The figures of a run, as they are printed: in JSON as they stand here, for people by `text`.

mod attacked;
mod text;

use serde::Serialize;
use tonic::Code;

use crate::closed_loop::Reached;
use crate::open_loop::Offered;
use crate::tally::{Codes, Latency};

pub(crate) use attacked::Attacked;

/// The figures of a run.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum Report {
    Logins(Closed),
    Lookups(Open),
    Flood(Box<Flood>),
    Saturate(Box<Saturate>),
    Attacked(Box<Attacked>),
}

/// Calls without a pause.
#[derive(Serialize)]
pub(crate) struct Closed {
    clients: u32,
    seconds: u32,
    /// Calls answered OK, each second.
    pub(crate) ok_per_second: f64,
    /// Of the calls answered OK.
    latency: Option<Latency>,
    codes: Codes,
    /// Of the calls that ended before or after the measured time.
    codes_outside: Codes,
}

/// Calls at a fixed rate.
#[derive(Serialize)]
pub(crate) struct Open {
    per_second: u32,
    achieved_per_second: f64,
    seconds: u32,
    /// Of all calls, whatever they were answered, from when they were due.
    pub(crate) latency: Option<Latency>,
    /// How much of it passed before the call was sent.
    sent_behind: Option<Latency>,
    codes: Codes,
}

/// More logins than can be served.
#[derive(Serialize)]
pub(crate) struct Offers {
    per_second: u32,
    achieved_per_second: f64,
    offered: u64,
    pub(crate) admitted: u64,
    /// Those of them that were served while the flood lasted, each second behind its first two.
    pub(crate) served_per_second: f64,
    refused: u64,
    /// Neither admitted nor refused.
    other: Codes,
    /// Answered OK after the deadline, or given up at it.
    late: u64,
    refused_without_retry_info: u64,
    admitted_latency: Option<Latency>,
    refused_latency: Option<Latency>,
}

/// Resident memory of the service during a flood.
#[derive(Serialize)]
pub(crate) struct Memory {
    pub(crate) before_mb: f64,
    pub(crate) middle_mb: f64,
    pub(crate) end_mb: f64,
}

#[derive(Serialize)]
pub(crate) struct Flood {
    pub(crate) lookups_alone: Open,
    /// Beside as many logins as can be served, and as many calls that want nothing as the flood has.
    pub(crate) lookups_beside: Open,
    /// Those logins, before the flood and after it: the machine itself is not always equally fast.
    pub(crate) logins_beside: [Closed; 2],
    pub(crate) lookups_flooded: Open,
    /// The look-ups' p99 in the flood, of what it is alone.
    pub(crate) p99_ratio: Option<f64>,
    pub(crate) logins: Offers,
    /// The logins a second that were served in the flood, of the mean of `logins_beside`.
    pub(crate) admitted_ratio: Option<f64>,
    pub(crate) memory: Option<Memory>,
}

#[derive(Serialize)]
pub(crate) struct Saturate {
    pub(crate) logins_alone: Closed,
    pub(crate) logins_beside: Closed,
    /// The logins a second beside look-ups, of what they are alone.
    pub(crate) logins_ratio: Option<f64>,
    pub(crate) lookups: Closed,
}

impl From<Reached> for Closed {
    fn from(reached: Reached) -> Self {
        Self {
            clients: reached.clients,
            seconds: reached.seconds,
            ok_per_second: reached.rate(),
            latency: reached.measured.latency_of(Code::Ok),
            codes: reached.measured.codes(),
            codes_outside: reached.outside.codes(),
        }
    }
}

impl From<Offered> for Open {
    fn from(offered: Offered) -> Self {
        Self {
            per_second: offered.offer.rate,
            achieved_per_second: offered.achieved,
            seconds: offered.offer.seconds,
            latency: offered.tally.latency(),
            sent_behind: offered.behind.latency(),
            codes: offered.tally.codes(),
        }
    }
}

impl From<Offered> for Offers {
    fn from(offered: Offered) -> Self {
        let tally = &offered.tally;
        let mut other = tally.codes();
        other.retain(|code, _| !["OK", "RESOURCE_EXHAUSTED"].contains(code));
        Self {
            per_second: offered.offer.rate,
            achieved_per_second: offered.achieved,
            offered: tally.total(),
            admitted: tally.count(Code::Ok),
            served_per_second: offered.in_time as f64 / offered.counted.as_secs_f64(),
            refused: tally.count(Code::ResourceExhausted),
            other,
            late: tally.late,
            refused_without_retry_info: tally.refused_for_good,
            admitted_latency: tally.latency_of(Code::Ok),
            refused_latency: tally.latency_of(Code::ResourceExhausted),
        }
    }
}

/// `part` of `whole`, unless there is no whole.
pub(crate) fn ratio(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::calls::Outcome;
    use crate::open_loop::Offer;
    use crate::tally::{Tally, Times};
    use crate::timeline::Beside;

    fn offered(codes: &[Code]) -> Offered {
        let mut tally = Tally::default();
        for &code in codes {
            let due = Instant::now();
            let ended = due + Duration::from_millis(20);
            let late = code == Code::DeadlineExceeded;
            tally.record(&Outcome { code, due, ended, late, retry_after: None });
        }
        let offer = Offer { rate: 4, seconds: 1 };
        Offered {
            offer,
            in_time: tally.count(Code::Ok),
            tally,
            counted: Duration::from_secs(1),
            achieved: 4.0,
            behind: Times::new(),
        }
    }

    #[test]
    fn every_offered_login_is_admitted_refused_or_named() {
        let codes = [Code::Ok, Code::ResourceExhausted, Code::DeadlineExceeded, Code::Unavailable];
        let offers = Offers::from(offered(&codes));
        assert_eq!((offers.offered, offers.admitted, offers.refused, offers.late), (4, 1, 1, 1));
        assert_eq!(offers.other, Codes::from([("DEADLINE_EXCEEDED", 1), ("UNAVAILABLE", 1)]));
        assert_eq!((offers.refused_without_retry_info, offers.served_per_second), (1, 1.0));
    }

    #[test]
    fn people_are_told_every_code_and_nothing_that_was_not_measured() {
        let shown = Report::Lookups(offered(&[Code::Ok, Code::Ok, Code::Internal]).into()).to_string();
        assert!(shown.contains("INTERNAL 1, OK 2"), "{shown}");
        assert!(shown.contains("before sent     none"), "{shown}");
    }

    #[test]
    fn json_has_null_for_what_was_not_measured() {
        let json = serde_json::to_value(Report::Lookups(offered(&[]).into())).unwrap();
        assert_eq!(json["latency"], serde_json::Value::Null);
        assert_eq!(json["per_second"], 4);
    }

    #[test]
    fn others_are_told_by_phase_and_attackers_by_what_they_did() {
        let tally = |codes: &[Code]| offered(codes).tally;
        let beside = Beside {
            rate: 7,
            before: tally(&[Code::Ok]),
            during: tally(&[Code::Ok, Code::Unavailable, Code::Unavailable]),
            after: tally(&[]),
            behind: Times::new(),
        };
        let report = Attacked::new(3, [("look-ups", beside)], None)
            .called("guesses", tally(&[Code::Unauthenticated]))
            .counted("resets", 42);
        let report = Report::Attacked(Box::new(report));
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["others"]["look-ups"]["during"]["failed"], 2);
        assert_eq!(json["others"]["look-ups"]["after"]["latency"], serde_json::Value::Null);
        assert_eq!((&json["calls"]["guesses"]["failed"], &json["counts"]["resets"]), (&1.into(), &42.into()));
        let text = report.to_string();
        for part in ["look-ups: 7 a second", "OK 1, UNAVAILABLE 2", "resets", "42", "UNAUTHENTICATED 1"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains("memory"), "{text}");
    }

    #[test]
    fn there_is_no_ratio_to_nothing() {
        assert_eq!(ratio(1.0, 0.0), None);
        assert_eq!(ratio(1.0, 4.0), Some(0.25));
    }
}
