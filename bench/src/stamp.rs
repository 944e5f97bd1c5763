//! What is published: JSON of a given size with a marker, `@` and eight hexadecimal digits, that numbers it.
//!
//! The number is all that travels. When it was published, and to what topic, the generator looks up in its
//! [ledger](crate::ledger), as it is publisher and reader in one.

/// What an event has by default, in bytes.
pub const EVENT_BYTES: usize = 100;
/// What begins a marker. Nothing else that a server sends on a stream has this byte.
pub const MARK: u8 = b'@';
/// Digits of a marker.
pub const DIGITS: usize = 8;
/// The marker and what stands around it; an event has at least these bytes.
const FRAME_BYTES: usize = r#"{"n":"@00000000","pad":""}"#.len();

/// The data of event `number`, `bytes` long (at least as long as its frame).
pub fn data(number: u32, bytes: usize) -> String {
    let pad = "x".repeat(bytes.saturating_sub(FRAME_BYTES));
    format!(r#"{{"n":"@{number:08x}","pad":"{pad}"}}"#)
}

/// The value of eight hexadecimal digits in lower case.
pub fn number(digits: &[u8]) -> Option<u32> {
    if digits.len() != DIGITS {
        return None;
    }
    digits
        .iter()
        .try_fold(0, |number, &digit| Some(number << 4 | value(digit)?))
}

/// The value of one digit.
pub fn value(digit: u8) -> Option<u32> {
    match digit {
        b'0'..=b'9' => Some(u32::from(digit - b'0')),
        b'a'..=b'f' => Some(u32::from(digit - b'a') + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_its_size_and_its_number() {
        let data = data(0x2a, EVENT_BYTES);
        assert_eq!(data.len(), EVENT_BYTES);
        let at = data.find('@').unwrap();
        assert_eq!(number(&data.as_bytes()[at + 1..][..DIGITS]), Some(0x2a));
        assert_eq!(number(b"0000002G"), None);
    }
}
