//! Flags of the Open Service Broker API.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::timeout;

/// Flags that only mean something where the broker runs.
#[derive(Debug, Args)]
pub struct BrokerArgs {
    /// How long a request with `accepts_incomplete=true` waits before it is answered with 202, 1s to 60s; at most --create-timeout
    #[arg(long, env = "KYMA_BINDINGS_ASYNC_AFTER", default_value = "2s", value_parser = timeout, value_name = "DURATION")]
    pub async_after: Duration,
    /// Which part of a lifetime, at its end, is for renewal, in percent: answers say so as `renew_before`
    #[arg(long, env = "KYMA_BINDINGS_RENEW_BEFORE_PERCENTAGE", default_value_t = 20,
          value_parser = clap::value_parser!(u8).range(1..=90), value_name = "PERCENT")]
    pub renew_before_percentage: u8,
    /// File (YAML or JSON) with the catalog to serve, whose service and plan ids are then checked
    #[arg(long, env = "KYMA_BINDINGS_CATALOG", value_name = "PATH")]
    pub catalog: Option<PathBuf>,
    /// Serve the OpenAPI document at /openapi.json and Swagger UI at /docs, to anybody who can connect
    #[arg(long, env = "KYMA_BINDINGS_API_DOCS", default_value_t = true, action = clap::ArgAction::Set,
          num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "true|false")]
    pub api_docs: bool,
}
