//! Logs on standard error, one line an event.

use std::fmt;
use std::io::{IsTerminal as _, stderr};

use jiff::Timestamp;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{FilterExt as _, Targets, filter_fn};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::traces::{self, Traces};

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

/// Starts logging and, where there is any, tracing for the whole process.
pub fn start(format: Format, level: Level, traces: Option<&Traces>) {
    // Spans are for traces: a line says itself what it is about.
    let events = targets(level).and(filter_fn(|metadata| !metadata.is_span()));
    let colours = coloured(stderr().is_terminal(), std::env::var("NO_COLOR").ok().as_deref());
    let lines = tracing_subscriber::fmt::layer().with_writer(stderr).with_ansi(colours);
    let lines = match format {
        Format::Text => lines.with_filter(events).boxed(),
        Format::Json => lines.event_format(JsonLine).with_filter(events).boxed(),
    };
    tracing_subscriber::registry().with(lines).with(traces.map(Traces::layer)).init();
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(place, "a defect: {}", panic.payload_as_str().unwrap_or("a panic"));
    }));
}

/// Whether lines for people have colours: not in files, nor where <https://no-color.org> says so.
fn coloured(terminal: bool, no_color: Option<&str>) -> bool {
    terminal && no_color.is_none_or(str::is_empty)
}

/// A number for people: no more than three digits behind the point.
#[must_use]
pub fn rounded(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}

/// A JSON line of what is said before anything is logged.
#[must_use]
pub fn json_line(message: &str) -> String {
    let (time, target, message) = (Timestamp::now(), Value::from("kyma_bindings"), Value::from(message));
    format!(r#"{{"time":"{time:.6}","level":"ERROR","target":{target},"msg":{message}}}"#)
}

/// One object a line: `time` (RFC 3339), `level`, `target`, `msg`, the event's own fields, and
/// `trace_id` where there is a trace.
struct JsonLine;

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let (level, target) = (event.metadata().level(), event.metadata().target());
        let mut fields = Fields { message: Value::from(""), others: Vec::new() };
        event.record(&mut fields);
        write!(
            to,
            r#"{{"time":"{:.6}","level":"{level}","target":{}"#,
            Timestamp::now(),
            Value::from(target)
        )?;
        write!(to, r#","msg":{}"#, fields.message)?;
        if let Some(trace) = traces::id()
            && fields.others.iter().all(|(key, _)| *key != "trace_id")
        {
            fields.others.push(("trace_id", trace.into()));
        }
        for (key, value) in fields.others {
            write!(to, ",{}:{value}", Value::from(key))?;
        }
        writeln!(to, "}}")
    }
}

struct Fields {
    message: Value,
    others: Vec<(&'static str, Value)>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        match field.name() {
            "message" => self.message = value,
            // Where in a library's source a line of the `log` crate comes from.
            name if name.starts_with("log.") => {}
            name => self.others.push((name, value)),
        }
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::io::Write;
    use std::sync::Arc;

    #[test]
    fn libraries_stay_quiet_at_every_level() {
        let targets = targets(Level::TRACE);
        assert!(targets.would_enable("kyma_bindings::broker", &Level::TRACE));
        assert!(!targets.would_enable("kube_client::client", &Level::ERROR));
        assert!(!targets.would_enable("hyper::proto", &Level::DEBUG));
    }

    #[test]
    fn colours_are_for_terminals() {
        assert!(coloured(true, None) && coloured(true, Some("")));
        assert!(!coloured(false, None) && !coloured(true, Some("1")));
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(rounded(12.345_678_901_234_567).to_string(), "12.346");
        assert_eq!(rounded(0.000_731).to_string(), "0.001");
    }

    #[test]
    fn a_line_before_all_others_is_json_too() {
        let line: Value = serde_json::from_str(&json_line("two\nlines \"said\"")).unwrap();
        assert_eq!((&line["level"], &line["msg"]), (&"ERROR".into(), &"two\nlines \"said\"".into()));
        assert!(line["time"].as_str().unwrap().parse::<Timestamp>().is_ok());
    }

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_json_line_is_one_object_with_the_keys_that_are_searched_for() {
        let page = Page::default();
        let writer = page.clone();
        let lines =
            tracing_subscriber::fmt::layer().event_format(JsonLine).with_writer(move || writer.clone());
        let traces = Traces::from_env().unwrap();
        let subscriber = tracing_subscriber::registry().with(lines).with(traces.layer());
        tracing::subscriber::with_default(subscriber, || {
            let nothing: Option<&str> = None;
            tracing::warn!(number = 1, ratio = 0.5, yes = true, nothing, debug = ?[1], "two\nlines \"said\"");
            tracing::info_span!("request").in_scope(|| tracing::info!(request_id = "r", "answered"));
        });
        let text = String::from_utf8(page.0.lock().clone()).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let [first, second] = lines.as_slice() else { panic!("{text}") };
        assert!(text.starts_with(r#"{"time":""#), "{text}");
        assert!(first["time"].as_str().unwrap().parse::<Timestamp>().is_ok());
        assert_eq!((&first["level"], &first["msg"]), (&"WARN".into(), &"two\nlines \"said\"".into()));
        assert_eq!(
            (&first["number"], &first["ratio"], &first["yes"]),
            (&1.into(), &0.5.into(), &true.into())
        );
        assert_eq!((first.get("nothing"), first.get("trace_id")), (None, None));
        assert_eq!((&first["debug"], &second["request_id"]), (&"[1]".into(), &"r".into()));
        assert_eq!(second["trace_id"].as_str().unwrap().len(), 32);
    }
}
