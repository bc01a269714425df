//! The Secrets among them, which a waiting request so need not read again.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use parking_lot::Mutex;

use crate::api::secret;

/// Secrets as the API server has stored them, each for the one request that waits for it; others are wiped.
#[derive(Default)]
pub struct Secrets(Mutex<HashMap<String, Option<Secret>>>);

/// A request that waits for a Secret; when it ends, nothing of the Secret is kept.
pub struct Awaited<'a> {
    secrets: &'a Secrets,
    name: String,
}

impl Secrets {
    /// From now on the Secret of that name is kept for the caller; `None` where somebody else waits for it.
    #[must_use]
    pub fn await_one(&self, name: String) -> Option<Awaited<'_>> {
        let mut secrets = self.0.lock();
        if secrets.contains_key(&name) {
            return None;
        }
        secrets.insert(name.clone(), None);
        Some(Awaited { secrets: self, name })
    }

    /// Hands over what the API server has answered to the creation of a Secret.
    pub fn stored(&self, mut secret: Secret) {
        if let Some(place) = self.0.lock().get_mut(&secret.name_any()) {
            std::mem::swap(place.get_or_insert_default(), &mut secret);
        }
        // What nobody waits for, or what was there before.
        secret::wipe(&mut secret);
    }
}

impl Awaited<'_> {
    /// The Secret, if this process has stored it since.
    #[must_use]
    pub fn take(&self) -> Option<Secret> {
        self.secrets.0.lock().get_mut(&self.name)?.take()
    }
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        if let Some(Some(mut secret)) = self.secrets.0.lock().remove(&self.name) {
            secret::wipe(&mut secret);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn secret(version: &str) -> Secret {
        let made =
            json!({"metadata": {"name": "a", "resourceVersion": version}, "data": {"kubeconfig": "QQ=="}});
        serde_json::from_value(made).unwrap()
    }

    #[test]
    fn it_is_kept_for_who_waits_and_for_nobody_else() {
        let secrets = Secrets::default();
        secrets.stored(secret("1"));
        let awaited = secrets.await_one("a".to_owned()).unwrap();
        assert!(awaited.take().is_none(), "nobody waited then");
        assert!(secrets.await_one("a".to_owned()).is_none(), "one waits already");
        secrets.stored(secret("2"));
        secrets.stored(secret("3"));
        assert_eq!(awaited.take(), Some(secret("3")), "the latest, as it was");
        assert!(awaited.take().is_none());
        secrets.stored(secret("4"));
        drop(awaited);
        assert!(secrets.0.lock().is_empty());
        assert!(secrets.await_one("a".to_owned()).unwrap().take().is_none());
    }
}
