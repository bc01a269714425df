//! Why a connection was ended by us.

use std::error::Error as _;
use std::io;

/// Its words are labels of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// A head that can't be read, or of a version that isn't spoken there.
    Malformed,
    /// The head was larger than what is read at all.
    HeadTooLarge,
    /// The head of the first request did not come in time.
    Timeout,
    /// HTTP/2 or TLS was spoken wrongly.
    Protocol,
    /// HTTP/2 that only keeps us busy.
    Flood,
    /// An answer was not taken in time.
    Unread,
    /// Nothing more was asked for long: ordinary, for a client that keeps its connections.
    Idle,
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
        }
    }

    /// What we ended a connection for, if it wasn't its client who did. `used` says whether there was a
    /// request on it. Who closes the socket first, or says GOAWAY, is taken for the one who ended it.
    #[must_use]
    pub fn of(error: &hyper::Error, used: bool) -> Option<Self> {
        let of_http2 = || error.source()?.downcast_ref::<h2::Error>();
        // So rustls says that what came was no record.
        let of_tls =
            || Some(error.source()?.downcast_ref::<io::Error>()?.kind() == io::ErrorKind::InvalidData);
        if error.is_parse_too_large() {
            Some(Self::HeadTooLarge)
        } else if error.is_parse() {
            Some(Self::Malformed)
        } else if error.is_timeout() {
            Some(if used { Self::Idle } else { Self::Timeout })
        } else if of_tls() == Some(true) {
            Some(Self::Protocol)
        } else {
            let ours = of_http2().filter(|error| error.is_library())?;
            let flood = ours.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM);
            Some(if flood { Self::Flood } else { Self::Protocol })
        }
    }
}
