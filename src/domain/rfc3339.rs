//! Points in time as RFC 3339 writes them, to the microsecond, from year 0 to 9999.

use super::clock::Timestamp;

const MICROS_A_SECOND: i64 = 1_000_000;
const SECONDS_A_DAY: i64 = 86_400;
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
    let at = Timestamp::from_unix_micros(at.as_unix_micros().clamp(first, end - 1));
    let seconds = at.as_unix_seconds();
    let (year, month, day) = date(seconds.div_euclid(SECONDS_A_DAY));
    let second = seconds.rem_euclid(SECONDS_A_DAY);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    let micros = at.subsecond_nanos() / 1_000;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

/// Reads a point in time with any offset. What is finer than a microsecond is cut off, and a leap second is
/// read as the last one before it.
pub fn parse(text: &str) -> Option<Timestamp> {
    let (date, time) = (text.get(..10)?, text.get(11..)?);
    if !matches!(text.as_bytes()[10], b'T' | b't' | b' ') {
        return None;
    }
    let days = days(read_date(date)?)?;
    let clock = time.get(..8)?;
    let [hour, minute, second] = numbers(clock, b':', [2, 2, 2])?;
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (micros, zone) = fraction(&time[8..])?;
    let seconds = days * SECONDS_A_DAY + hour * 3_600 + minute * 60 + second.min(59) - offset(zone)?;
    if !YEARS.contains(&seconds) {
        return None;
    }
    Some(Timestamp::from_unix_micros(seconds * MICROS_A_SECOND + micros))
}

fn read_date(text: &str) -> Option<(i64, i64, i64)> {
    let [year, month, day] = numbers(text, b'-', [4, 2, 2])?;
    Some((year, month, day))
}

/// Numbers of so many digits each, parted by `separator`.
fn numbers<const N: usize>(text: &str, separator: u8, widths: [usize; N]) -> Option<[i64; N]> {
    let mut fields = text.split(char::from(separator));
    let mut numbers = [0; N];
    for (number, width) in numbers.iter_mut().zip(widths) {
        let field = fields.next()?;
        if field.len() != width || !field.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *number = field.parse().ok()?;
    }
    fields.next().is_none().then_some(numbers)
}

/// The microseconds of `.123456…`, if there is such a thing, and what follows it.
fn fraction(text: &str) -> Option<(i64, &str)> {
    let Some(rest) = text.strip_prefix('.') else { return Some((0, text)) };
    let length = rest.find(|c: char| !c.is_ascii_digit())?;
    let (digits, zone) = rest.split_at(length);
    if digits.is_empty() {
        return None;
    }
    let micros: i64 = digits.get(..6).unwrap_or(digits).parse().ok()?;
    Some((micros * 10_i64.pow(6 - digits.len().min(6) as u32), zone))
}

/// The seconds that a zone is ahead of UTC.
fn offset(zone: &str) -> Option<i64> {
    if matches!(zone, "Z" | "z") {
        return Some(0);
    }
    let sign = match zone.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let [hours, minutes] = numbers(zone.get(1..)?, b':', [2, 2])?;
    (hours <= 23 && minutes <= 59).then_some(sign * (hours * 3_600 + minutes * 60))
}

/// Year, month and day, so many days after 1970-01-01 in the Gregorian calendar.
fn date(days: i64) -> (i64, i64, i64) {
    // Years that begin in March end in the leap day; 400 of them have 146,097 days.
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + next, month, day)
}

/// What [`date`] was made of; `None` for a day that the calendar does not have.
fn days((year, month, day): (i64, i64, i64)) -> Option<i64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let (of_march, month_of_march) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, year_of_era) = (of_march.div_euclid(400), of_march.rem_euclid(400));
    let day_of_year = (153 * month_of_march + 2) / 5 + day - 1;
    let days =
        era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
    (date(days) == (year, month, day)).then_some(days)
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
            assert_eq!(days(date(day)), Some(day));
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
