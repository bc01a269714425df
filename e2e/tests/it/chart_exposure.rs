//! How the chart's API is reached: its certificate and its routes.

use serde_json::{Value, json};

use crate::chart::{LEAST, objects, rendered};

async fn with(values: &str) -> String {
    rendered(&[&LEAST[..], &["--set", values]].concat()).await
}

fn only(rendered: &str, kind: &str) -> Value {
    let mut objects = objects(rendered, kind);
    assert_eq!(objects.len(), 1, "{kind}: {objects:?}");
    objects.remove(0)
}

/// The Service of the API.
fn service(rendered: &str) -> Value {
    objects(rendered, "Service").into_iter().find(|s| s["metadata"]["name"] == "kb-kyma-bindings").unwrap()
}

#[tokio::test]
async fn a_certificate_of_cert_manager_is_what_the_broker_serves_with() {
    let plain = rendered(&LEAST).await;
    assert!(objects(&plain, "Certificate").is_empty() && !plain.contains("--tls-cert"));
    let values =
        "tls.certManager.enabled=true,tls.certManager.issuerRef.name=ca,tls.certManager.dnsNames={b.example}";
    let rendered = with(values).await;
    let certificate = only(&rendered, "Certificate");
    let spec = &certificate["spec"];
    assert_eq!(spec["issuerRef"], json!({"name": "ca", "kind": "Issuer", "group": "cert-manager.io"}));
    let names = ["", ".kyma-bindings", ".kyma-bindings.svc", ".kyma-bindings.svc.cluster.local"];
    let names: Vec<_> = names.map(|domain| format!("kb-kyma-bindings{domain}")).into();
    assert_eq!(spec["dnsNames"], json!([&names[..], &["b.example".to_owned()]].concat()));
    let pods = objects(&rendered, "Deployment");
    let [broker, controller] = &pods[..] else { panic!("{pods:?}") };
    let volume = json!({"name": "tls", "secret": {"secretName": spec["secretName"]}});
    assert_eq!(broker["spec"]["template"]["spec"]["volumes"], json!([volume]));
    assert!(controller["spec"]["template"]["spec"]["volumes"].is_null(), "the API is the broker's");
    let args = broker["spec"]["template"]["spec"]["containers"][0]["args"].as_array().unwrap();
    assert!(args.contains(&json!("--tls-cert=/etc/kyma-bindings/tls/tls.crt")), "{args:?}");
    let ports = json!([{"name": "https", "port": 443, "targetPort": "https"}]);
    assert_eq!(service(&rendered)["spec"]["ports"], ports);
}

#[tokio::test]
async fn a_route_leads_to_the_port_of_the_service() {
    assert!(objects(&rendered(&LEAST).await, "HTTPRoute").is_empty());
    let on = "httpRoute.enabled=true,httpRoute.parentRefs[0].name=public";
    let tls = format!("{on},tls.existingSecret=s");
    let other = format!("{on},service.port=8443");
    for values in [on, &tls, &other] {
        let rendered = with(values).await;
        let route = only(&rendered, "HTTPRoute");
        assert_eq!(route["spec"]["parentRefs"], json!([{"name": "public"}]));
        let prefix = |path: &str| json!({"path": {"type": "PathPrefix", "value": path}});
        let port = &service(&rendered)["spec"]["ports"][0]["port"];
        let expected = json!([{
            "matches": [prefix("/oauth"), prefix("/v2")],
            "backendRefs": [{"name": "kb-kyma-bindings", "port": port}],
        }]);
        assert_eq!(route["spec"]["rules"], expected, "{values}");
    }
}
