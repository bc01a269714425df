//! Nothing started by a test may be left behind, however the test process ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::process::is_alive;
use e2e::{Exit, ManagedProcess, WorkDir, eventually};

const DEADLINE: Duration = Duration::from_secs(10);
/// Set for the child program, which would wait for input when somebody runs all ignored tests.
const CHILD: &str = "E2E_CHILD_PROGRAM";

fn script(text: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", text]);
    command
}

#[tokio::test]
async fn exit_codes_signals_and_output_are_reported() -> Result<()> {
    let dir = Arc::new(WorkDir::new("e2e-exit")?);
    let mut command = script("echo \"out $VALUE\"; echo err >&2; cat; exit 3");
    command.env("VALUE", "seen");
    let process = ManagedProcess::spawn("exits", &command, &dir)?;
    assert_eq!(process.wait(DEADLINE).await?, Exit::Code(3));
    assert_eq!(process.log(), "out seen\nerr\n");
    assert_eq!(process.log_tail(1), "err");
    process.kill();

    let process = ManagedProcess::spawn("killed", &script("exec sleep 600"), &dir)?;
    assert!(process.wait(Duration::from_millis(50)).await.is_err());
    process.kill();
    assert_eq!(process.wait(DEADLINE).await?, Exit::Signal(9));

    let missing = ManagedProcess::spawn("missing", &Command::new("/does/not/exist"), &dir)?;
    assert_eq!(missing.wait(DEADLINE).await?, Exit::Code(127));
    Ok(())
}

#[tokio::test]
async fn stop_asks_first_and_then_kills() -> Result<()> {
    let dir = Arc::new(WorkDir::new("e2e-stop")?);
    let polite = script("trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done");
    let process = ManagedProcess::spawn("polite", &polite, &dir)?;
    await_ready(&process).await?;
    assert_eq!(process.stop(DEADLINE).await?, Exit::Code(7));

    let stubborn = script("trap '' TERM; echo ready; while :; do sleep 0.05; done");
    let process = ManagedProcess::spawn("stubborn", &stubborn, &dir)?;
    await_ready(&process).await?;
    let exit = process.stop(Duration::from_millis(200)).await?;
    assert_eq!(exit, Exit::Signal(9));
    Ok(())
}

async fn await_ready(process: &ManagedProcess) -> Result<()> {
    Ok(eventually("the script to start", DEADLINE, async || {
        let log = process.log();
        if log.contains("ready") { Ok(()) } else { Err(log) }
    })
    .await?)
}

#[test]
fn the_directory_goes_after_the_last_process_in_it() -> Result<()> {
    let dir = Arc::new(WorkDir::new("e2e-drop")?);
    let path = dir.path().to_owned();
    let first = ManagedProcess::spawn("first", &script("exec sleep 600"), &dir)?;
    let second = ManagedProcess::spawn("second", &script("exec sleep 600"), &dir)?;
    drop(dir);
    let pids = [first.pid(), second.pid()];
    drop(first);
    assert!(!is_alive(pids[0]) && is_alive(pids[1]) && path.exists());
    drop(second);
    assert!(!is_alive(pids[1]) && !path.exists());
    Ok(())
}

/// Not a test: the program that the tests below run and watch.
#[test]
#[ignore = "run by other tests of this file"]
fn child_program() -> Result<()> {
    static KEPT: OnceLock<ManagedProcess> = OnceLock::new();
    if std::env::var_os(CHILD).is_none() {
        return Ok(());
    }
    let dir = Arc::new(WorkDir::new("e2e-child")?);
    // On a thread that ends at once: the process belongs to the whole program.
    let process = std::thread::scope(|scope| {
        let spawned = scope.spawn(|| ManagedProcess::spawn("kept", &script("exec sleep 600"), &dir));
        spawned.join().ok().context("the thread panicked")
    })??;
    let process = KEPT.get_or_init(|| process);
    println!("STARTED {} {}", process.pid(), dir.path().display());
    // Ends by itself, or is killed before.
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(())
}

async fn child_leaves_nothing(killed: bool) -> Result<()> {
    let mut child = Command::new(std::env::current_exe()?)
        .env(CHILD, "1")
        .args(["--exact", "--ignored", "--nocapture", "child_program"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().context("no output")?;
    // The pipe stays open until the program's end, which must not fail for want of a reader.
    let mut lines = BufReader::new(output).lines();
    let started = lines.by_ref().map_while(Result::ok).find_map(|line| {
        let (_, words) = line.split_once("STARTED ")?;
        let (pid, path) = words.split_once(' ')?;
        Some((pid.parse::<u32>().ok()?, PathBuf::from(path)))
    });
    let (pid, path) = started.context("the child program reported nothing")?;
    ensure!(is_alive(pid) && Path::new(&path).exists());
    if killed {
        child.kill()?;
    }
    drop(child.stdin.take());
    let status = child.wait()?;
    assert_eq!(status.success(), !killed);
    eventually("everything to be gone", DEADLINE, async || match (is_alive(pid), path.exists()) {
        (false, false) => Ok(()),
        (alive, exists) => Err(format!("process: {alive}, directory: {exists}")),
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn nothing_outlives_a_killed_test_process() -> Result<()> {
    child_leaves_nothing(true).await
}

#[tokio::test]
async fn statics_are_cleaned_up_at_exit() -> Result<()> {
    child_leaves_nothing(false).await
}
