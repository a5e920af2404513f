//! Memory strings and ISO 8601 durations, as torc reads them.

/// Bytes of one gibibyte, the unit of every `memory_gb`.
pub const GIB: i64 = 1 << 30;

/// A memory string that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadMemory {
    #[error("Memory string cannot be empty")]
    Empty,
    #[error("Invalid memory unit: {0}")]
    Unit(char),
    #[error("Invalid number in memory string: {0}")]
    Number(String),
    #[error("Memory size cannot be negative")]
    Negative,
    #[error("Memory size too large, would cause overflow")]
    Overflow,
}

/// Bytes of a memory string: a whole number and one of `k`, `m`, `g`, `t` (powers of 1024, in
/// either case) or nothing, which means bytes.
///
/// ```
/// use forebay_wire::units::memory_bytes;
/// assert_eq!(memory_bytes("512m"), Ok(512 << 20));
/// assert!(memory_bytes("4gb").is_err());
/// ```
pub fn memory_bytes(text: &str) -> Result<i64, BadMemory> {
    let text = text.trim();
    let last = text.chars().next_back().ok_or(BadMemory::Empty)?;
    let (number, unit) = match last.to_ascii_lowercase() {
        'k' => (&text[..text.len() - 1], 1 << 10),
        'm' => (&text[..text.len() - 1], 1 << 20),
        'g' => (&text[..text.len() - 1], GIB),
        't' => (&text[..text.len() - 1], 1 << 40),
        other if other.is_alphabetic() => return Err(BadMemory::Unit(last)),
        _ => (text, 1),
    };
    let count: i64 = number.parse().map_err(|_| BadMemory::Number(number.to_owned()))?;
    if count < 0 {
        return Err(BadMemory::Negative);
    }
    count.checked_mul(unit).ok_or(BadMemory::Overflow)
}

/// The shortest memory string of these bytes that loses nothing.
pub fn memory_string(bytes: i64) -> String {
    let units = [(1 << 40, "t"), (GIB, "g"), (1 << 20, "m"), (1 << 10, "k")];
    let whole = units.into_iter().find(|(unit, _)| bytes != 0 && bytes % unit == 0);
    match whole {
        Some((unit, suffix)) => format!("{}{suffix}", bytes / unit),
        None => bytes.to_string(),
    }
}

/// Gibibytes of these bytes.
pub fn bytes_to_gb(bytes: i64) -> f64 {
    bytes as f64 / GIB as f64
}

/// Bytes of these gibibytes, rounded down.
pub fn gb_to_bytes(gb: f64) -> i64 {
    (gb * GIB as f64) as i64
}

/// A duration that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadDuration {
    #[error("Duration string cannot be empty")]
    Empty,
    #[error("Invalid ISO 8601 duration format: {0:?} (expected something like PT30M or P1DT2H)")]
    Format(String),
    #[error("Duration too large, would cause overflow")]
    Overflow,
}

/// Seconds of an ISO 8601 duration such as `PT30M`, `P0DT1H` or `P1W`. A year counts 365.25
/// days and a month a twelfth of that, as in torc; fractions of a second are dropped. Unlike
/// torc, which ignores what follows the part that it understood (so that `PT1.5H` means
/// nothing), trailing text is an error.
///
/// ```
/// use forebay_wire::units::duration_seconds;
/// assert_eq!(duration_seconds("P1DT2H"), Ok(26 * 3600));
/// assert!(duration_seconds("30m").is_err());
/// ```
pub fn duration_seconds(text: &str) -> Result<i64, BadDuration> {
    const DATE: [(u8, i64); 3] = [(b'Y', 31_557_600), (b'M', 2_629_800), (b'D', 86_400)];
    const TIME: [(u8, i64); 3] = [(b'H', 3_600), (b'M', 60), (b'S', 1)];
    let text = text.trim();
    let bad = || BadDuration::Format(text.to_owned());
    if text.is_empty() {
        return Err(BadDuration::Empty);
    }
    let body = text.strip_prefix('P').ok_or_else(bad)?;
    if let Some(weeks) = body.strip_suffix('W') {
        return total([(weeks, 604_800)], bad);
    }
    let (date, time) = match body.split_once('T') {
        Some((date, time)) => (date, Some(time)),
        None => (body, None),
    };
    if date.is_empty() && time.is_none() {
        return Err(bad());
    }
    let date = fields(date, &DATE).ok_or_else(bad)?;
    let time = fields(time.unwrap_or_default(), &TIME).ok_or_else(bad)?;
    total(date.into_iter().chain(time), bad)
}

/// The ISO 8601 duration of these seconds, in hours, minutes and seconds: `PT1H30M`.
pub fn duration_string(seconds: i64) -> String {
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let mut text = "PT".to_owned();
    for (count, unit) in [(hours, 'H'), (minutes, 'M'), (rest, 'S')] {
        if count != 0 || (unit == 'S' && text.len() == 2) {
            text.push_str(&count.to_string());
            text.push(unit);
        }
    }
    text
}

/// Splits `1H30M` into its numbers and the seconds of their units, which come in order.
fn fields<'t>(mut text: &'t str, units: &[(u8, i64)]) -> Option<Vec<(&'t str, i64)>> {
    let mut found = Vec::new();
    let mut units = units.iter();
    while !text.is_empty() {
        let end = text.find(|c: char| c.is_ascii_alphabetic())?;
        let letter = text.as_bytes()[end];
        let (_, seconds) = units.find(|(unit, _)| *unit == letter)?;
        let number = match (letter, text[..end].split_once(['.', ','])) {
            (b'S', Some((whole, fraction))) if fraction.bytes().all(|b| b.is_ascii_digit()) => whole,
            _ => &text[..end],
        };
        found.push((number, *seconds));
        text = &text[end + 1..];
    }
    Some(found)
}

fn total<'t>(
    parts: impl IntoIterator<Item = (&'t str, i64)>,
    bad: impl Fn() -> BadDuration,
) -> Result<i64, BadDuration> {
    parts.into_iter().try_fold(0_i64, |sum, (number, unit)| {
        if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad());
        }
        let count: i64 = number.parse().map_err(|_| BadDuration::Overflow)?;
        let seconds = count.checked_mul(unit).ok_or(BadDuration::Overflow)?;
        sum.checked_add(seconds).ok_or(BadDuration::Overflow)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_strings_are_powers_of_1024_in_either_case() {
        for (text, bytes) in [
            ("0", 0),
            ("1024", 1024),
            ("1k", 1 << 10),
            ("2M", 2 << 20),
            ("4g", 4 << 30),
            ("3T", 3 << 40),
            (" 1k ", 1 << 10),
        ] {
            assert_eq!(memory_bytes(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn bad_memory_strings_are_refused_with_torcs_words() {
        for (text, message) in [
            ("", "Memory string cannot be empty"),
            ("  ", "Memory string cannot be empty"),
            ("100b", "Invalid memory unit: b"),
            ("1x", "Invalid memory unit: x"),
            ("4gé", "Invalid memory unit: é"),
            ("g", "Invalid number in memory string: "),
            ("1.5g", "Invalid number in memory string: 1.5"),
            ("4 g", "Invalid number in memory string: 4 "),
            ("-1k", "Memory size cannot be negative"),
            ("9999999999t", "Memory size too large, would cause overflow"),
        ] {
            assert_eq!(memory_bytes(text).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn memory_is_rendered_in_its_largest_whole_unit() {
        for (bytes, text) in [(0, "0"), (1, "1"), (1024, "1k"), (1536, "1536"), (3 << 30, "3g")] {
            assert_eq!(memory_string(bytes), text);
            assert_eq!(memory_bytes(text), Ok(bytes));
        }
        assert_eq!(gb_to_bytes(bytes_to_gb(5 << 30)), 5 << 30);
    }

    #[test]
    fn durations_are_read_as_torc_reads_them() {
        for (text, seconds) in [
            ("PT30M", 1800),
            ("P0DT1H", 3600),
            ("PT1M30S", 90),
            ("P1DT2H", 93_600),
            ("P2W", 1_209_600),
            ("P1Y", 31_557_600),
            ("P1M", 2_629_800),
            ("PT0.9S", 0),
            ("PT1,5S", 1),
            ("PT", 0),
            (" PT1S ", 1),
        ] {
            assert_eq!(duration_seconds(text), Ok(seconds), "{text}");
        }
    }

    #[test]
    fn bad_durations_are_refused() {
        for text in ["30m", "P", "PT30", "1H", "PT1.5H", "PT1M1H", "PTM", "P1H", "PT-1H", "P1WT1H", "PT1Hx"] {
            assert_eq!(duration_seconds(text), Err(BadDuration::Format(text.into())), "{text}");
        }
        assert_eq!(duration_seconds(" "), Err(BadDuration::Empty));
        assert_eq!(duration_seconds("P9999999999999999Y"), Err(BadDuration::Overflow));
    }

    #[test]
    fn a_rendered_duration_reads_back() {
        for (seconds, text) in [(0, "PT0S"), (90, "PT1M30S"), (5400, "PT1H30M"), (86_400, "PT24H")] {
            assert_eq!(duration_string(seconds), text);
            assert_eq!(duration_seconds(text), Ok(seconds));
        }
    }
}
