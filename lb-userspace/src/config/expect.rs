//! HTTP statuses that pass a check: "200-399", "200,204,300-399".

use std::{fmt, ops::RangeInclusive, str::FromStr};

/// A set of HTTP statuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusRanges(Vec<RangeInclusive<u16>>);

impl StatusRanges {
    /// Whether the status is one of them.
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

impl Default for StatusRanges {
    /// 200-399: an answer, or a redirection to one.
    fn default() -> Self {
        Self(vec![200..=399])
    }
}

impl FromStr for StatusRanges {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split(',').map(|part| range(part.trim())).collect::<Result<_, _>>().map(Self)
    }
}

fn range(part: &str) -> Result<RangeInclusive<u16>, String> {
    let (first, last) = part.split_once('-').unwrap_or((part, part));
    let (first, last) = (status(first)?, status(last)?);
    if first > last {
        return Err(format!("the range {part} is empty: write {last}-{first}"));
    }
    Ok(first..=last)
}

fn status(text: &str) -> Result<u16, String> {
    let digits = text.trim();
    match digits.parse() {
        Ok(status @ 100..=599) if digits.len() == 3 => Ok(status),
        _ => Err(format!("{digits:?} is not an HTTP status (100 to 599); write e.g. \"200-399\" or \"200,204\"")),
    }
}

impl fmt::Display for StatusRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match (range.start(), range.end()) {
                (first, last) if first == last => write!(f, "{comma}{first}")?,
                (first, last) => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_and_written_back() {
        for (text, written, passes, fails) in [
            ("200-399", "200-399", &[200, 301, 399][..], &[199, 400, 500][..]),
            ("200,204,300-399", "200,204,300-399", &[200, 204, 300], &[201, 299]),
            (" 200 - 299 , 418 ", "200-299,418", &[250, 418], &[417]),
        ] {
            let ranges: StatusRanges = text.parse().unwrap();
            assert_eq!(ranges.to_string(), written);
            assert!(passes.iter().all(|status| ranges.contains(*status)), "{text}");
            assert!(!fails.iter().any(|status| ranges.contains(*status)), "{text}");
        }
    }

    #[test]
    fn what_is_no_status_is_refused() {
        for text in ["", "ok", "20", "200-", "-200", "399-200", "600", "200,,204", "+200", "0200"] {
            assert!(text.parse::<StatusRanges>().is_err(), "{text:?}");
        }
    }
}
