//! Rows of `tenant` for one who may write Secrets beside the bindings, too.

use e2e::stage::SOON;
use e2e::{Stage, eventually};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ObjectMeta, PostParams};
use serde_json::json;

use crate::lifecycle::objects;
use crate::tenant::Tenancy;
use crate::world::world;

/// Puts another kubeconfig into a Secret's place, with its marks, its owner and its shape.
async fn swap(stage: &Stage<'_>, name: &str, change: impl FnOnce(String) -> String) {
    let secrets = stage.secrets();
    let name = format!("kyma-binding-{name}");
    let Secret { metadata, mut data, type_, immutable, .. } = secrets.get(&name).await.unwrap();
    let kubeconfig = data.as_mut().unwrap().get_mut("kubeconfig").unwrap();
    kubeconfig.0 = change(String::from_utf8(kubeconfig.0.clone()).unwrap()).into_bytes();
    let ObjectMeta { name, labels, annotations, owner_references, .. } = metadata;
    let metadata =
        ObjectMeta { name: name.clone(), labels, annotations, owner_references, ..ObjectMeta::default() };
    let swapped = Secret { metadata, data, type_, immutable, ..Secret::default() };
    secrets.delete(&name.unwrap(), &DeleteParams::default()).await.unwrap();
    let create = async || secrets.create(&PostParams::default(), &swapped).await;
    eventually("the Secret to be swapped", SOON, async || create().await.map(drop)).await.unwrap();
}

type Change<'a> = Box<dyn FnOnce(String) -> String + 'a>;

/// A Secret with its marks, its owner and its shape, and another content.
pub async fn swapped_secrets(tenancy: &Tenancy) {
    let Tenancy { stage, osb, instance, operator, .. } = tenancy;
    let neighbours = tenancy.neighbour.0.clone();
    let rows: [(&str, &str, Change); 3] = [
        (
            "exec",
            "tenant-exec",
            Box::new(|text| {
                text.replace("    token: ", "    exec: {apiVersion: v1, command: evil-program}\n    token: ")
            }),
        ),
        ("another binding's kubeconfig", "tenant-swap", Box::new(|_| neighbours)),
        ("anything", "tenant-any", Box::new(|_| "its-own-business".to_owned())),
    ];
    for (what, name, change) in rows {
        let kubeconfig = tenancy.bound(name).await;
        // The one that is missed must not be made again meanwhile.
        assert!(operator.pause().await.unwrap());
        swap(stage, name, change).await;
        operator.resume();
        let fetched = osb.fetch(instance, name).await.unwrap();
        assert!(fetched.status >= 500 && fetched.kubeconfig().is_err(), "{what}: {}", fetched.status);
        let again = osb.bind(instance, name, None).await.unwrap();
        assert!(again.status >= 500 && again.kubeconfig().is_err(), "{what}: {}", again.status);
        for answer in [fetched, again] {
            assert!(
                !answer.body.to_string().contains("evil") && !answer.body.to_string().contains("business")
            );
        }
        tenancy.ends(name, &kubeconfig).await;
        tenancy.row(&format!("a swapped Secret with {what}"), "not handed out").await;
    }
}

/// Secrets that were there before, or look like ours.
pub async fn pre_made_secrets(tenancy: &Tenancy) {
    let Tenancy { stage, osb, instance, .. } = tenancy;
    let secrets = stage.secrets();
    let plain =
        json!({"metadata": {"name": "kyma-binding-tenant-made"}, "stringData": {"kubeconfig": "mine"}});
    let plain =
        secrets.create(&PostParams::default(), &serde_json::from_value(plain).unwrap()).await.unwrap();
    let refused = osb.bind(instance, "tenant-made", None).await.unwrap();
    assert_eq!(refused.status, 409, "{}", refused.description());
    assert!(refused.description().contains("was not made for this binding"), "{}", refused.description());
    assert_eq!(secrets.get("kyma-binding-tenant-made").await.unwrap(), plain);
    assert_eq!(objects(&world().await.managed, "tenant-made").await, 0);
    tenancy.row("a pre-made Secret of our name", "the bind is refused, the Secret stays").await;

    // Marks of another binding on a Secret that is none of ours.
    let kubeconfig = tenancy.bound("tenant-marks").await;
    let marks = secrets.get("kyma-binding-tenant-marks").await.unwrap().metadata.labels;
    let copy = Secret {
        metadata: ObjectMeta { name: Some("tenant-copy".into()), labels: marks, ..ObjectMeta::default() },
        data: Some([("kubeconfig".to_owned(), ByteString(b"its-own-business".to_vec()))].into()),
        ..Secret::default()
    };
    let copy = secrets.create(&PostParams::default(), &copy).await.unwrap();
    tenancy.ends("tenant-marks", &kubeconfig).await;
    assert_eq!(secrets.get("tenant-copy").await.unwrap(), copy);
    tenancy.row("copied marks", "what has them under another name is left alone").await;
}
