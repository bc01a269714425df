//! The sets of labels. Each value is one of a few words of ours.

use std::fmt::Debug;
use std::hash::Hash;

use prometheus_client::encoding::EncodeLabelSet;

/// A set of labels that can name them.
pub(super) trait Labels: EncodeLabelSet + Clone + Debug + Eq + Hash + Send + Sync + 'static {
    /// Their names, in order.
    const NAMES: &'static [&'static str];
}

macro_rules! labels {
    ($($set:ident { $($label:ident: $type:ty),+ })+) => {$(
        #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub(super) struct $set {
            $(pub $label: $type,)+
        }

        impl Labels for $set {
            const NAMES: &'static [&'static str] = &[$(stringify!($label)),+];
        }
    )+};
}

labels! {
    Request { route: &'static str, method: &'static str, code: u16 }
    Route { route: &'static str, method: &'static str }
    Outcome { result: &'static str }
    Cause { reason: &'static str }
    Part { phase: &'static str }
    Listener { listener: &'static str }
    Ended { listener: &'static str, reason: &'static str }
    Denied { scheme: &'static str, reason: &'static str }
    Call { verb: &'static str, result: &'static str }
    Verb { verb: &'static str }
    Try { verb: &'static str, reason: &'static str }
}
