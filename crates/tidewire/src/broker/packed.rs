//! Events as bytes: as they lie on the disk, and as a batch lies in a stream. All numbers are little-endian.
//!
//! ```text
//! event   flags 1 | topics 4 | topic… | id? | name? | retry 8? | data
//! text    length 4 | UTF-8
//! ```

use tidewire_core::event::Event;
use tidewire_core::topic::Topic;

use super::Publication;

const HAS_ID: u8 = 1;
const HAS_NAME: u8 = 2;
const HAS_RETRY: u8 = 4;
const IS_PRIVATE: u8 = 8;

/// Appends an event.
pub(super) fn put_event(out: &mut Vec<u8>, Publication { topics, event }: &Publication) {
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    out.push(
        flag(event.id.is_some(), HAS_ID)
            | flag(event.event.is_some(), HAS_NAME)
            | flag(event.retry_ms.is_some(), HAS_RETRY)
            | flag(event.private, IS_PRIVATE),
    );
    out.extend_from_slice(&(topics.len() as u32).to_le_bytes());
    for topic in topics {
        put_text(out, topic.as_str());
    }
    for text in event.id.iter().chain(&event.event) {
        put_text(out, text);
    }
    if let Some(retry_ms) = event.retry_ms {
        out.extend_from_slice(&retry_ms.to_le_bytes());
    }
    put_text(out, &event.data);
}

/// Appends a text.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u32).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Reads off the front of what is left. `None` where that is nothing that was written here; no rule of the events
/// themselves is looked at, but for their topics'.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn str(&mut self) -> Option<&'a str> {
        let len = self.u32()? as usize;
        std::str::from_utf8(self.take(len)?).ok()
    }

    pub(super) fn text(&mut self) -> Option<String> {
        self.str().map(str::to_owned)
    }

    pub(super) fn topic(&mut self) -> Option<Topic> {
        Topic::new(self.str()?).ok()
    }

    pub(super) fn event(&mut self) -> Option<Publication> {
        let flags = self.u8()?;
        if flags & !(HAS_ID | HAS_NAME | HAS_RETRY | IS_PRIVATE) != 0 {
            return None;
        }
        let topics = self.u32()?;
        let topics = (0..topics).map(|_| self.topic()).collect::<Option<_>>()?;
        let mut text_if = |flag: u8| match flags & flag {
            0 => Some(None),
            _ => Some(Some(self.text()?)),
        };
        let (id, event) = (text_if(HAS_ID)?, text_if(HAS_NAME)?);
        let retry_ms = match flags & HAS_RETRY {
            0 => None,
            _ => Some(self.u64()?),
        };
        let event = Event {
            id,
            event,
            retry_ms,
            data: self.text()?,
            private: flags & IS_PRIVATE != 0,
        };
        Some(Publication { topics, event })
    }
}
