//! Points in time as RFC 3339 writes them, to the microsecond, from year 0 to 9999.

use std::borrow::Cow;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::clock::Timestamp;

const MICROS_A_SECOND: i64 = 1_000_000;
/// 0000-01-01T00:00:00Z and 10000-01-01T00:00:00Z, in seconds after the Unix epoch.
const YEARS: std::ops::Range<i64> = -62_167_219_200..253_402_300_800;

/// Whether the point in time is within the years that RFC 3339 can write.
pub fn is_writable(at: Timestamp) -> bool {
    YEARS.contains(&at.as_unix_seconds())
}

/// The point in time in UTC, such as `2023-11-14T22:13:20.123456Z`; beyond the years that RFC 3339 can write, the
/// nearest point within them.
pub fn format_nearest(at: Timestamp) -> String {
    let (first, end) = (YEARS.start * MICROS_A_SECOND, YEARS.end * MICROS_A_SECOND);
    let micros = at.as_unix_micros().clamp(first, end - 1);
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1_000)
        .expect("these years are within those of the calendar");
    let (year, month, day) = at.to_calendar_date();
    let (hour, minute, second, micros) = at.to_hms_micro();
    let month = u8::from(month);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

/// Reads a point in time with any offset. What is finer than a microsecond is cut off, and a leap second is
/// read as the last one before it.
pub fn parse(text: &str) -> Option<Timestamp> {
    // The library would take any character between the date and the time.
    if !matches!(text.as_bytes().get(10)?, b'T' | b't' | b' ') {
        return None;
    }
    let text = match (text.get(..16)?, text.get(16..19)?, text.get(19..)?) {
        (minute, ":60", rest) => Cow::Owned(format!("{minute}:59{rest}")),
        _ => Cow::Borrowed(text),
    };
    let at = OffsetDateTime::parse(&text, &Rfc3339).ok()?;
    let micros = at.unix_timestamp_nanos().div_euclid(1_000);
    let at = Timestamp::from_unix_micros(i64::try_from(micros).ok()?);
    is_writable(at).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back() {
        for (micros, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
            (1_700_000_000_123_456, "2023-11-14T22:13:20.123456Z"),
            (951_782_400_000_000, "2000-02-29T00:00:00.000000Z"),
            (YEARS.start * MICROS_A_SECOND, "0000-01-01T00:00:00.000000Z"),
            (YEARS.end * MICROS_A_SECOND - 1, "9999-12-31T23:59:59.999999Z"),
        ] {
            let at = Timestamp::from_unix_micros(micros);
            assert_eq!(format_nearest(at), text);
            assert_eq!(parse(text), Some(at), "{text}");
        }
        for day in (-700_000..2_900_000).step_by(97) {
            let at = Timestamp::from_unix_micros(day * 86_400 * MICROS_A_SECOND);
            assert_eq!(parse(&format_nearest(at)), Some(at));
        }
        assert_eq!(format_nearest(Timestamp::from_unix_micros(i64::MAX)), "9999-12-31T23:59:59.999999Z");
        assert_eq!(format_nearest(Timestamp::from_unix_micros(i64::MIN)), "0000-01-01T00:00:00.000000Z");
    }

    #[test]
    fn offsets_and_fractions_are_read() {
        let at = |micros| Some(Timestamp::from_unix_micros(micros));
        assert_eq!(parse("1970-01-01T01:00:00+01:00"), at(0));
        assert_eq!(parse("1969-12-31 19:30:00.5-04:30"), at(500_000));
        assert_eq!(parse("1970-01-01t00:00:00.1234567z"), at(123_456));
        assert_eq!(parse("1998-12-31T23:59:60Z"), parse("1998-12-31T23:59:59Z"));
        assert_eq!(parse("1970-01-01T00:00:60.5Z"), at(59_500_000));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "1970-01-01",
            "1970-01-01T00:00:00",
            "1970-01-01T00:00:00.Z",
            "1970-01-01T00:00Z",
            "1970-13-01T00:00:00Z",
            "2023-02-29T00:00:00Z",
            "1970-01-01T24:00:00Z",
            "1970-01-01T00:00:00+1:00",
            "1970-01-01T00:00:00+24:00",
            "1970-01-01T00:00:00+00:60",
            "1970-01-01X00:00:00Z",
            "1970-01-01T00:00:61Z",
            "0000-01-01T00:00:00+00:01",
            "+970-01-01T00:00:00Z",
            "1970-01-01T00:00:00\u{e9}",
            "1970-01-0\u{e9}T00:00:00Z",
            "1970-01-01T00:00:00.000000",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
