//! The `kyma-bindings` program.

use std::process::ExitCode;

/// Less time for a bind and less memory for many bindings than with glibc's: docs/performance.md.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    kyma_bindings::app::main(std::env::args_os())
}
