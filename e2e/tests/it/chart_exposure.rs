//! How the chart's API is reached: its certificate and its routes.

use e2e::helm::chart;
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

const MESH: &str = "istio.enabled=true,istio.virtualService.domain=kcp.example,auth.allowAnonymous=false,auth.methods={jwt},\
                    auth.jwt.issuer=https://i.example,auth.jwt.audience=b";

fn pod(rendered: &str, component: &str) -> Value {
    let pods =
        objects(rendered, "Deployment").into_iter().map(|pod| pod["spec"]["template"]["metadata"].clone());
    let mut pods = pods.filter(|of| of["labels"]["app.kubernetes.io/component"] == component);
    pods.next().unwrap()
}

#[tokio::test]
async fn in_a_mesh_tokens_are_asked_for_and_stay_in_the_request() {
    assert!(!rendered(&LEAST).await.contains("istio"));
    let rendered = with(MESH).await;
    let route = only(&rendered, "VirtualService");
    assert_eq!(route["spec"]["hosts"], json!(["kyma-bindings.kcp.example"]));
    assert_eq!(route["spec"]["gateways"], json!(["kyma-system/kyma-gateway"]));
    let to = json!({"host": "kb-kyma-bindings.kyma-bindings.svc.cluster.local", "port": {"number": 80}});
    assert_eq!(route["spec"]["http"][0]["route"], json!([{"destination": to}]));
    let authentication = only(&rendered, "RequestAuthentication");
    let rule = json!([{"issuer": "https://i.example", "audiences": ["b"], "forwardOriginalToken": true}]);
    assert_eq!(authentication["spec"]["jwtRules"], rule);
    let policy = only(&rendered, "AuthorizationPolicy");
    let rules = json!([{
        "to": [{"operation": {"paths": ["/oauth/*"], "methods": ["GET", "PUT", "DELETE"]}}],
        "from": [{"source": {"requestPrincipals": ["https://i.example/*"]}}],
        "when": [{"key": "request.auth.claims[scp]", "values": ["broker:write"]}],
    }]);
    assert_eq!((&policy["spec"]["action"], &policy["spec"]["rules"]), (&json!("ALLOW"), &rules));
    // Both are for the pods that the Service leads to.
    for policy in [&authentication, &policy] {
        assert_eq!(policy["spec"]["selector"]["matchLabels"], service(&rendered)["spec"]["selector"]);
    }
    let broker = pod(&rendered, "broker");
    assert_eq!(broker["labels"]["sidecar.istio.io/inject"], "true");
    assert_eq!(broker["annotations"]["traffic.sidecar.istio.io/excludeInboundPorts"], "9090");
    let controller = pod(&rendered, "controller");
    assert_eq!(controller["labels"]["sidecar.istio.io/inject"], "false");
    // A sidecar would outlive the pods of hooks.
    let cleanup = only(&rendered, "Job")["spec"]["template"].clone();
    let hooks = [objects(&rendered, "Pod"), vec![cleanup]].concat();
    assert_eq!(hooks.len(), 3, "{hooks:?}");
    for hook in hooks {
        assert_eq!(hook["metadata"]["labels"]["sidecar.istio.io/inject"], "false");
    }
}

#[tokio::test]
async fn in_ambient_mode_the_waypoint_of_the_service_decides() {
    let rendered = with(&format!("{MESH},istio.mode=ambient")).await;
    let service = service(&rendered);
    assert_eq!(service["metadata"]["labels"]["istio.io/use-waypoint"], "waypoint");
    assert_eq!(service["metadata"]["labels"]["istio.io/ingress-use-waypoint"], "true");
    let target = json!([{"group": "", "kind": "Service", "name": service["metadata"]["name"]}]);
    for kind in ["RequestAuthentication", "AuthorizationPolicy"] {
        let policy = only(&rendered, kind);
        assert_eq!(policy["spec"]["targetRefs"], target, "{kind}");
        assert!(policy["spec"]["selector"].is_null(), "{kind}");
    }
    let (broker, controller) = (pod(&rendered, "broker"), pod(&rendered, "controller"));
    assert_eq!(broker["labels"]["istio.io/dataplane-mode"], "ambient");
    assert!(controller["labels"]["istio.io/dataplane-mode"].is_null());
    for pod in [broker, controller] {
        assert_eq!(pod["labels"]["sidecar.istio.io/inject"], "false");
    }
}

#[tokio::test]
async fn with_passwords_alone_no_token_is_asked_for() {
    let basic = "auth.methods={basic},auth.basic.existingSecret=s,auth.basic.allowWithoutTls=true";
    let local = "istio.authorizationPolicy.fromNamespaces={kcp-system}";
    let rendered = with(&format!("{MESH},{basic},{local}")).await;
    assert!(objects(&rendered, "RequestAuthentication").is_empty());
    let policy = only(&rendered, "AuthorizationPolicy");
    let rules = json!([
        {"to": [{"operation": {"paths": ["/oauth/*"], "methods": ["GET", "PUT", "DELETE"]}}]},
        {"from": [{"source": {"namespaces": ["kcp-system"]}}]},
    ]);
    assert_eq!(policy["spec"]["rules"], rules);
}

#[test]
fn the_rule_for_the_other_brokers_host_is_in_the_docs_and_leads_to_this_service() {
    let page = std::fs::read_to_string(chart().join("../../docs/exposure.md")).unwrap();
    let rule = page.split("```yaml\n").find(|text| text.starts_with("- match:")).unwrap();
    let rule: Value = serde_saphyr::from_str(rule.split("```").next().unwrap()).unwrap();
    let to = &rule[0]["route"][0]["destination"];
    let expected =
        json!({"host": "kb-kyma-bindings.kyma-bindings.svc.cluster.local", "port": {"number": 80}});
    assert_eq!(to, &expected);
}
