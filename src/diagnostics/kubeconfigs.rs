//! The instances' kubeconfigs, judged as the operator judges them before it uses them. No cluster is asked.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use kube::api::ListParams;

use super::report::Kubeconfigs;
use crate::cluster::address::Policy;
use crate::cluster::clients::KUBECONFIG_KEY;
use crate::cluster::connect::{self, Deadlines};
use crate::cluster::kubeconfig;
use crate::instances::runtime::INSTANCE_ID;
use crate::support::secret::Zeroize as _;

/// Secrets in one answer: each may have 1 MiB.
const PAGE: u32 = 50;

/// Asks for a page of the instances' Secrets.
pub fn page(token: Option<&str>) -> ListParams {
    let params = ListParams::default().labels(INSTANCE_ID).limit(PAGE);
    match token {
        Some(token) => params.continue_token(token),
        None => params,
    }
}

/// Judges the kubeconfigs of a page, and wipes them.
pub fn judge(page: Vec<Secret>, all: &mut Kubeconfigs) {
    for secret in page {
        let (name, instance) =
            (secret.name_any(), secret.labels().get(INSTANCE_ID).cloned().unwrap_or_default());
        let mut data = secret.data.unwrap_or_default();
        let why = match data.get(KUBECONFIG_KEY).map(|config| config.0.as_slice()) {
            None => Some(format!("it has no key {KUBECONFIG_KEY}, which must hold the kubeconfig")),
            Some([]) => Some(format!("its key {KUBECONFIG_KEY} is empty, and must hold the kubeconfig")),
            Some(config) => refusal(config).map(|why| format!("its kubeconfig is refused: {why}")),
        };
        for value in data.values_mut() {
            value.0.zeroize();
        }
        match why {
            Some(why) => all.refused.push((name, instance, why)),
            None => all.taken += 1,
        }
    }
}

/// Why nobody would be connected to by that kubeconfig. A client asks nothing before its first call.
fn refusal(config: &[u8]) -> Option<kubeconfig::Refusal> {
    let client = kubeconfig::accept(config)
        .and_then(|access| connect::client(&access, &Arc::new(Policy::default()), Deadlines::default()));
    client.err()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn judged(secrets: serde_json::Value) -> Kubeconfigs {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut all = Kubeconfigs::default();
        judge(serde_json::from_value(secrets).unwrap(), &mut all);
        all
    }

    #[test]
    fn the_example_as_it_stands_is_refused() {
        let example: serde_json::Value =
            serde_saphyr::from_str(include_str!("../../examples/instance-secret.yaml")).unwrap();
        let mut example: Secret = serde_json::from_value(example).unwrap();
        // What the API server makes of it.
        let text = example.string_data.take().unwrap();
        let data = text.into_iter().map(|(key, text)| (key, k8s_openapi::ByteString(text.into_bytes())));
        example.data = Some(data.collect());
        let all = judged(json!([example]));
        let [(name, instance, why)] = all.refused.as_slice() else { panic!("{all:?}") };
        assert_eq!(
            (name.as_str(), instance.as_str(), all.taken),
            ("kubeconfig-my-runtime", "my-instance", 0)
        );
        assert!(why.starts_with("its kubeconfig is refused: "), "{why}");
        assert!(!why.contains("base64 of PEM>"), "nothing of it is said");
    }

    #[test]
    fn a_key_that_is_missing_or_empty_is_named() {
        let secret = |name: &str, data| json!({"metadata": {"name": name, "labels": {"kyma-project.io/instance-id": "i"}}, "data": data});
        let all = judged(json!([
            secret("none", json!({})),
            secret("empty", json!({"config": ""})),
            secret("text", json!({"config": "eA=="})),
        ]));
        let said: Vec<_> = all.refused.iter().map(|(name, _, why)| format!("{name}: {why}")).collect();
        assert!(said[0].starts_with("none: it has no key config"), "{said:?}");
        assert!(said[1].starts_with("empty: its key config is empty"), "{said:?}");
        assert!(said[2].starts_with("text: its kubeconfig is refused"), "{said:?}");
    }
}
