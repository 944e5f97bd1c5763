//! What one reader of a [`Crowd`](super::Crowd) makes of the bytes it gets: the head, the chunks, the events, their order.

use std::time::Instant;

use tidewire_core::decode::{Decoded, Decoder};

/// Name and data of any event in these tests.
const EVENT_BYTES_MAX: usize = 1024 * 1024;

/// How a stream ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With the last chunk, and not within an event.
    Whole,
    /// The connection broke; says how.
    CutOff(String),
}

/// What a reader has got so far.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// 0 before the head is there.
    pub(crate) status: u16,
    /// By the name of each series: how many of it, and the last number.
    pub(crate) series: Vec<(String, u64, u64)>,
    /// The data of each `gap`.
    pub(crate) gaps: Vec<String>,
    /// The `retry:` line that the stream ended with.
    pub(crate) last_retry_ms: Option<u64>,
    pub(crate) end: Option<(End, Instant)>,
    /// The first thing that was wrong.
    pub(crate) fault: Option<String>,
    /// Series that may skip numbers once, for a gap was told.
    may_skip: Vec<String>,
}

impl Seen {
    /// How many events of a series there were.
    pub(crate) fn count(&self, series: &str) -> u64 {
        self.series
            .iter()
            .find(|(name, ..)| name == series)
            .map_or(0, |(_, count, _)| *count)
    }

    /// The newest number of a series.
    pub(crate) fn last(&self, series: &str) -> Option<u64> {
        self.series
            .iter()
            .find(|(name, ..)| name == series)
            .map(|(.., last)| *last)
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.end.is_some()
    }

    fn take(&mut self, event: &Decoded) {
        if event.event == "gap" {
            self.gaps.push(event.data.clone());
            self.may_skip = self.series.iter().map(|(name, ..)| name.clone()).collect();
            return;
        }
        let mut words = event.data.split(' ');
        let name = words.next().unwrap_or_default();
        let Some(number) = words.next().and_then(|number| number.parse::<u64>().ok()) else {
            self.fault = Some(format!("an event that is not numbered: {event:?}"));
            return;
        };
        let Some((_, count, last)) = self.series.iter_mut().find(|(series, ..)| series == name)
        else {
            self.series.push((name.to_owned(), 1, number));
            return;
        };
        let skips = self.may_skip.iter().position(|series| series == name);
        let in_order = number == *last + 1 || (skips.is_some() && number > *last);
        if !in_order {
            self.fault = Some(format!("{name} {number} came after {name} {last}"));
        }
        if let Some(skips) = skips {
            self.may_skip.swap_remove(skips);
        }
        (*count, *last) = (*count + 1, number);
    }
}

/// Where in the answer the next byte stands.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Head,
    ChunkHead,
    Chunk(usize),
    ChunkEnd,
    End,
}

/// The answer so far.
#[derive(Debug)]
pub(crate) struct Wire {
    place: Place,
    /// The head, or a chunk's, as far as it has come.
    line: Vec<u8>,
    decoder: Decoder,
    /// The last bytes of the body, for the line that it ends with.
    tail: Vec<u8>,
}

impl Default for Wire {
    fn default() -> Self {
        Self {
            place: Place::Head,
            line: Vec::new(),
            decoder: Decoder::new(EVENT_BYTES_MAX),
            tail: Vec::new(),
        }
    }
}

impl Wire {
    /// Takes bytes in; true when the answer is complete.
    pub(crate) fn push(&mut self, mut bytes: &[u8], seen: &mut Seen) -> bool {
        while !bytes.is_empty() && self.place != Place::End && seen.fault.is_none() {
            if let Place::Chunk(left) = &mut self.place {
                let (body, rest) = bytes.split_at(bytes.len().min(*left));
                *left -= body.len();
                if *left == 0 {
                    self.place = Place::ChunkEnd;
                }
                bytes = rest;
                self.push_body(body, seen);
            } else {
                self.line.push(bytes[0]);
                bytes = &bytes[1..];
                self.end_line(seen);
            }
        }
        self.place == Place::End || seen.fault.is_some()
    }

    /// The connection has ended before the answer did.
    pub(crate) fn end_of_bytes(&self) -> End {
        End::CutOff(format!("the bytes ended at {:?}", self.place))
    }

    fn end_line(&mut self, seen: &mut Seen) {
        let end: &[u8] = if self.place == Place::Head {
            b"\r\n\r\n"
        } else {
            b"\r\n"
        };
        if !self.line.ends_with(end) {
            return;
        }
        let line = String::from_utf8_lossy(&self.line).into_owned();
        self.line.clear();
        match self.place {
            Place::Head => {
                let status = line
                    .split(' ')
                    .nth(1)
                    .and_then(|status| status.parse().ok());
                seen.status = status.unwrap_or(0);
                if seen.status != 200 || !line.contains("transfer-encoding: chunked") {
                    seen.fault = Some(format!("no stream: {line}"));
                }
                self.place = Place::ChunkHead;
            }
            Place::ChunkHead => match usize::from_str_radix(line.trim_end(), 16) {
                Ok(0) => self.end_body(seen),
                Ok(size) => self.place = Place::Chunk(size),
                Err(_) => seen.fault = Some(format!("no chunk size: {line:?}")),
            },
            _ => self.place = Place::ChunkHead,
        }
    }

    fn push_body(&mut self, body: &[u8], seen: &mut Seen) {
        self.decoder.push(body);
        loop {
            match self.decoder.next_event() {
                Ok(Some(event)) => seen.take(&event),
                Ok(None) => break,
                Err(error) => {
                    seen.fault = Some(error.to_string());
                    return;
                }
            }
        }
        self.tail
            .extend_from_slice(&body[body.len().saturating_sub(32)..]);
        self.tail.drain(..self.tail.len().saturating_sub(32));
    }

    /// The last chunk was there: was an event under way?
    fn end_body(&mut self, seen: &mut Seen) {
        self.place = Place::End;
        let tail = String::from_utf8_lossy(&self.tail).into_owned();
        let last_line = tail
            .strip_suffix('\n')
            .and_then(|text| text.rsplit('\n').next());
        seen.last_retry_ms = last_line
            .and_then(|line| line.strip_prefix("retry: "))
            .and_then(|ms| ms.parse().ok());
        let last_id = self.decoder.last_event_id().to_owned();
        self.decoder.push(b"\n\n");
        let broken = !matches!(self.decoder.next_event(), Ok(None));
        if broken || !tail.ends_with('\n') || self.decoder.last_event_id() != last_id {
            seen.fault = Some(format!("the stream ended within an event: {tail:?}"));
        }
    }
}
