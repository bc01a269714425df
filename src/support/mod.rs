//! What all parts use, and what knows none of them.

pub(crate) mod clock;
pub(crate) mod codec;
pub(crate) mod descriptors;
pub(crate) mod failpoint;
pub(crate) mod grace;
pub(crate) mod memory;
pub(crate) mod reload;
pub mod secret;
