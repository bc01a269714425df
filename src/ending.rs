//! Why a connection was ended, where that was not its client's wish.

use std::error::Error as _;

/// Its words are labels of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// What came was no HTTP.
    Malformed,
    /// The head was larger than what is read at all.
    HeadTooLarge,
    /// No request came in time, or nobody answers to pings.
    Timeout,
    /// HTTP/2 was spoken wrongly.
    Protocol,
    /// HTTP/2 that only keeps us busy.
    Flood,
    /// An answer was not taken in time.
    Unread,
    /// Nothing was asked for long.
    Idle,
    /// The process ended before its requests did.
    Drain,
}

impl Ending {
    /// The word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::HeadTooLarge => "head_too_large",
            Self::Timeout => "timeout",
            Self::Protocol => "protocol",
            Self::Flood => "flood",
            Self::Unread => "unread",
            Self::Idle => "idle",
            Self::Drain => "drain",
        }
    }

    /// What we ended a connection for, if it wasn't its client who did.
    #[must_use]
    pub fn of(error: &hyper::Error) -> Option<Self> {
        let of_http2 = || error.source()?.downcast_ref::<h2::Error>();
        if error.is_parse_too_large() {
            Some(Self::HeadTooLarge)
        } else if error.is_parse() {
            Some(Self::Malformed)
        } else if error.is_timeout() {
            Some(Self::Timeout)
        } else {
            // One that came from the other side, or from the socket, is the client's affair.
            let ours = of_http2().filter(|error| error.is_library())?;
            let flood = ours.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM);
            Some(if flood { Self::Flood } else { Self::Protocol })
        }
    }
}
