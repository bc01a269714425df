//! The operator as a process of its own, on free ports.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};

use crate::collector::Collected;
use crate::level::Level;
use crate::osb::Osb;
use crate::stage::SOON;
use crate::{Exit, ManagedProcess, WorkDir, canary, eventually};

/// First argument with which a program of this package becomes the operator.
pub const AS_OPERATOR: &str = "operator";

/// A running operator; dropping it kills it.
pub struct Operator {
    process: ManagedProcess,
    admin: String,
    listen: String,
}

impl Operator {
    /// Starts `program` as the operator of the control plane behind `kubeconfig`, and waits
    /// until it is ready. It logs everything, as JSON.
    ///
    /// # Errors
    /// When it ends or isn't ready in time; the end of its log is in the message.
    pub async fn start(program: &Path, kubeconfig: &Path, args: &[&str]) -> Result<Self> {
        let dir = Arc::new(WorkDir::new("operator")?);
        let operator = Self::launch(&dir, program, kubeconfig, args).await?;
        operator.ready().await?;
        Ok(operator)
    }

    /// Starts it without waiting for more than its listeners. Its log is appended to one that is
    /// already in `dir`.
    ///
    /// # Errors
    /// When it ends or doesn't listen in time.
    pub async fn launch(
        dir: &Arc<WorkDir>,
        program: &Path,
        kubeconfig: &Path,
        args: &[&str],
    ) -> Result<Self> {
        Self::launch_with(dir, program, kubeconfig, args, &[]).await
    }

    /// Starts what runs as the operator, such as the program that is shipped, and waits for its listeners.
    ///
    /// # Errors
    /// As [`Self::launch`].
    pub async fn launch_command(command: Command, kubeconfig: &Path, args: &[&str]) -> Result<Self> {
        let dir = Arc::new(WorkDir::new("operator")?);
        let process = Self::spawn_command(&dir, command, kubeconfig, args, &[])?;
        Self::listening(process, 0).await
    }

    /// The same with variables in its environment.
    ///
    /// # Errors
    /// As [`Self::launch`].
    pub async fn launch_with(
        dir: &Arc<WorkDir>,
        program: &Path,
        kubeconfig: &Path,
        args: &[&str],
        envs: &[(&str, &str)],
    ) -> Result<Self> {
        let before = std::fs::read_to_string(dir.path().join("operator.log")).map_or(0, |log| log.len());
        Self::listening(Self::spawn(dir, program, kubeconfig, args, envs)?, before).await
    }

    /// Waits for what it logs of its listeners, behind the part of the log that was there before.
    async fn listening(process: ManagedProcess, before: usize) -> Result<Self> {
        let (listen, admin) = eventually("the operator to start", SOON, async || {
            if let Some(exit) = process.exit() {
                return Ok(Err(anyhow!("it ended with {exit}: {}", process.log_tail(5))));
            }
            let log = process.log();
            addresses(log.get(before..).unwrap_or_default()).map(Ok).ok_or_else(|| process.log_tail(5))
        })
        .await??;
        for what in ["cmdline", "environ"] {
            // One that has ended meanwhile has neither.
            if let Ok(text) = std::fs::read(format!("/proc/{}/{what}", process.pid())) {
                canary::search_all(&format!("the operator's {what}"), &[text]);
            }
        }
        Ok(Self { process, admin, listen })
    }

    /// Starts its process and waits for nothing: for one that may end at any moment.
    ///
    /// # Errors
    /// When no process can be started.
    pub fn spawn(
        dir: &Arc<WorkDir>,
        program: &Path,
        kubeconfig: &Path,
        args: &[&str],
        envs: &[(&str, &str)],
    ) -> Result<ManagedProcess> {
        let mut command = Command::new(program);
        command.arg(AS_OPERATOR);
        Self::spawn_command(dir, command, kubeconfig, args, envs)
    }

    fn spawn_command(
        dir: &Arc<WorkDir>,
        mut command: Command,
        kubeconfig: &Path,
        args: &[&str],
        envs: &[(&str, &str)],
    ) -> Result<ManagedProcess> {
        command.arg("run").arg("--kubeconfig").arg(kubeconfig);
        command.args(["--admin-listen", "127.0.0.1:0"]);
        let usual = [
            ("--listen", "127.0.0.1:0"),
            ("--auth", "none"),
            ("--log-level", "trace"),
            // The managed clusters of tests are on this machine, and some are the control plane, too.
            ("--managed-server-allow", "127.0.0.0/8"),
        ];
        for (flag, value) in usual {
            if !args.contains(&flag) {
                command.args([flag, value]);
            }
        }
        command.args(["--log-format", "json"]);
        if !args.iter().any(|arg| arg.starts_with("--lease")) {
            // Alone in its namespace, and started again at once after it was killed.
            command.arg("--leader-elect=false");
        }
        command.args(args);
        // All that it talks to is on this machine.
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            command.env_remove(name).env_remove(name.to_lowercase());
        }
        let mut spans = None;
        if canary::searching() {
            // It is not obeyed: what libraries log can be a token.
            command.env("RUST_LOG", "trace");
            if !envs.iter().any(|(name, _)| name.starts_with("OTEL_")) {
                let collected = Collected::begin()?;
                command.env("OTEL_EXPORTER_OTLP_ENDPOINT", collected.endpoint());
                // Most operators of tests are killed at their end, and what they haven't sent by then is lost.
                command.env("OTEL_BSP_SCHEDULE_DELAY", "500");
                spans = Some(collected);
            }
        }
        command.envs(envs.iter().copied());
        let process = ManagedProcess::spawn("operator", &command, dir)?;
        Ok(process.at_its_end(move |place, log| {
            // They are searched when they go: after the log, whatever is in that.
            let _spans = spans;
            canary::search(place, log);
        }))
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// When it isn't in time; what it waits for is in the message.
    pub async fn ready(&self) -> Result<()> {
        eventually("the operator to be ready", SOON, async || {
            if let Some(exit) = self.process.exit() {
                return Ok(Err(anyhow!("it ended with {exit}: {}", self.process.log_tail(5))));
            }
            let (code, text) = self.admin("/readyz").await?;
            if code == 200 { Ok(Ok(())) } else { Err(anyhow!(text)) }
        })
        .await?
    }

    /// Base URL of the Open Service Broker API.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.listen
    }

    /// Base URL of its probes and metrics.
    #[must_use]
    pub fn admin_url(&self) -> &str {
        &self.admin
    }

    /// A client of its Open Service Broker API.
    #[must_use]
    pub fn osb(&self) -> Osb {
        Osb::new(&self.listen)
    }

    /// Asks the admin listener; status and text.
    ///
    /// # Errors
    /// When it doesn't answer.
    pub async fn admin(&self, path: &str) -> Result<(u16, String)> {
        let http = reqwest::Client::builder().no_proxy().build()?;
        let answer = http.get(format!("{}{path}", self.admin)).send().await?;
        let (status, text) = (answer.status().as_u16(), answer.text().await?);
        canary::search(path, &text);
        Ok((status, text))
    }

    /// Whether it says that it leads.
    pub async fn leads(&self) -> bool {
        self.admin("/metrics").await.is_ok_and(|(_, metrics)| metrics.contains("\nkyma_bindings_leader 1\n"))
    }

    /// Its level at this moment.
    ///
    /// # Errors
    /// When it has ended, or doesn't answer.
    pub async fn level(&self) -> Result<Level> {
        Level::of(self.process.pid(), &self.admin("/metrics").await?.1)
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// All that it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Where it logs.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.process.log_path().to_path_buf()
    }

    /// Stops it where it stands until [`Self::resume`]: what happens meanwhile it learns afterwards.
    /// False when it has ended by itself just before.
    ///
    /// # Errors
    /// When it neither stands still nor ends in time.
    pub async fn pause(&self) -> Result<bool> {
        self.process.signal("STOP");
        let pid = self.process.pid();
        let still = eventually("the operator to stand still", SOON, async || {
            if !self.runs() {
                return Ok(false);
            }
            // The state follows the program's name, which is in parentheses (proc_pid_stat(5)).
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
            let state = stat.rsplit(')').next().unwrap_or_default().trim_start().chars().next();
            if state == Some('T') { Ok(true) } else { Err(anyhow!("its state is {state:?}")) }
        });
        Ok(still.await?)
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.process.signal("CONT");
    }

    /// SIGTERM, and its end within the 10 s that it promises, whatever it says about it.
    ///
    /// # Errors
    /// When it takes longer.
    pub async fn terminated(&self) -> Result<Exit> {
        self.process.terminate();
        Ok(self.process.wait(Duration::from_secs(10)).await?)
    }

    /// How it has ended, if it has.
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        self.process.exit()
    }

    /// Whether it has not ended yet.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.process.exit().is_none()
    }

    /// How it ended by itself.
    ///
    /// # Errors
    /// When it still runs after [`SOON`].
    pub async fn ended(&self) -> Result<Exit> {
        Ok(self.process.wait(SOON).await?)
    }

    /// SIGKILL: nothing of it gets to clean up.
    ///
    /// # Errors
    /// When it is still there after 10 s.
    pub async fn kill(&self) -> Result<()> {
        self.process.kill();
        self.process.wait(Duration::from_secs(10)).await?;
        Ok(())
    }

    /// SIGTERM, and its end within the 10 s that it promises.
    ///
    /// # Errors
    /// When it takes longer or doesn't end with success.
    pub async fn terminate(&self) -> Result<()> {
        let exit = self.terminated().await?;
        if !exit.success() {
            bail!("the operator ended with {exit}");
        }
        Ok(())
    }
}

/// The base URLs of both listeners once it has started; that of the first says nothing without a broker.
fn addresses(log: &str) -> Option<(String, String)> {
    let find = |message: &str| {
        log.lines().find_map(|line| {
            let event: serde_json::Value = serde_json::from_str(line).ok()?;
            let scheme = if event["tls"] == true { "https" } else { "http" };
            let address = event["address"].as_str().unwrap_or_default();
            (event["msg"] == message).then(|| format!("{scheme}://{address}"))
        })
    };
    find("started")?;
    let listen = find("serving the Open Service Broker API").unwrap_or_default();
    Some((listen, find("serving probes and metrics")?))
}

/// Runs the operator in this process if the arguments say so: a test or the playground starts
/// itself again as the operator, so no other program must have been built.
pub fn become_operator_if_asked() {
    let mut args = std::env::args_os();
    let program = args.next();
    if args.next().is_some_and(|arg| arg == AS_OPERATOR) {
        let code = kyma_bindings::app::main(program.into_iter().chain(args));
        std::process::exit(i32::from(code != std::process::ExitCode::SUCCESS));
    }
}

/// This program, to be started again.
///
/// # Errors
/// When the system doesn't tell.
pub fn this_program() -> Result<PathBuf> {
    std::env::current_exe().context("the path of this program is not known")
}
