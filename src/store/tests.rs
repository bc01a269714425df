use std::convert::Infallible;

use serde_json::json;

use super::*;

/// What a follower heard: what came, and what was shown then.
#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Follower for Heard {
    fn comes(&self, event: &Event<KymaBinding>) {
        if let Event::Apply(binding) | Event::InitApply(binding) = event {
            self.0.lock().push(format!("{} comes", binding.name_any()));
        }
    }

    fn shown(&self, change: &Change<'_>) {
        self.0.lock().push(match change {
            Change::Changed(name) => (*name).to_owned(),
            Change::Gone(name, uid) => format!("{name}/{uid} is gone"),
            Change::Listed { before, now } => {
                format!("{} were there, now {}", before.names().count(), now.names().count())
            }
        });
    }
}

impl Heard {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock())
    }
}

fn binding(name: &str, uid: &str, version: u64) -> KymaBinding {
    serde_json::from_value(json!({
        "metadata": {
            "name": name, "uid": uid, "resourceVersion": version.to_string(),
        },
        "spec": {"instanceId": "i"},
        "status": {"phase": "Ready", "expiresAt": "2026-01-01T00:00:00Z", "conditions": [
            {"type": "Ready", "status": "True", "reason": "Issued", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"},
        ]},
    }))
    .unwrap()
}

/// One that has a list, and who follows it.
fn mirror(listed: &[KymaBinding]) -> (Mirror, Arc<Heard>) {
    let nobody = tower::service_fn(|_| async {
        Ok::<_, Infallible>(http::Response::new(kube::client::Body::empty()))
    });
    let mirror = Mirror::new(Client::new(nobody, "n"), "n", 1);
    let heard = Arc::<Heard>::default();
    mirror.follow(heard.clone());
    assert!(mirror.begin() && mirror.writing().is_none());
    list(&mirror, listed);
    heard.take();
    (mirror, heard)
}

fn list(mirror: &Mirror, listed: &[KymaBinding]) {
    mirror.watched(Event::Init);
    for binding in listed {
        mirror.watched(Event::InitApply(binding.clone()));
    }
    mirror.watched(Event::InitDone);
}

fn uid(mirror: &Mirror, name: &str) -> Option<String> {
    mirror.get(name)?.uid()
}

#[tokio::test]
async fn it_shows_what_is_there_once_it_is_known() {
    let (mirror, heard) = mirror(&[binding("a", "1", 1)]);
    assert!(mirror.is_synced());
    let begun = mirror.writing();
    mirror.is(begun, &binding("b", "2", 5));
    mirror.watched(Event::Apply(binding("b", "2", 5)));
    assert_eq!(heard.take(), ["b comes", "b"], "once");
    let mut seen = Vec::new();
    mirror.each(|phase, expires| seen.push((phase, expires.is_some())));
    assert_eq!(seen, [(Phase::Ready, true); 2]);

    mirror.is_gone(begun, binding("b", "2", 5));
    mirror.watched(Event::Delete(binding("b", "2", 7)));
    mirror.is_gone(begun, binding("b", "2", 5));
    assert_eq!(heard.take(), ["b/2 is gone"], "once");
    assert_eq!((uid(&mirror, "b"), uid(&mirror, "a").as_deref()), (None, Some("1")));

    list(&mirror, &[binding("c", "3", 9)]);
    assert_eq!(heard.take(), ["c comes", "1 were there, now 1"]);
    mirror.is(begun, &binding("d", "4", 10));
    assert_eq!(heard.take(), [""; 0], "it was written before the list");
}

#[tokio::test]
async fn what_is_late_of_a_namesake_takes_nothing_from_a_newer_binding() {
    let (mirror, _) = mirror(&[]);
    mirror.is(mirror.writing(), &binding("n", "new", 30));
    for late in [Event::Apply(binding("n", "old", 22)), Event::Delete(binding("n", "old", 25))] {
        mirror.watched(late);
        assert_eq!(uid(&mirror, "n").as_deref(), Some("new"));
    }
    mirror.watched(Event::Apply(binding("n", "new", 30)));
    mirror.watched(Event::Delete(binding("n", "new", 31)));
    assert_eq!(uid(&mirror, "n"), None);
}

#[tokio::test]
async fn who_joins_begins_with_a_list_of_its_own() {
    let (mirror, heard) = mirror(&[binding("a", "1", 1)]);
    let other = Arc::<Heard>::default();
    mirror.follow(other.clone());
    mirror.watched(Event::Apply(binding("a", "1", 2)));
    mirror.is(mirror.writing(), &binding("b", "2", 3));
    assert_eq!((heard.take(), other.take()), (Vec::new(), Vec::new()), "until then nobody hears anything");
    assert!(mirror.begin());
    list(&mirror, &[binding("a", "1", 2)]);
    assert_eq!(heard.take(), other.take());
}
