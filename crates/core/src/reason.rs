//! Why connections end and events are missing, under the names by which that is counted, logged and told.

/// What happens to a client whose position falls off the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlowClient {
    /// It is closed, and resumes with a `gap` if it comes back.
    #[default]
    Close,
    /// It is told of the gap and goes on from the oldest event held.
    Skip,
}

/// Why a connection ended. Counted and logged by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum CloseReason {
    /// The client went away.
    ClientGone,
    /// All topics of the subscription have ended.
    Ended,
    /// The position fell off the log.
    Lagged,
    /// The client took no byte for too long while there was something to send.
    Stalled,
    /// The oldest connection made room for a new one.
    Evicted,
    /// Refused for want of room.
    Rejected,
    /// The hub is shutting down.
    Shutdown,
    /// Closed on request.
    Closed,
    /// Another connection with the same id took over.
    Replaced,
    /// The longest life of a connection was over.
    Lifetime,
    /// The credential with which it was opened was over.
    Expired,
}

impl CloseReason {
    /// Every reason, in order of their number.
    pub const ALL: [Self; 11] = [
        Self::ClientGone,
        Self::Ended,
        Self::Lagged,
        Self::Stalled,
        Self::Evicted,
        Self::Rejected,
        Self::Shutdown,
        Self::Closed,
        Self::Replaced,
        Self::Lifetime,
        Self::Expired,
    ];

    /// The name under which it is counted.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClientGone => "client_gone",
            Self::Ended => "ended",
            Self::Lagged => "lagged",
            Self::Stalled => "stalled",
            Self::Evicted => "evicted",
            Self::Rejected => "rejected",
            Self::Shutdown => "shutdown",
            Self::Closed => "closed",
            Self::Replaced => "replaced",
            Self::Lifetime => "lifetime",
            Self::Expired => "expired",
        }
    }
}

/// Why events are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapReason {
    /// Events after the client's position have left the history.
    Expired,
    /// The history does not know the client's id: another hub's, or one of a life before.
    UnknownId,
    /// The client was connected, but too slow.
    Lagged,
}

impl GapReason {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::UnknownId => "unknown_id",
            Self::Lagged => "lagged",
        }
    }
}
