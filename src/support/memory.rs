//! What is in memory stays there.

use rustix::process::{Resource, Rlimit, setrlimit};

/// Sees to it that no core is dumped, since it would hold all that is in memory. One byte, not none: where cores
/// are piped into a program, the kernel looks at no other limit than this one (core(5), "piping core dumps").
pub fn no_core_dumps() {
    let one = Rlimit { current: Some(1), maximum: Some(1) };
    // It can fail only where less is allowed already.
    let _ = setrlimit(Resource::Core, one);
}
