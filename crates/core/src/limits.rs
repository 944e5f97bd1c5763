//! Every fixed limit of the core, with the threat that it stops. Limits that an operator may set live in the
//! server's configuration; these are the ones that nobody should need to change.

/// Longest topic or pattern. Stops topic names from being used as storage.
pub const TOPIC_BYTES_MAX: usize = 1_024;
/// Longest publisher's id. It comes back in a request header of every resuming client.
pub const ID_BYTES_MAX: usize = 256;
/// Longest event name.
pub const EVENT_NAME_BYTES_MAX: usize = 256;
/// Most topics that one event is published to. Each costs an index entry and a wake-up.
pub const TOPICS_PER_EVENT_MAX: usize = 128;
/// Bytes that one segment of the log aims at: what is given back to the allocator at a time.
pub(crate) const SEGMENT_BYTES: usize = 256 * 1024;
/// Slots of the table that remembers what was trimmed, by topic hash: 16,384 × 24 bytes, whatever the number of topics.
pub(crate) const TRIM_TABLE_SLOTS: usize = 16 * 1024;
/// How long the index of a pattern without subscribers is kept for the next one, in milliseconds.
pub(crate) const UNUSED_PATTERN_KEPT_MS: u64 = 60_000;
/// Most bytes that the id and the `topic:` lines of one decoded block may have, beside the event's own limit. Stops a
/// stream from growing its reader's memory.
pub const FIELDS_BYTES_MAX: usize = 256 * 1_024;
