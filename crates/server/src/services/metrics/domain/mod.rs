//! The domain: what a metric and a reading are, and what makes one that is not taken.
//!
//! Nothing here knows of HTTP or of the hub: that something happened is told through [`Announce`], and
//! `scripts/check.sh` sees to it that this stays so.

mod use_cases;

use jiff::{Timestamp, Unit};
use uuid::Uuid;

pub(crate) use self::use_cases::{Announce, Failed, Happened, NotAnnounced, Repository, UseCases};

/// Longest name of a metric. As the two below, it stops metrics from being used as storage.
pub(crate) const NAME_BYTES_MAX: usize = 200;
/// Longest unit.
pub(crate) const UNIT_BYTES_MAX: usize = 50;
/// Longest description.
pub(crate) const DESCRIPTION_BYTES_MAX: usize = 1_000;

/// Something that is measured.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Metric {
    /// A `UUIDv7`: ids are in the order of creation.
    pub(crate) id: Uuid,
    pub(crate) name: String,
    pub(crate) unit: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) created_at: Timestamp,
}

/// One measurement of a metric.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reading {
    /// A `UUIDv7`.
    pub(crate) id: Uuid,
    pub(crate) metric_id: Uuid,
    /// Neither infinite nor NaN.
    pub(crate) value: f64,
    pub(crate) recorded_at: Timestamp,
}

/// Why something is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Invalid {
    /// Which field is meant.
    pub(crate) field: &'static str,
    /// The rule that it breaks, for programs.
    pub(crate) reason: &'static str,
    /// The rule, for people.
    pub(crate) detail: String,
}

impl Metric {
    /// A new metric, which is nowhere yet.
    ///
    /// # Errors
    /// If the name is empty or a text is too long.
    pub(crate) fn new(
        name: String,
        unit: Option<String>,
        description: Option<String>,
    ) -> Result<Self, Invalid> {
        if name.trim().is_empty() {
            return Err(Invalid {
                field: "name",
                reason: "empty",
                detail: "a metric's name is not empty".to_owned(),
            });
        }
        check_length("name", &name, NAME_BYTES_MAX)?;
        check_length("unit", unit.as_deref().unwrap_or_default(), UNIT_BYTES_MAX)?;
        let text = description.as_deref().unwrap_or_default();
        check_length("description", text, DESCRIPTION_BYTES_MAX)?;
        Ok(Self {
            id: Uuid::now_v7(),
            name,
            unit,
            description,
            created_at: now(),
        })
    }
}

impl Reading {
    /// A new reading, of now where no time is given.
    ///
    /// # Errors
    /// If the value is not finite, or the time is not one of RFC 3339.
    pub(crate) fn new(
        metric_id: Uuid,
        value: f64,
        recorded_at: Option<&str>,
    ) -> Result<Self, Invalid> {
        if !value.is_finite() {
            return Err(Invalid {
                field: "value",
                reason: "not_finite",
                detail: "a reading's value is a finite number".to_owned(),
            });
        }
        Ok(Self {
            id: Uuid::now_v7(),
            metric_id,
            value,
            recorded_at: recorded_at.map_or_else(|| Ok(now()), parse_time)?,
        })
    }
}

fn check_length(field: &'static str, text: &str, bytes_max: usize) -> Result<(), Invalid> {
    if text.len() <= bytes_max {
        return Ok(());
    }
    Err(Invalid {
        field,
        reason: "too_long",
        detail: format!(
            "a metric's {field} has {bytes_max} bytes of UTF-8 at most, not {}",
            text.len()
        ),
    })
}

/// The time, to the millisecond.
fn now() -> Timestamp {
    let now = Timestamp::now();
    now.round(Unit::Millisecond).unwrap_or(now)
}

fn parse_time(text: &str) -> Result<Timestamp, Invalid> {
    // jiff reads years of six digits too, signed, which RFC 3339 can't write.
    let signed = text.starts_with(['+', '-']);
    let time = if signed { None } else { text.parse().ok() };
    time.ok_or_else(|| Invalid {
        field: "recorded_at",
        reason: "not_rfc3339",
        detail: "a reading's time is RFC 3339 text with an offset, such as 2026-11-21T12:15:06.22Z"
            .to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_is_finite_and_has_a_time_with_an_offset() {
        let id = Uuid::now_v7();
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let reason = Reading::new(id, value, None).map_err(|invalid| invalid.reason);
            assert_eq!(reason, Err("not_finite"), "{value}");
        }
        for text in [
            "",
            "yesterday",
            "2026-11-21",
            "2026-11-21T12:00:00",
            "1763726400",
            "+002026-11-21T12:00:00Z",
        ] {
            let reason = Reading::new(id, 1.0, Some(text)).map_err(|invalid| invalid.reason);
            assert_eq!(reason, Err("not_rfc3339"), "{text}");
        }
        let reading = Reading::new(id, 1.0, Some("2026-11-21T13:00:00.5+01:00")).unwrap();
        assert_eq!(reading.recorded_at.to_string(), "2026-11-21T12:00:00.5Z");
    }

    #[test]
    fn ids_are_in_the_order_of_creation() {
        let metrics: Vec<_> = (0..1_000)
            .map(|n| Metric::new(n.to_string(), None, None).unwrap())
            .collect();
        assert!(metrics.is_sorted_by(|a, b| a.id < b.id));
        assert_eq!(metrics[0].id.get_version_num(), 7);
    }
}
