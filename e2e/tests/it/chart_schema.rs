//! What the schema of the chart's values refuses.

use e2e::helm::template;

#[tokio::test]
async fn a_wrong_value_is_refused_by_its_name() {
    for (values, words) in [
        ("replicacount=2", ["replicacount", "additional properties"]),
        ("config.logLevl=info", ["logLevl", "additional properties"]),
        ("auth.basic.secret=s", ["secret", "additional properties"]),
        ("auth.methods={password}", ["/auth/methods/0", "'basic', 'jwt', 'none'"]),
        ("broker.replicas=two", ["/broker/replicas", "want integer"]),
        ("config.maxExpirationSeconds=7201", ["/config/maxExpirationSeconds", "7,200"]),
        ("config.createTimeout=15", ["/config/createTimeout", "want string"]),
        ("admissionPolicy.validationActions={Deny,Warn}", ["/admissionPolicy/validationActions", "not"]),
        ("podSpecExtra.containers=x", ["propertyName 'containers'", "not"]),
        ("metrics.serviceMonitor.endpoint.port=x", ["propertyName 'port'", "not"]),
        ("image.digest=sha256:1", ["/image/digest", "does not match pattern"]),
    ] {
        let least = "image.repository=r.example/i,auth.methods={none},auth.allowAnonymous=true";
        let output = template(&["--set", least, "--set", values]).await.unwrap();
        let refused = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{values} is accepted");
        for word in words {
            assert!(refused.contains(word), "{values}: {word} is not in: {refused}");
        }
    }
}
