//! Watches that begin with what is there.
//!
//! An API server sends what is there one by one, from its cache (KEP-3157): much faster than pages of a list, and neither
//! side ever holds all of it. kube's own watcher asks for that, too, but takes any age of it, and passes over what ends
//! meanwhile. Where a server can't do it, its list is taken in pages.

use std::fmt::Debug;
use std::time::Duration;

use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt as _};
use kube::api::{Api, WatchEvent, WatchParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Error, Event, watcher};
use kube::{Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;

use crate::kubernetes::pruned::Pruned;
use crate::kubernetes::retry::{again, heard};

/// How long a watch may be silent: the server ends it after 290 s.
const SILENCE: Duration = Duration::from_secs(295);

/// The bookmark with it ends what was there (KEP-3157).
const END: &str = "k8s.io/initial-events-end";

/// Follows objects for ever, and takes up again what breaks; `labels` selects them. `what` names it in the log.
pub fn follow<K>(
    what: &'static str,
    client: Client,
    namespace: &str,
    labels: Option<&str>,
) -> impl Stream<Item = Event<K>> + use<K>
where
    K: Send + 'static,
    Pruned<K>: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + 'static,
{
    let api: Api<Pruned<K>> = Api::namespaced(client, namespace);
    let watch = Watch { api, labels: labels.map(str::to_owned) };
    let events = events(watch).backoff(again());
    heard(what, events).map(|event| match event {
        Event::Init => Event::Init,
        Event::InitApply(Pruned(object)) => Event::InitApply(object),
        Event::InitDone => Event::InitDone,
        Event::Apply(Pruned(object)) => Event::Apply(object),
        Event::Delete(Pruned(object)) => Event::Delete(object),
    })
}

type Opened<K> = BoxStream<'static, kube::Result<WatchEvent<K>>>;

/// What can be watched.
trait Source: Send + 'static {
    type Object: Resource + Send + 'static;

    /// What is there, as recent as can be, and then what happens to it.
    fn begin(&self) -> impl Future<Output = kube::Result<Opened<Self::Object>>> + Send;
    /// What has happened since that version.
    fn resume(&self, version: &str) -> impl Future<Output = kube::Result<Opened<Self::Object>>> + Send;
    /// The same by lists in pages.
    fn paged(&self) -> BoxStream<'static, watcher::Result<Event<Self::Object>>>;
}

struct Watch<K> {
    api: Api<K>,
    labels: Option<String>,
}

impl<K> Source for Watch<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    type Object = K;

    async fn begin(&self) -> kube::Result<Opened<K>> {
        let params = WatchParams { send_initial_events: true, ..self.params() };
        // No version is the most recent one: whoever has just begun to lead decides on nothing older.
        Ok(self.api.watch(&params, "").await?.boxed())
    }

    async fn resume(&self, version: &str) -> kube::Result<Opened<K>> {
        Ok(self.api.watch(&self.params(), version).await?.boxed())
    }

    fn paged(&self) -> BoxStream<'static, watcher::Result<Event<K>>> {
        let config = watcher::Config { label_selector: self.labels.clone(), ..watcher::Config::default() };
        watcher(self.api.clone(), config).boxed()
    }
}

impl<K> Watch<K> {
    fn params(&self) -> WatchParams {
        WatchParams { label_selector: self.labels.clone(), ..WatchParams::default() }
    }
}

enum State<K> {
    /// Everything is to be asked for.
    Begin,
    /// What is there comes.
    Initial(Opened<K>),
    /// A watch is to be opened.
    Resume(String),
    /// What happens comes; the version that was seen last.
    Watching(String, Opened<K>),
    /// By a list in pages, and whether that has begun.
    Paged(BoxStream<'static, watcher::Result<Event<K>>>, bool),
}

impl<K> State<K> {
    fn paged(source: &impl Source<Object = K>) -> Self {
        Self::Paged(source.paged(), false)
    }
}

/// Whether it is about one object that can't be read; the others are.
fn is_of_one(error: &kube::Error) -> bool {
    matches!(error, kube::Error::SerdeError(_))
}

type Step<K> = (Option<watcher::Result<Event<K>>>, State<K>);

fn events<S: Source>(source: S) -> impl Stream<Item = watcher::Result<Event<S::Object>>> {
    stream::unfold((source, State::Begin), |(source, mut state)| async move {
        loop {
            let (event, next) = step(&source, state).await;
            state = next;
            if let Some(event) = event {
                return Some((event, (source, state)));
            }
        }
    })
}

async fn step<S: Source>(source: &S, state: State<S::Object>) -> Step<S::Object> {
    match state {
        State::Begin => match source.begin().await {
            Ok(opened) => (Some(Ok(Event::Init)), State::Initial(opened)),
            // Not known there, or not switched on.
            Err(kube::Error::Api(status)) if matches!(status.code, 400 | 422) => (None, State::paged(source)),
            Err(error) => (Some(Err(Error::InitialListFailed(error))), State::Begin),
        },
        State::Initial(mut opened) => match next(&mut opened).await {
            Some(Ok(event)) => initial(source, event, opened),
            Some(Err(error)) if is_of_one(&error) => {
                (Some(Err(Error::WatchFailed(error))), State::Initial(opened))
            }
            Some(Err(error)) => (Some(Err(Error::WatchFailed(error))), State::Begin),
            // It was not understood, or can't be had.
            None => (None, State::paged(source)),
        },
        State::Resume(version) => match source.resume(&version).await {
            Ok(opened) => (None, State::Watching(version, opened)),
            Err(kube::Error::Api(status)) if status.code == 410 => (None, State::Begin),
            Err(error) => (Some(Err(Error::WatchStartFailed(error))), State::Resume(version)),
        },
        State::Watching(version, mut opened) => match next(&mut opened).await {
            Some(Ok(event)) => watching(version, event, opened),
            Some(Err(error)) if is_of_one(&error) => {
                (Some(Err(Error::WatchFailed(error))), State::Watching(version, opened))
            }
            Some(Err(error)) => (Some(Err(Error::WatchFailed(error))), State::Resume(version)),
            None => (None, State::Resume(version)),
        },
        State::Paged(mut events, begun) => match events.next().await {
            // It would list anew.
            Some(Ok(Event::Init)) if begun => (None, State::Begin),
            event => (event, State::Paged(events, true)),
        },
    }
}

fn initial<S: Source>(
    source: &S,
    event: WatchEvent<S::Object>,
    opened: Opened<S::Object>,
) -> Step<S::Object> {
    match event {
        WatchEvent::Added(object) | WatchEvent::Modified(object) => {
            (Some(Ok(Event::InitApply(object))), State::Initial(opened))
        }
        // What was there is gone before all was said: whoever takes in a list knows no such thing.
        WatchEvent::Deleted(_) => (None, State::paged(source)),
        WatchEvent::Bookmark(bookmark) if bookmark.metadata.annotations.contains_key(END) => {
            (Some(Ok(Event::InitDone)), State::Watching(bookmark.metadata.resource_version, opened))
        }
        WatchEvent::Bookmark(_) => (None, State::Initial(opened)),
        WatchEvent::Error(status) => (Some(Err(Error::WatchError(status.boxed()))), State::Begin),
    }
}

fn watching<K: Resource>(version: String, event: WatchEvent<K>, opened: Opened<K>) -> Step<K> {
    match event {
        WatchEvent::Added(object) | WatchEvent::Modified(object) => {
            let version = object.resource_version().unwrap_or(version);
            (Some(Ok(Event::Apply(object))), State::Watching(version, opened))
        }
        WatchEvent::Deleted(object) => {
            let version = object.resource_version().unwrap_or(version);
            (Some(Ok(Event::Delete(object))), State::Watching(version, opened))
        }
        WatchEvent::Bookmark(bookmark) => (None, State::Watching(bookmark.metadata.resource_version, opened)),
        // Too old: what has happened since is forgotten there.
        WatchEvent::Error(status) if status.code == 410 => {
            (Some(Err(Error::WatchError(status.boxed()))), State::Begin)
        }
        WatchEvent::Error(status) => (Some(Err(Error::WatchError(status.boxed()))), State::Resume(version)),
    }
}

async fn next<K>(opened: &mut Opened<K>) -> Option<kube::Result<WatchEvent<K>>> {
    tokio::time::timeout(SILENCE, opened.next()).await.unwrap_or(None)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::core::Status;
    use parking_lot::Mutex;
    use serde_json::{Value, json};

    use super::*;

    /// What a server answers to each opening, in order: refusals, and watches that end.
    struct Server {
        answers: Mutex<VecDeque<Result<Vec<Value>, u16>>>,
        asked: std::sync::Arc<Mutex<Vec<String>>>,
    }

    impl Server {
        fn answer(&self, asked: &str) -> kube::Result<Opened<ConfigMap>> {
            self.asked.lock().push(asked.to_owned());
            let answer = self.answers.lock().pop_front();
            let Some(answer) = answer else { return Ok(stream::pending().boxed()) };
            let sent =
                answer.map_err(|code| kube::Error::Api(Status::failure("no", "").with_code(code).boxed()))?;
            let events =
                sent.into_iter().map(|event| serde_json::from_value(event).map_err(kube::Error::SerdeError));
            Ok(stream::iter(events.collect::<Vec<_>>()).boxed())
        }
    }

    impl Source for Server {
        type Object = ConfigMap;

        async fn begin(&self) -> kube::Result<Opened<ConfigMap>> {
            self.answer("begin")
        }

        async fn resume(&self, version: &str) -> kube::Result<Opened<ConfigMap>> {
            self.answer(version)
        }

        fn paged(&self) -> BoxStream<'static, watcher::Result<Event<ConfigMap>>> {
            self.asked.lock().push("paged".to_owned());
            stream::iter([Ok(Event::Init), Ok(Event::InitDone), Ok(Event::Init)]).boxed()
        }
    }

    fn event(kind: &str, name: &str, version: &str) -> Value {
        json!({"type": kind, "object": {"metadata": {"name": name, "resourceVersion": version}}})
    }

    fn bookmark(version: &str, end: bool) -> Value {
        let annotations = if end { json!({END: "true"}) } else { json!({}) };
        json!({"type": "BOOKMARK", "object": {"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"resourceVersion": version, "annotations": annotations}}})
    }

    fn error(code: u16) -> Value {
        json!({"type": "ERROR", "object": {"kind": "Status", "status": "Failure", "code": code, "message": "", "reason": ""}})
    }

    /// What is heard, in words, until nothing comes any more, and what the server was asked.
    async fn heard_of(answers: Vec<Result<Vec<Value>, u16>>) -> (Vec<String>, Vec<String>) {
        let asked = std::sync::Arc::<Mutex<Vec<String>>>::default();
        let mut events =
            Box::pin(events(Server { answers: Mutex::new(answers.into()), asked: asked.clone() }));
        let mut heard = Vec::new();
        while let Ok(Some(event)) = tokio::time::timeout(Duration::from_secs(1), events.next()).await {
            heard.push(event.map_or_else(
                |_| "error".to_owned(),
                |event| match event {
                    Event::Init => "init".to_owned(),
                    Event::InitApply(object) => format!("there {}", object.name_any()),
                    Event::InitDone => "done".to_owned(),
                    Event::Apply(object) => format!("is {}", object.name_any()),
                    Event::Delete(object) => format!("gone {}", object.name_any()),
                },
            ));
        }
        let asked = asked.lock().clone();
        (heard, asked)
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_there_comes_first_and_a_watch_goes_on_where_it_ended() {
        let first = vec![
            event("ADDED", "a", "3"),
            bookmark("4", false),
            bookmark("7", true),
            event("ADDED", "b", "8"),
        ];
        let then = vec![event("DELETED", "a", "9"), bookmark("12", false)];
        let (heard, asked) =
            heard_of(vec![Ok(first), Err(500), Ok(then), Ok(vec![error(500)]), Err(410)]).await;
        assert_eq!(heard, ["init", "there a", "done", "is b", "error", "gone a", "error", "init"]);
        assert_eq!(asked, ["begin", "8", "8", "12", "12", "begin"]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_forgotten_or_broke_in_its_beginning_begins_anew() {
        let half = vec![event("ADDED", "a", "3"), error(500)];
        let whole = vec![bookmark("7", true), error(410)];
        let (heard, asked) = heard_of(vec![Err(503), Ok(half), Ok(whole)]).await;
        assert_eq!(heard, ["error", "init", "there a", "error", "init", "done", "error", "init"]);
        assert_eq!(asked, ["begin"; 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_can_not_be_read_is_passed_over() {
        let odd = json!({"type": "ADDED", "object": {"metadata": {"name": 1}}});
        let all =
            vec![odd.clone(), event("ADDED", "a", "3"), bookmark("7", true), odd, event("ADDED", "b", "8")];
        let (heard, asked) = heard_of(vec![Ok(all)]).await;
        assert_eq!(heard, ["init", "error", "there a", "done", "error", "is b"]);
        assert_eq!(asked, ["begin", "8"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_is_taken_where_it_is_not_known_or_something_ends_in_it() {
        for refused in [400, 422] {
            let (heard, asked) = heard_of(vec![Err(refused)]).await;
            assert_eq!(heard, ["init", "done", "init"]);
            assert_eq!(asked, ["begin", "paged", "begin"], "the next time it may be known");
        }
        for more in [vec![event("DELETED", "a", "4")], vec![]] {
            let all = [vec![event("ADDED", "a", "3")], more].concat();
            let (heard, asked) = heard_of(vec![Ok(all)]).await;
            assert_eq!(heard, ["init", "there a", "init", "done", "init"]);
            assert_eq!(asked, ["begin", "paged", "begin"]);
        }
    }
}
