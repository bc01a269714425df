use std::sync::LazyLock;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use super::*;

/// An authority, and a certificate of it with its key; all PEM.
pub(super) struct Made {
    pub ca: String,
    pub certificate: String,
    pub key_pem: String,
}

pub(super) static MADE: LazyLock<Made> = LazyLock::new(|| {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::default().signed_by(&key, &issuer).unwrap().pem();
    Made { ca, certificate, key_pem: key.serialize_pem() }
});

pub(super) fn encoded(pem: &str) -> String {
    STANDARD.encode(pem)
}

pub(super) fn ca() -> String {
    encoded(&MADE.ca)
}

pub(super) fn pair(certificate: &str, key: &str) -> String {
    format!("client-certificate-data: {}, client-key-data: {}", encoded(certificate), encoded(key))
}

pub(super) fn with(cluster: &str, user: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\npreferences: {{}}\n\
         contexts: [{{name: c, context: {{cluster: c, user: u, namespace: x}}}}]\n\
         clusters: [{{name: c, cluster: {{{cluster}}}}}]\n\
         users: [{{name: u, user: {{{user}}}}}]\n"
    )
}

pub(super) fn cluster() -> String {
    at("https://api.example.com:6443")
}

pub(super) fn at(server: &str) -> String {
    format!("server: '{server}', certificate-authority-data: {}", ca())
}

pub(super) fn taken(cluster: &str, user: &str) -> Access {
    match accept(with(cluster, user).as_bytes()) {
        Ok(access) => access,
        Err(refusal) => panic!("{refusal}: {cluster} / {user}"),
    }
}

pub(super) fn refusal(cluster: &str, user: &str) -> Refusal {
    match accept(with(cluster, user).as_bytes()) {
        Ok(_) => panic!("accepted: {cluster} / {user}"),
        Err(refusal) => refusal,
    }
}

#[test]
fn a_token_or_a_certificate_or_both_are_accepted_and_all_are_sent() {
    let pair = pair(&MADE.certificate, &MADE.key_pem);
    for (user, token, certificate) in [
        ("token: abc".to_owned(), true, false),
        ("token: 'abc '".to_owned(), true, false),
        (pair.clone(), false, true),
        (format!("{pair}, token: ''"), false, true),
        (format!("{pair}, token: abc"), true, true),
        // A key alone is nothing, and the token counts where both are.
        (format!("token: abc, client-key-data: {}", encoded(&MADE.key_pem)), true, false),
        ("token: abc, tokenFile: /etc/passwd".to_owned(), true, false),
    ] {
        let auth = taken(&cluster(), &user).config().auth_info;
        assert_eq!(
            auth.token.map(|t| t.expose_secret().to_owned()),
            token.then(|| "abc".to_owned()),
            "{user}"
        );
        assert_eq!(auth.client_certificate_data.is_some(), certificate, "{user}");
        assert_eq!(auth.client_key_data.is_some(), certificate, "{user}");
        assert!(auth.token_file.is_none());
    }
    taken(&format!("{}, insecure-skip-tls-verify: false", cluster()), "token: abc");
}

#[test]
fn what_is_empty_is_absent() {
    let nothing = "proxy-url: '', tls-server-name: '', certificate-authority: '', insecure-skip-tls-verify: null, \
                   extensions: null, disable-compression: true";
    let cluster = format!("{}, {nothing}", cluster());
    let nobody = "tokenFile: '', username: '', password: '', as: '', as-uid: '', as-groups: [], as-user-extra: {}, \
                  client-certificate: '', client-key: '', exec: null, auth-provider: null, extensions: []";
    taken(&cluster, &format!("token: abc, client-certificate-data: '', client-key-data: \"\\n\", {nobody}"));
    taken(&cluster, &format!("token: null, {}, {nobody}", pair(&MADE.certificate, &MADE.key_pem)));
    for user in [nobody, "token: ''", "", "client-certificate-data: '', client-key-data: ''"] {
        assert_eq!(refusal(&cluster, user), Refusal::NoCredentials, "{user}");
    }
    for ca in ["''", "null", "\"\\n\""] {
        let cluster = format!("server: 'https://a', certificate-authority-data: {ca}");
        assert_eq!(refusal(&cluster, "token: abc"), Refusal::Missing(AUTHORITY), "{ca}");
    }
    assert_eq!(refusal("server: ''", "token: abc"), Refusal::Missing("server"));
}

#[test]
fn everything_that_would_run_read_or_redirect_is_refused() {
    use Feature::{
        AuthProvider, AuthorityPath, CertificatePath, Exec, Impersonation, Insecure, KeyPath, Password,
        Proxy, ServerName, TokenFile,
    };
    for (user, feature) in [
        ("exec: {command: sh}", Exec),
        ("exec: {}", Exec),
        ("exec: ''", Exec),
        ("token: abc, exec: {command: sh}", Exec),
        ("auth-provider: {name: oidc}", AuthProvider),
        ("tokenFile: /etc/passwd", TokenFile),
        ("tokenFile: /etc/passwd, token: ''", TokenFile),
        ("client-certificate: /c, client-key-data: YQ==", CertificatePath),
        ("client-key: /k", KeyPath),
        ("username: a, password: b", Password),
        ("token: abc, as: admin", Impersonation),
        ("token: abc, as-uid: '1'", Impersonation),
        ("token: abc, as-groups: ['system:masters']", Impersonation),
        ("token: abc, as-groups: ['']", Impersonation),
        ("token: abc, as-user-extra: {extensions: [a]}", Impersonation),
    ] {
        assert_eq!(refusal(&cluster(), user), Refusal::Forbidden(feature), "{user}");
    }
    for (more, feature) in [
        ("insecure-skip-tls-verify: true", Insecure),
        ("certificate-authority: /ca", AuthorityPath),
        ("tls-server-name: other", ServerName),
        ("proxy-url: 'http://proxy'", Proxy),
        ("proxy-url: 1", Proxy),
    ] {
        let cluster = format!("{}, {more}", cluster());
        assert_eq!(refusal(&cluster, "token: abc"), Refusal::Forbidden(feature), "{more}");
    }
}

#[test]
fn what_the_current_context_does_not_use_is_not_judged() {
    let odd =
        ["{name: x}", "{name: x, cluster: {server: [1]}}", "null", "[]", "{}", "1", "{name: [x], more: 1}"];
    for odd in odd {
        for list in ["contexts: [", "clusters: [", "users: ["] {
            let text = with(&cluster(), "token: abc").replace(list, &format!("{list}{odd}, "));
            assert!(accept(text.as_bytes()).is_ok(), "{text}");
        }
    }
    for more in ["metadata: {name: x}", "extensions: 1", "preferences: null", "a.b: [c]", "token: 1"] {
        let text = format!("{}{more}\n", with(&cluster(), "token: abc"));
        assert!(accept(text.as_bytes()).is_ok(), "{more}");
    }
    let text = with(&cluster(), "token: abc");
    let text = text.replace("namespace: x", "namespace: [x], more: 1");
    assert!(accept(text.as_bytes()).is_ok());
}

#[test]
fn an_unknown_field_of_what_is_used_is_refused_by_its_name() {
    let named = |part, name: &str| Refusal::Unknown(part, FieldName::new(name));
    let cluster_and = |more: &str| refusal(&format!("{}, {more}", cluster()), "token: abc");
    assert_eq!(cluster_and("Server: x"), named(Part::Cluster, "Server"));
    assert_eq!(cluster_and("hunter2.x: x"), named(Part::Cluster, "?"));
    let user = refusal(&cluster(), "token: abc, impersonate-as: x");
    assert_eq!(user.to_string(), "its user has a field that is not known: impersonate-as");
    for secret in ["hunter_2", "hunter2/", &"hunter2".repeat(10), "''"] {
        let message = cluster_and(&format!("{secret}: x")).to_string();
        assert!(message.ends_with("not known: (its name can't be shown)"), "{message}");
    }
    let text = with(&cluster(), "token: abc").replace("users: [{", "users: [{more: 1, ");
    assert!(matches!(accept(text.as_bytes()), Err(refusal) if refusal == named(Part::User, "more")));
    // Of an old form of kubeconfigs, and without a meaning.
    taken(&format!("{}, api-version: v1", cluster()), "token: abc");
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
        "api.example.com:6443",
        "https://",
        "HTTPS",
        "https:///path",
        "https://user@api.example.com",
        "https://:pw@api.example.com",
        "https://a%00b",
        "https://a%2eb",
        "https://a b",
        "https://[127.0.0.1]",
        "https://[fe80::1%25eth0]",
        "https://[::1",
        "https://bücher.example",
        "https://ａ.example",
        "https://a\u{202e}b",
        "https://a:99999",
        "https://a:x",
        "https://a\\@b",
        "ftp://a",
        "unix:///run/x",
    ] {
        assert_eq!(refusal(&at(server), "token: abc"), Refusal::Server, "{server}");
    }
    assert_eq!(refusal("server: 'https://a'", "token: abc"), Refusal::Missing(AUTHORITY));
}

#[test]
fn what_is_not_a_kubeconfig_is_refused_without_quoting_it() {
    for text in ["", "- a", "kind: Secret", "{", "clusters: 1", "token: hunter2", "a: &a [*a]"] {
        let Err(refusal) = accept(text.as_bytes()) else { panic!("accepted {text}") };
        assert!(!refusal.to_string().contains("hunter2"));
    }
    assert!(matches!(accept(&vec![b' '; MAX_SIZE + 1]), Err(Refusal::TooLarge)));
    assert!(matches!(accept(b"\xff\xfd"), Err(Refusal::Unreadable)));
    for user in
        ["token: ' a'", "token: 'a b'", "token: \"a\\nb\"", "token: \"a\\n\"", "token: ä", "token: ' '"]
    {
        assert_eq!(refusal(&cluster(), user), Refusal::Token, "{user}");
    }
    for (user, refused) in [("token: 123", "token"), ("token: [a]", "token"), ("token: true", "token")] {
        assert_eq!(refusal(&cluster(), user), Refusal::NotText(refused), "{user}");
    }
    let insecure = format!("{}, insecure-skip-tls-verify: 'true'", cluster());
    assert_eq!(refusal(&insecure, "token: abc"), Refusal::NotBoolean("insecure-skip-tls-verify"));
    for text in ["", "- a", "kind: Secret", "apiVersion: v2", "clusters: 1", "contexts: {}", "null"] {
        assert!(
            matches!(accept(text.as_bytes()), Err(Refusal::NotAKubeconfig | Refusal::Missing(_))),
            "{text}"
        );
    }
}

#[test]
fn a_server_is_a_name_or_an_address() {
    for server in ["https://a", "https://a.example.:443", "https://10.0.0.1/path", "https://[::1]:6443"] {
        taken(&at(server), "token: abc");
    }
    // In double quotes YAML has escapes.
    for server in ["https://a\\0b", "https://a\\nb", "https://a\\u00e4", "https://a\\tb"] {
        let cluster = format!("server: \"{server}\", certificate-authority-data: {}", ca());
        assert_eq!(refusal(&cluster, "token: abc"), Refusal::Server, "{server}");
    }
}

#[test]
fn which_context_counts_is_said_or_there_is_one() {
    let two = with(&cluster(), "token: abc")
        .replace("contexts: [", "contexts: [{name: d, context: {cluster: x, user: y}}, ");
    assert!(accept(two.as_bytes()).is_ok());
    for (from, to, refusal) in [
        ("current-context: c", "current-context: ''", "current context"),
        ("current-context: c\n", "", "current context"),
        ("current-context: c", "current-context: e", "current context"),
        ("current-context: c", "current-context: d", "cluster of its current context"),
        ("user: u, namespace", "user: v, namespace", "user of its current context"),
    ] {
        let text = two.replace(from, to);
        assert!(matches!(accept(text.as_bytes()), Err(Refusal::Missing(what)) if what == refusal), "{text}");
    }
}

#[test]
fn yaml_that_grows_when_it_is_read_is_refused() {
    let mut bomb = String::from("apiVersion: v1\nextensions:\n- &a0 [x, x, x, x, x, x, x, x, x]\n");
    for i in 1..40 {
        let of = format!("*a{}, ", i - 1).repeat(9);
        bomb = format!("{bomb}- &a{i} [{of}]\n");
    }
    let nested = format!("extensions: {}", "[".repeat(100_000));
    let unused = bomb.replace("extensions:", "clusters:");
    for text in [bomb, nested, unused] {
        assert!(matches!(accept(text.as_bytes()), Err(Refusal::Unreadable)), "{}", &text[..80]);
    }
}

#[test]
fn yaml_is_read_as_kubectl_reads_it() {
    let good = with(&cluster(), "token: abc");
    let token = |text: &str| {
        let token = accept(text.as_bytes()).unwrap().credentials.token;
        token.unwrap().expose_secret().to_owned()
    };
    assert_eq!(token(&good.replace('\n', "\r\n")), "abc");
    assert_eq!(token(&format!("\u{feff}{good}")), "abc");
    let marked = format!("\u{feff}{good}");
    for bytes in [u16::to_le_bytes, u16::to_be_bytes] {
        let utf16: Vec<_> = marked.encode_utf16().flat_map(bytes).collect();
        assert!(accept(&utf16).is_ok());
        assert!(matches!(accept(&utf16[..utf16.len() - 1]), Err(Refusal::Unreadable)), "half a character");
    }
    assert_eq!(token(&format!("---\n# of a tool\n{good}...\n")), "abc");
    assert_eq!(token(&format!("{good}---\n# nothing more\n")), "abc");
    assert_eq!(token(&with(&cluster(), "token: def, token: abc")), "abc", "the last counts");
    assert_eq!(token(&with(&cluster(), "<<: {token: def}, token: abc")), "abc");
    assert_eq!(token(&with(&cluster(), "token: abc, <<: {token: def}")), "abc");
    assert_eq!(token(&with(&cluster(), "<<: {token: abc}")), "abc");
    assert_eq!(token(&good.replace("preferences: {}", "x: &u u").replace("user: u, ", "user: *u, ")), "abc");
    let two = format!("{good}---\n{good}");
    assert!(matches!(accept(two.as_bytes()), Err(Refusal::Documents)));
    for (from, part) in
        [("contexts: [", Part::Context), ("clusters: [", Part::Cluster), ("users: [", Part::User)]
    {
        let twice =
            good.replace(from, &format!("{from}{{name: {}}}, ", if part == Part::User { "u" } else { "c" }));
        assert!(matches!(accept(twice.as_bytes()), Err(Refusal::Twice(of)) if of == part), "{twice}");
    }
}

#[test]
fn the_corpus_of_the_fuzzer_is_judged_as_its_names_say() {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/kubeconfig");
    let mut judged = [0, 0];
    for file in std::fs::read_dir(corpus).unwrap() {
        let path = file.unwrap().path();
        let good = path.file_name().unwrap().to_str().unwrap().starts_with("good-");
        assert_eq!(accept(&std::fs::read(&path).unwrap()).is_ok(), good, "{}", path.display());
        judged[usize::from(good)] += 1;
    }
    assert!(judged[0] > 10 && judged[1] > 2, "{judged:?}");
}
