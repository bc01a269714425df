//! Logs on standard error, one line an event.

use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Which events are written. What libraries say is capped in code, whatever the level: kube logs
/// undecodable answers whole at WARN, and such an answer can be a token.
fn targets(level: Level) -> Targets {
    let libraries = LevelFilter::from_level(level.min(Level::WARN));
    Targets::new()
        .with_default(libraries)
        .with_target("kyma_bindings", level)
        // A line for each failed call, without a bound on their rate; we say ourselves what failed.
        .with_target("kube_client", LevelFilter::OFF)
        .with_target("kube_runtime", LevelFilter::OFF)
}

/// Starts logging for the whole process.
pub fn start(format: Format, level: Level) {
    let registry = tracing_subscriber::registry().with(targets(level));
    match format {
        Format::Text => registry.with(fmt::layer().with_writer(std::io::stderr)).init(),
        Format::Json => registry
            .with(
                fmt::layer().json().flatten_event(true).with_current_span(false).with_writer(std::io::stderr),
            )
            .init(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_stay_quiet_at_every_level() {
        let targets = targets(Level::TRACE);
        assert!(targets.would_enable("kyma_bindings::broker", &Level::TRACE));
        assert!(!targets.would_enable("kube_client::client", &Level::ERROR));
        assert!(!targets.would_enable("hyper::proto", &Level::DEBUG));
    }
}
