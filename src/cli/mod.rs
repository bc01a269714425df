//! Every flag and environment variable, with its bounds.

mod auth;
mod broker;
mod tools;

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::api::binding::{MAX_EXPIRATION_SECONDS, MIN_EXPIRATION_SECONDS};
use crate::broker::request::Lifetimes;
use crate::cluster::address::AllowList;
use crate::controller::decide::BindablePlans;
use crate::kubernetes::lease::Times;
use crate::telemetry::logs::Format;

pub use crate::cli::auth::{Auth, ListenArgs, ListenConfigError};
pub use broker::BrokerArgs;
pub use tools::{Account, CheckArgs, CleanupArgs, RbacArgs};

/// Hands out short-lived kubeconfigs for managed Kyma clusters.
#[derive(Debug, Parser)]
// What is said later wins, so that what a chart says can be said again.
#[command(name = "kyma-bindings", version, args_override_self = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the operator.
    Run(Box<RunArgs>),
    /// Print the `CustomResourceDefinition`.
    Crd,
    /// Print the OpenAPI document of the Open Service Broker API.
    Openapi,
    /// Print the Roles that the operator needs in the control plane.
    Rbac(RbacArgs),
    /// Look at an installation from here, and say what is right and what isn't; changes nothing.
    Check(CheckArgs),
    /// Remove all bindings, before the operator that revokes them is uninstalled.
    Cleanup(CleanupArgs),
    /// Print the version.
    Version,
}

/// Which parts of the operator run in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Broker and controller.
    All,
    /// The Open Service Broker API only: needs no access to instances or managed clusters.
    Broker,
    /// The controller only.
    Controller,
}

/// Flags of `run`. Each has an environment variable of the same name.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Which parts of the operator run in this process
    #[arg(long, env = "KYMA_BINDINGS_ROLE", default_value = "all")]
    pub role: Role,
    /// Kubeconfig of the control plane; default: KUBECONFIG, ~/.kube/config, or the pod's own account
    #[arg(long, env = "KYMA_BINDINGS_KUBECONFIG", value_name = "PATH")]
    pub kubeconfig: Option<PathBuf>,
    /// Namespace of the bindings and their Secrets
    #[arg(long, env = "KYMA_BINDINGS_NAMESPACE", default_value = "kyma-bindings", value_parser = namespace)]
    pub namespace: String,
    /// Namespace of the instances' kubeconfig Secrets and Runtimes; only read
    #[arg(long, env = "KYMA_BINDINGS_INSTANCE_NAMESPACE", default_value = "kcp-system", value_parser = namespace)]
    pub instance_namespace: String,
    /// Namespace in the managed clusters for the ServiceAccounts
    #[arg(long, env = "KYMA_BINDINGS_MANAGED_NAMESPACE", default_value = "kyma-system", value_parser = namespace)]
    pub managed_namespace: String,
    /// Names, suffixes and networks of managed clusters' servers that may be loopback, link-local or the
    /// control plane itself, separated by commas or repeated: api.example.com, .example.com, 10.0.0.0/8
    #[arg(
        long,
        env = "KYMA_BINDINGS_MANAGED_SERVER_ALLOW",
        default_value = "",
        value_name = "NAMES|NETWORKS"
    )]
    pub managed_server_allow: Vec<AllowList>,
    /// Address of the Open Service Broker API; [::] is all addresses, by IPv4 and IPv6
    #[arg(long, env = "KYMA_BINDINGS_LISTEN", default_value = "[::]:8080", value_name = "IP:PORT")]
    pub listen: SocketAddr,
    /// Address of /healthz, /livez, /readyz and /metrics, likewise
    #[arg(long, env = "KYMA_BINDINGS_ADMIN_LISTEN", default_value = "[::]:9090", value_name = "IP:PORT")]
    pub admin_listen: SocketAddr,
    /// Lifetime of a kubeconfig when none is asked for, in seconds
    #[arg(long, env = "KYMA_BINDINGS_DEFAULT_EXPIRATION_SECONDS", default_value_t = MIN_EXPIRATION_SECONDS,
          value_parser = lifetime(), value_name = "SECONDS")]
    pub default_expiration_seconds: i64,
    /// Shortest lifetime that may be asked for, in seconds
    #[arg(long, env = "KYMA_BINDINGS_MIN_EXPIRATION_SECONDS", default_value_t = MIN_EXPIRATION_SECONDS,
          value_parser = lifetime(), value_name = "SECONDS")]
    pub min_expiration_seconds: i64,
    /// Longest lifetime that may be asked for, in seconds
    #[arg(long, env = "KYMA_BINDINGS_MAX_EXPIRATION_SECONDS", default_value_t = MAX_EXPIRATION_SECONDS,
          value_parser = lifetime(), value_name = "SECONDS")]
    pub max_expiration_seconds: i64,
    /// Most unexpired bindings of an instance
    #[arg(long, env = "KYMA_BINDINGS_MAX_BINDINGS_PER_INSTANCE", default_value_t = 10,
          value_parser = clap::value_parser!(u16).range(1..=1000), value_name = "COUNT")]
    pub max_bindings_per_instance: u16,
    /// Names of the plans whose instances may have bindings, separated by commas; * for all
    #[arg(long, env = "KYMA_BINDINGS_BINDABLE_PLANS", default_value = "*", value_parser = plans, value_name = "NAMES")]
    pub bindable_plans: BindablePlans,
    /// How long a request waits for its binding to be made or removed, 1s to 60s
    #[arg(long, env = "KYMA_BINDINGS_CREATE_TIMEOUT", default_value = "15s", value_parser = timeout, value_name = "DURATION")]
    pub create_timeout: Duration,
    /// Flags of the Open Service Broker API.
    #[command(flatten)]
    pub broker: BrokerArgs,
    /// How often each managed cluster is swept for what deleted bindings have left, 1s to 24h
    #[arg(long, env = "KYMA_BINDINGS_SWEEP_INTERVAL", default_value = "10m", value_parser = interval, value_name = "DURATION")]
    pub sweep_interval: Duration,
    /// Who is let in, and how.
    #[command(flatten)]
    pub access: ListenArgs,
    /// Elect one of several processes by a Lease in --namespace; only it reconciles
    #[arg(long, env = "KYMA_BINDINGS_LEADER_ELECT", default_value_t = true, action = clap::ArgAction::Set,
          num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "true|false")]
    pub leader_elect: bool,
    /// How long the others wait, without a sign of the leader, before one takes over, 1s to 5m
    #[arg(long, env = "KYMA_BINDINGS_LEASE_DURATION", default_value = "15s", value_parser = lease, value_name = "DURATION")]
    pub lease_duration: Duration,
    /// How long the leader goes on without a successful renewal before its process ends
    #[arg(long, env = "KYMA_BINDINGS_LEASE_RENEW_DEADLINE", default_value = "10s", value_parser = lease, value_name = "DURATION")]
    pub lease_renew_deadline: Duration,
    /// How often the leader renews its lease and the others look at it
    #[arg(long, env = "KYMA_BINDINGS_LEASE_RETRY_PERIOD", default_value = "2s", value_parser = lease, value_name = "DURATION")]
    pub lease_retry_period: Duration,
    /// Form of the log lines
    #[arg(long, env = "KYMA_BINDINGS_LOG_FORMAT", default_value = "text")]
    pub log_format: Format,
    /// Least severe log lines that are written
    #[arg(long, env = "KYMA_BINDINGS_LOG_LEVEL", default_value = "info", value_parser = level,
          value_name = "error|warn|info|debug|trace")]
    pub log_level: tracing::Level,
}

/// Flags that are right alone but not together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The lifetimes are not in order.
    #[error(
        "--min-expiration-seconds {min}, --default-expiration-seconds {default} and --max-expiration-seconds {max} \
         must be in this order, smallest first"
    )]
    Lifetimes {
        /// Shortest.
        min: i64,
        /// Default.
        default: i64,
        /// Longest.
        max: i64,
    },
    /// The times of the election are not in order.
    #[error(
        "--lease-retry-period {retry:?}, --lease-renew-deadline {renew:?} and --lease-duration {lease:?} must be in this \
         order, each at most three quarters of the next: a leader must stop believing before another may begin"
    )]
    Lease {
        /// Retry period.
        retry: Duration,
        /// Renew deadline.
        renew: Duration,
        /// Lease duration.
        lease: Duration,
    },
    /// The flags of the listener don't fit together.
    #[error(transparent)]
    Listen(#[from] ListenConfigError),
}

impl RunArgs {
    /// Checks what one flag alone can't tell.
    ///
    /// # Errors
    /// The first [`ConfigError`] found.
    pub fn check(&self) -> Result<(), ConfigError> {
        let Lifetimes { min, default, max } = self.lifetimes();
        if !(min <= default && default <= max) {
            return Err(ConfigError::Lifetimes { min, default, max });
        }
        let Times { retry, renew_deadline: renew, lease } = self.lease_times();
        let apart = |short: Duration, long: Duration| short <= long.mul_f64(0.75);
        if !(apart(retry, renew) && apart(renew, lease)) {
            return Err(ConfigError::Lease { retry, renew, lease });
        }
        if self.role != Role::Controller {
            self.access.check(self.listen)?;
        }
        Ok(())
    }

    /// The times of the election.
    #[must_use]
    pub fn lease_times(&self) -> Times {
        Times {
            lease: self.lease_duration,
            renew_deadline: self.lease_renew_deadline,
            retry: self.lease_retry_period,
        }
    }

    /// The bounds of `expiration_seconds`.
    #[must_use]
    pub fn lifetimes(&self) -> Lifetimes {
        Lifetimes {
            default: self.default_expiration_seconds,
            min: self.min_expiration_seconds,
            max: self.max_expiration_seconds,
        }
    }
}

fn lifetime() -> clap::builder::RangedI64ValueParser<i64> {
    clap::value_parser!(i64).range(MIN_EXPIRATION_SECONDS..=MAX_EXPIRATION_SECONDS)
}

fn timeout(text: &str) -> Result<Duration, String> {
    duration(text, Duration::from_secs(1)..=Duration::from_mins(1), "must be between 1s and 60s")
}

fn interval(text: &str) -> Result<Duration, String> {
    duration(text, Duration::from_secs(1)..=Duration::from_hours(24), "must be between 1s and 24h")
}

fn lease(text: &str) -> Result<Duration, String> {
    duration(text, Duration::from_millis(100)..=Duration::from_mins(5), "must be between 100ms and 5m")
}

fn duration(text: &str, within: RangeInclusive<Duration>, bounds: &str) -> Result<Duration, String> {
    let duration =
        humantime::parse_duration(text).map_err(|_| "must be a duration such as 15s".to_owned())?;
    within.contains(&duration).then_some(duration).ok_or_else(|| bounds.to_owned())
}

fn level(text: &str) -> Result<tracing::Level, String> {
    text.parse().map_err(|_| "must be error, warn, info, debug or trace".to_owned())
}

fn plans(text: &str) -> Result<BindablePlans, String> {
    let names: Vec<_> = text.split(',').map(str::trim).filter(|n| !n.is_empty()).collect();
    match names.as_slice() {
        [] => Err("must name at least one plan, or be *".to_owned()),
        ["*"] => Ok(BindablePlans::All),
        names if names.contains(&"*") => Err("must be * alone, or names without *".to_owned()),
        names => Ok(BindablePlans::Named(names.iter().map(|n| n.to_lowercase()).collect())),
    }
}

fn namespace(text: &str) -> Result<String, String> {
    let label = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let legal = (1..=63).contains(&text.len())
        && text.bytes().all(label)
        && !text.starts_with('-')
        && !text.ends_with('-');
    legal.then(|| text.to_owned()).ok_or_else(|| {
        "must be a namespace's name: 1 to 63 lower case letters, digits and '-', starting and ending with a letter or digit"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<RunArgs, String> {
        let cli =
            Cli::try_parse_from(["kyma-bindings", "run"].iter().chain(args)).map_err(|e| e.to_string())?;
        let Command::Run(args) = cli.command else { panic!("not run") };
        args.check().map_err(|e| e.to_string())?;
        Ok(*args)
    }

    const LOOPBACK: [&str; 4] = ["--auth", "none", "--listen", "127.0.0.1:8080"];

    fn with(args: &[&str]) -> Result<RunArgs, String> {
        parse(&[&LOOPBACK, args].concat())
    }

    #[test]
    fn defaults_are_those_of_the_broker_before_us() {
        let args = with(&[]).unwrap();
        assert_eq!(args.lifetimes(), Lifetimes { default: 600, min: 600, max: 7200 });
        assert_eq!((args.max_bindings_per_instance, args.create_timeout.as_secs()), (10, 15));
        assert_eq!(
            (args.namespace.as_str(), args.instance_namespace.as_str()),
            ("kyma-bindings", "kcp-system")
        );
        assert_eq!(args.bindable_plans, BindablePlans::All);
        let named = with(&["--bindable-plans", "AWS, azure ,aws"]).unwrap().bindable_plans;
        assert_eq!(named, BindablePlans::Named(["aws", "azure"].map(str::to_owned).into()));
        assert!(args.leader_elect);
        assert!(!with(&["--leader-elect=false"]).unwrap().leader_elect);
        assert!(with(&["--leader-elect"]).unwrap().leader_elect);
        assert_eq!(args.sweep_interval.as_secs(), 600);
    }

    #[test]
    fn a_wrong_value_is_refused_with_flag_value_and_bounds() {
        for (args, words) in [
            (vec!["--min-expiration-seconds", "599"], vec!["--min-expiration-seconds", "599", "600..=7200"]),
            (
                vec!["--max-bindings-per-instance", "0"],
                vec!["--max-bindings-per-instance", "'0'", "1..=1000"],
            ),
            (vec!["--create-timeout", "61s"], vec!["--create-timeout", "61s", "between 1s and 60s"]),
            (vec!["--sweep-interval", "25h"], vec!["--sweep-interval", "25h", "between 1s and 24h"]),
            (vec!["--create-timeout", "15"], vec!["--create-timeout", "such as 15s"]),
            (vec!["--bindable-plans", "*,aws"], vec!["--bindable-plans", "must be * alone"]),
            (vec!["--namespace", "A"], vec!["--namespace", "lower case"]),
            (vec!["--lease-duration", "6m"], vec!["--lease-duration", "6m", "between 100ms and 5m"]),
            (
                vec!["--lease-renew-deadline", "15s"],
                vec!["--lease-renew-deadline 15s", "--lease-duration 15s", "order"],
            ),
            (vec!["--managed-server-allow", "10.0.0.0/33"], vec!["--managed-server-allow", "10.0.0.0/33"]),
            (vec!["--log-level", "loud"], vec!["--log-level", "loud", "trace"]),
            (
                vec!["--default-expiration-seconds", "700", "--max-expiration-seconds", "650"],
                vec!["700", "650", "order"],
            ),
        ] {
            let message = with(&args).unwrap_err();
            for word in words {
                assert!(message.contains(word), "{word} is not in: {message}");
            }
        }
    }
}
