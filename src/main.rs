//! The `kyma-bindings` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    kyma_bindings::run::main(std::env::args_os())
}
