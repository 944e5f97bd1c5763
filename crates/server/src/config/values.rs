//! How durations, sizes, counts and addresses are written. Each module is a serde `with`: the configuration keeps std's
//! types, and a file keeps its units.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use jiff::SpanRelativeTo;
use jiff::fmt::friendly::{Designator, Spacing, SpanParser, SpanPrinter};
use serde::de::{Error, Unexpected, Visitor};

const DURATION_ALLOWED: &str = "a duration with its unit, such as 500ms, 30s, 10m, 1h30m or 7d";
const BYTES_ALLOWED: &str = "a size, such as 64KiB, 1MB or a number of bytes";
const COUNT_ALLOWED: &str = "a whole number, such as 10000";

/// Reads `1h30m`, `7d` and the like. A day has 24 hours here; months and years are refused, since they are not always as long.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let span = SpanParser::new().parse_span(text.trim()).ok()?;
    let exact = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
    Duration::try_from(exact).ok()
}

/// Writes what [`parse_duration`] reads: `1h30m`.
pub(crate) fn format_duration(duration: Duration) -> String {
    SpanPrinter::new()
        .designator(Designator::Compact)
        .spacing(Spacing::None)
        .unsigned_duration_to_string(&duration)
}

/// Writes a size with the largest binary unit that leaves no fraction: `64MiB`, `1000B`.
pub(crate) fn format_bytes(bytes: u64) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let exact = units
        .iter()
        .find(|(_, shift)| bytes > 0 && bytes.trailing_zeros() >= *shift);
    exact.map_or_else(
        || format!("{bytes}B"),
        |(unit, shift)| format!("{}{unit}", bytes >> shift),
    )
}

/// A [`Duration`] as `10m`.
pub(crate) mod duration {
    use super::{Duration, DurationVisitor, format_duration};

    pub(crate) fn serialize<S: serde::Serializer>(
        value: &Duration,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format_duration(*value))
    }

    pub(crate) fn deserialize<'de, D: serde::Deserializer<'de>>(
        from: D,
    ) -> Result<Duration, D::Error> {
        from.deserialize_any(DurationVisitor)
    }
}

/// An `Option<Duration>` as `10m`.
pub(crate) mod duration_option {
    use super::{Duration, duration};

    #[expect(clippy::ref_option, reason = "serde's signature")]
    pub(crate) fn serialize<S: serde::Serializer>(
        value: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => duration::serialize(value, to),
            None => to.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: serde::Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        duration::deserialize(from).map(Some)
    }
}

struct DurationVisitor;

impl Visitor<'_> for DurationVisitor {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(DURATION_ALLOWED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
        if let Ok(bare) = text.trim().parse() {
            return self.visit_i64(bare);
        }
        parse_duration(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }

    fn visit_i64<E: Error>(self, bare: i64) -> Result<Duration, E> {
        if bare < 0 {
            return Err(E::invalid_value(Unexpected::Signed(bare), &self));
        }
        let allowed =
            format!("{DURATION_ALLOWED}; a bare number has none: write {bare}s for seconds");
        Err(E::invalid_value(
            Unexpected::Signed(bare),
            &allowed.as_str(),
        ))
    }
}

/// A number of bytes as `64MiB`.
pub(crate) mod bytes {
    use super::{BytesVisitor, format_bytes};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(crate) fn serialize<S: serde::Serializer>(value: &usize, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format_bytes(*value as u64))
    }

    pub(crate) fn deserialize<'de, D: serde::Deserializer<'de>>(
        from: D,
    ) -> Result<usize, D::Error> {
        from.deserialize_any(BytesVisitor)
    }
}

struct BytesVisitor;

impl Visitor<'_> for BytesVisitor {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(BYTES_ALLOWED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<usize, E> {
        let size = text
            .trim()
            .parse()
            .ok()
            .and_then(|size: bytesize::ByteSize| usize::try_from(size.0).ok());
        size.ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }

    fn visit_i64<E: Error>(self, bytes: i64) -> Result<usize, E> {
        usize::try_from(bytes).map_err(|_| E::invalid_value(Unexpected::Signed(bytes), &self))
    }
}

/// A count of things. Files have it as a number, the environment as text.
pub(crate) mod count {
    use super::CountVisitor;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(crate) fn serialize<S: serde::Serializer>(value: &usize, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(*value as u64)
    }

    pub(crate) fn deserialize<'de, D: serde::Deserializer<'de>>(
        from: D,
    ) -> Result<usize, D::Error> {
        from.deserialize_u64(CountVisitor)
    }
}

/// An optional count of things.
pub(crate) mod count_option {
    use super::count;

    #[expect(clippy::ref_option, reason = "serde's signature")]
    pub(crate) fn serialize<S: serde::Serializer>(
        value: &Option<usize>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => count::serialize(value, to),
            None => to.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: serde::Deserializer<'de>>(
        from: D,
    ) -> Result<Option<usize>, D::Error> {
        count::deserialize(from).map(Some)
    }
}

struct CountVisitor;

impl Visitor<'_> for CountVisitor {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(COUNT_ALLOWED)
    }

    fn visit_i64<E: Error>(self, count: i64) -> Result<usize, E> {
        usize::try_from(count).map_err(|_| E::invalid_value(Unexpected::Signed(count), &self))
    }
}

/// The address to listen on.
pub(crate) mod listen {
    use super::{ListenVisitor, SocketAddr};

    pub(crate) fn serialize<S: serde::Serializer>(
        value: &SocketAddr,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(crate) fn deserialize<'de, D: serde::Deserializer<'de>>(
        from: D,
    ) -> Result<SocketAddr, D::Error> {
        from.deserialize_any(ListenVisitor)
    }
}

/// An `Option<SocketAddr>`, in the same way.
pub(crate) mod listen_option {
    use super::{SocketAddr, listen};

    #[expect(clippy::ref_option, reason = "serde's signature")]
    pub(crate) fn serialize<S: serde::Serializer>(
        value: &Option<SocketAddr>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => listen::serialize(value, to),
            None => to.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: serde::Deserializer<'de>>(
        from: D,
    ) -> Result<Option<SocketAddr>, D::Error> {
        listen::deserialize(from).map(Some)
    }
}

struct ListenVisitor;

impl ListenVisitor {
    /// For a port alone, which leaves open whom the hub is for.
    fn port_only<E: Error>(given: Unexpected<'_>, port: &str) -> E {
        let allowed = format!(
            "an IP address and a port: write 127.0.0.1:{port} for this machine only, 0.0.0.0:{port} for everyone"
        );
        E::invalid_value(given, &allowed.as_str())
    }
}

impl Visitor<'_> for ListenVisitor {
    type Value = SocketAddr;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "an IP address and a port, such as 127.0.0.1:8080, localhost:8080 or [::1]:8080",
        )
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<SocketAddr, E> {
        let given = Unexpected::Str(text);
        let bare = text.strip_prefix(':').unwrap_or(text);
        if bare.parse::<u16>().is_ok() {
            return Err(Self::port_only(given, bare));
        }
        if let Some(port) = text
            .strip_prefix("localhost:")
            .and_then(|port| port.parse().ok())
        {
            return Ok(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
        }
        if let Ok(address) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
            let allowed = format!(
                "an IP address and a port, such as {}",
                SocketAddr::new(address, 8080)
            );
            return Err(E::invalid_value(given, &allowed.as_str()));
        }
        text.parse().map_err(|_| E::invalid_value(given, &self))
    }

    fn visit_i64<E: Error>(self, port: i64) -> Result<SocketAddr, E> {
        Err(Self::port_only(Unexpected::Signed(port), &port.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_they_are_read() {
        for text in [
            "500ms", "30s", "10m", "1h30m", "24h", "1m30s", "0s", "1s500ms",
        ] {
            assert_eq!(format_duration(parse_duration(text).unwrap()), text);
        }
        assert_eq!(parse_duration("1.5s"), Some(Duration::from_millis(1_500)));
        for (text, hours) in [("1d", 24), ("90d", 2_160), ("1d12h", 36), ("2d 1h", 49)] {
            assert_eq!(parse_duration(text), Some(Duration::from_hours(hours)));
        }
        let far = format!("{}d", u64::MAX);
        for text in [
            "", "10", "10x", "-3s", "1 month", "s", "d", "-1d", "1.5d", "1d5", "1dd", &far,
        ] {
            assert_eq!(parse_duration(text), None, "{text:?}");
        }
    }

    #[test]
    fn sizes_are_written_without_a_loss() {
        for (bytes, text) in [
            (0, "0B"),
            (65_536, "64KiB"),
            (1 << 20, "1MiB"),
            (1_000_000, "1000000B"),
            (1 << 31, "2GiB"),
        ] {
            assert_eq!(format_bytes(bytes), text);
            assert_eq!(
                BytesVisitor.visit_str::<serde::de::value::Error>(text),
                Ok(bytes as usize)
            );
        }
    }
}
