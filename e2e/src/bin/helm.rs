//! Runs the Helm that is pinned for the tests, with the same arguments.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::Context as _;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let helm = e2e::helm::program().await?;
    let failed: io::Error = Command::new(&helm).args(std::env::args_os().skip(1)).exec();
    Err(failed).with_context(|| helm.display().to_string())
}
