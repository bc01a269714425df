//! Points at which a test ends the process: before and after each call that leaves it.
//!
//! Each funnel of outside calls goes through [`around`]. Without the feature `failpoints`, which
//! only the tests switch on, that is the call and nothing else.
//!
//! With it, two environment variables are read. `KYMA_BINDINGS_ABORT_AT` names a point, such as
//! `after controller: create the Secret`: the process aborts when it first gets there. Nothing is
//! unwound or flushed, which is the nearest to a power cut. `KYMA_BINDINGS_LIST_POINTS` names a
//! file: each point is appended to it when it is first met, so that a test sees which there are.
//!
//! The crate `fail` doesn't fit: its actions return, sleep or panic, and a panic here is caught as
//! the end of one round; its points have constant names, while ours come from the requests.

#[cfg(feature = "failpoints")]
pub(crate) use armed::{around, name_of};
#[cfg(not(feature = "failpoints"))]
pub(crate) use unarmed::{around, name_of};

#[cfg(not(feature = "failpoints"))]
mod unarmed {
    /// The call itself.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "it must leave no trace")]
    pub fn around<F: Future>(_side: &str, _name: impl AsRef<str>, call: F) -> F {
        call
    }

    /// Nobody reads it.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "it must leave no trace")]
    pub fn name_of<B>(_request: &http::Request<B>) -> &'static str {
        ""
    }
}

#[cfg(feature = "failpoints")]
mod armed {
    use std::collections::HashSet;
    use std::fs::OpenOptions;
    use std::io::Write as _;
    use std::sync::LazyLock;

    use parking_lot::Mutex;

    static ABORT_AT: LazyLock<Option<String>> =
        LazyLock::new(|| std::env::var("KYMA_BINDINGS_ABORT_AT").ok());
    static LIST: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("KYMA_BINDINGS_LIST_POINTS").ok());
    static MET: LazyLock<Mutex<HashSet<String>>> = LazyLock::new(Mutex::default);

    /// The call, between its two points. A call that is cut off by its deadline has no second one.
    pub fn around<F: Future>(side: &str, name: impl AsRef<str>, call: F) -> impl Future<Output = F::Output> {
        let point = format!("{side}: {}", name.as_ref());
        // Boxed, or the futures around it grow past what the lints allow.
        let call = Box::pin(call);
        async move {
            hit(&format!("before {point}"));
            let answer = call.await;
            hit(&format!("after {point}"));
            answer
        }
    }

    fn hit(point: &str) {
        if let Some(list) = LIST.as_ref() {
            let mut met = MET.lock();
            if met.insert(point.to_owned()) {
                // What can't be written is missing in the list, which is what the test would see.
                let file = OpenOptions::new().create(true).append(true).open(list);
                let _ = file.and_then(|mut file| writeln!(file, "{point}"));
            }
        }
        if ABORT_AT.as_deref() == Some(point) {
            std::process::abort();
        }
    }

    /// Method and kind, with the subresource but without any object's name: `POST
    /// serviceaccounts/token`.
    pub fn name_of<B>(request: &http::Request<B>) -> String {
        let path = request.uri().path();
        let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty()).collect();
        // `api/v1/…` or `apis/{group}/{version}/…`.
        let parts = parts.get(if path.starts_with("/apis/") { 3 } else { 2 }..).unwrap_or_default();
        let parts = match parts {
            ["namespaces", _, inner @ ..] if !inner.is_empty() => inner,
            whole => whole,
        };
        let kind = match parts {
            [kind, _, subresource, ..] => format!("{kind}/{subresource}"),
            [kind, ..] => (*kind).to_owned(),
            [] => String::new(),
        };
        format!("{} {kind}", request.method())
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_point_is_named_by_method_and_kind() {
            let name = |method: &str, uri: &str| {
                name_of(&http::Request::builder().method(method).uri(uri).body(()).unwrap())
            };
            assert_eq!(name("GET", "/api/v1/namespaces/kube-system"), "GET namespaces");
            assert_eq!(
                name("POST", "/api/v1/namespaces/kyma-system/serviceaccounts?"),
                "POST serviceaccounts"
            );
            assert_eq!(
                name("POST", "/api/v1/namespaces/kyma-system/serviceaccounts/a/token?"),
                "POST serviceaccounts/token"
            );
            assert_eq!(
                name("DELETE", "/apis/rbac.authorization.k8s.io/v1/clusterroles/a?"),
                "DELETE clusterroles"
            );
        }
    }
}
