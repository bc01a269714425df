//! The lines to go on with.

use super::{APPLIED, BY_HTTP, INSTANCE, NAMESPACE, Playground};

impl Playground<'_> {
    /// Lines for a shell, ready to be pasted.
    #[must_use]
    pub fn hints(&self) -> String {
        let (osb, curl) = (self.access.osb(&self.operator), self.access.curl());
        let (mine, by_http) = (osb.url(INSTANCE, "mine"), osb.url(INSTANCE, BY_HTTP));
        let next = osb.url(INSTANCE, "next");
        let version = "-H 'X-Broker-API-Version: 2.17'";
        // The build's own kubectl: there may be no other one, or one that is too old.
        let kubectl = format!("{} --kubeconfig", self.kubectl.display());
        let control =
            format!("{kubectl} {} -n {NAMESPACE}", self.clusters.control.kubeconfig_path().display());
        let (handed_out, applied) = (self.file_of(BY_HTTP), self.file_of(APPLIED));
        let (handed_out, applied) = (handed_out.display(), applied.display());
        format!(
            r#"# Another binding by HTTP; the answer has a kubeconfig, so a token, in it
{curl} -X PUT {version} -H 'Content-Type: application/json' \
  -d '{{"service_id":"kyma","plan_id":"aws","parameters":{{"expiration_seconds":900}}}}' \
  {mine}

# Fetch it again, let another one take over, and end it
{curl} {version} {mine}
{curl} -X PUT {version} -d '{{"predecessor_binding_id":"mine"}}' {next}
{curl} -X DELETE {version} \
  '{mine}?service_id=kyma&plan_id=aws'

# The control plane: all bindings, and one in full
{control} get kb
{control} describe kb {APPLIED}

# The managed cluster, with the kubeconfigs that were handed out
{kubectl} {handed_out} get secrets -A
{kubectl} {applied} get secrets -A

# The same without kubectl
server=$({kubectl} {handed_out} config view --minify -o 'jsonpath={{.clusters[0].cluster.server}}')
token=$({kubectl} {handed_out} config view --minify --raw -o 'jsonpath={{.users[0].user.token}}')
curl -k -H "Authorization: Bearer $token" $server/version

# End them: by HTTP, and with kubectl; after that the two lines before are refused
{curl} -X DELETE {version} \
  '{by_http}?service_id=kyma&plan_id=aws'
{control} delete kb {APPLIED}

# What is offered, and the whole API, to be tried in a browser
{curl} {version} {url}/v2/catalog
{url}/docs

# What the operator logs, and counts
tail -f {log}
curl -sS {admin}/metrics"#,
            log = self.operator.log_path().display(),
            url = self.operator.url(),
            admin = self.operator.admin_url(),
        )
    }
}
