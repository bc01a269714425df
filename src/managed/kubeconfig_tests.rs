use super::*;

/// A PEM block is base64 between two lines; for parsing, any bytes will do.
const PEM: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

fn with(cluster: &str, user: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\npreferences: {{}}\n\
         contexts: [{{name: c, context: {{cluster: c, user: u, namespace: x}}}}]\n\
         clusters: [{{name: c, cluster: {{{cluster}}}}}]\n\
         users: [{{name: u, user: {{{user}}}}}]\n"
    )
}

fn cluster() -> String {
    format!("server: 'https://api.example.com:6443', certificate-authority-data: {}", STANDARD.encode(PEM))
}

fn refusal(cluster: &str, user: &str) -> Refusal {
    match accept(with(cluster, user).as_bytes()) {
        Ok(_) => panic!("accepted: {cluster} / {user}"),
        Err(refusal) => refusal,
    }
}

#[test]
fn a_token_or_a_certificate_is_accepted() {
    assert!(accept(with(&cluster(), "token: abc").as_bytes()).is_ok());
    assert!(
        accept(with(&cluster(), "client-certificate-data: YQ==, client-key-data: YQ==").as_bytes()).is_ok()
    );
    assert!(
        accept(with(&format!("{}, insecure-skip-tls-verify: false", cluster()), "token: abc").as_bytes())
            .is_ok()
    );
}

#[test]
fn everything_that_would_run_read_or_redirect_is_refused() {
    for (user, what) in [
        ("exec: {command: sh}", "exec"),
        ("auth-provider: {name: oidc}", "auth-provider"),
        ("tokenFile: /etc/passwd", "tokenFile"),
        ("client-certificate: /c, client-key-data: YQ==", "client-certificate, a file path"),
        ("client-key: /k", "client-key, a file path"),
        ("username: a, password: b", "username and password"),
        ("token: abc, as: admin", "impersonation"),
        ("token: abc, as-groups: [system:masters]", "impersonation"),
    ] {
        assert_eq!(refusal(&cluster(), user), Refusal::Forbidden(what));
    }
    for (more, what) in [
        ("insecure-skip-tls-verify: true", "insecure-skip-tls-verify"),
        ("certificate-authority: /ca", "certificate-authority, a file path"),
        ("tls-server-name: other", "tls-server-name"),
        ("proxy-url: 'http://proxy'", "proxy-url"),
    ] {
        assert_eq!(refusal(&format!("{}, {more}", cluster()), "token: abc"), Refusal::Forbidden(what));
    }
}

#[test]
fn only_plain_https_servers() {
    for server in [
        "http://api.example.com",
        "https://user:pw@api.example.com",
        "https://api.example.com/?a=b",
        "https://api.example.com/#x",
        "file:///etc/passwd",
        "api.example.com",
        "https://",
    ] {
        let cluster = format!("server: '{server}', certificate-authority-data: {}", STANDARD.encode(PEM));
        assert_eq!(refusal(&cluster, "token: abc"), Refusal::Server, "{server}");
    }
    assert_eq!(
        refusal("server: 'https://a', certificate-authority-data: QQ==", "token: abc"),
        Refusal::CertificateAuthority
    );
    assert_eq!(refusal("server: 'https://a'", "token: abc"), Refusal::Missing("certificate-authority-data"));
}

#[test]
fn what_is_not_a_kubeconfig_is_refused_without_quoting_it() {
    for text in ["", "- a", "kind: Secret", "{", "clusters: 1", "token: hunter2", "a: &a [*a]"] {
        let Err(refusal) = accept(text.as_bytes()) else { panic!("accepted {text}") };
        assert!(!refusal.to_string().contains("hunter2"));
    }
    assert!(matches!(accept(&vec![b' '; MAX_SIZE + 1]), Err(Refusal::TooLarge)));
    assert!(matches!(accept(b"\xff\xfe"), Err(Refusal::Unreadable)));
    for user in
        ["token: ''", "token: 'a\\nb c'", "", "token: a, client-key-data: b", "client-certificate-data: YQ=="]
    {
        assert_eq!(refusal(&cluster(), user), Refusal::Credentials, "{user}");
    }
}

#[test]
fn ours_reads_back_whatever_the_clusters_name_is() {
    let access = accept(with(&cluster(), "token: abc").as_bytes()).unwrap();
    let ends = Timestamp::from_second(1_800_000_000).unwrap();
    for name in ["c-1234567", "no", "null", "1e3", "~", "a: b", "x\ny", "# c", "'", "\"", "0x1F", "- a", "é"]
    {
        let token = format!("aaa.{}.ccc", "b".repeat(900));
        let out = access.kubeconfig(name, &token.clone().into(), ends).unwrap();
        let text = out.expose_secret();
        assert!(text.starts_with("# This kubeconfig stops working at 2027-01-15T08:00:00Z.\n"));
        assert!(text.contains(&format!("\n    token: {token}\n")), "{text}");
        let file: File = serde_saphyr::from_str(text).unwrap();
        assert_eq!(file.current_context.as_deref(), Some(name));
        assert_eq!((file.clusters.len(), file.users.len(), file.contexts.len()), (1, 1, 1));
        assert_eq!(file.users[0].name, name);
    }
}
