use jiff::Timestamp;

use super::written::is_named;
use super::*;
use crate::api::handed_out;

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
fn a_server_is_a_name_or_an_address() {
    for server in ["https://a", "https://a.example.:443", "https://10.0.0.1/path", "https://[::1]:6443"] {
        let cluster = format!("server: '{server}', certificate-authority-data: {}", STANDARD.encode(PEM));
        assert!(accept(with(&cluster, "token: abc").as_bytes()).is_ok(), "{server}");
    }
    // In double quotes YAML has escapes.
    for server in ["https://a\\0b", "https://a\\nb", "https://a\\u00e4", "https://a\\tb"] {
        let cluster = format!("server: \"{server}\", certificate-authority-data: {}", STANDARD.encode(PEM));
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
    let two = format!("{}---\n{}", with(&cluster(), "token: abc"), with(&cluster(), "token: def"));
    let twice = with(&cluster(), "token: abc, token: def");
    for text in [bomb, nested, two, twice] {
        assert!(matches!(accept(text.as_bytes()), Err(Refusal::Unreadable)), "{}", &text[..80]);
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

#[test]
fn ours_reads_back_whatever_the_clusters_name_is() {
    let access = accept(with(&cluster(), "token: abc").as_bytes()).unwrap();
    let ends = Timestamp::from_second(1_800_000_000).unwrap();
    for name in [
        "c-1234567",
        "no",
        "yes",
        "on",
        "null",
        "Null",
        "true",
        "1e3",
        "0x1F",
        "0o7",
        "1_000",
        "12:30:45",
        ".inf",
        ".nan",
        "~",
        "",
        " ",
        " a",
        "a ",
        "a: b",
        "a:",
        "- a",
        "-",
        "--- a",
        "...",
        "? a",
        "! a",
        "!!binary YQ==",
        "&a",
        "*a",
        "<<",
        "=",
        "@a",
        "`a",
        "%YAML 1.1",
        "# c",
        "a # c",
        "'",
        "\"",
        "'a'",
        "\\",
        "\\n",
        "x\ny",
        "x\r\ny",
        "\n",
        "\t",
        "|\n a",
        ">-",
        "{{",
        "}}",
        "{a: b}",
        "[a]",
        "a, b",
        "é",
        "名前",
        "\u{202e}a",
        "\u{feff}a",
        "\u{85}a",
        "\u{2028}a",
        "\u{0}a",
        "\u{7}a",
        "\u{7f}",
        "🦀",
        "2001-01-01",
        "token: abc\nexec: {command: sh}",
        &"n".repeat(10_000),
    ] {
        let token = format!("aaa.{}.ccc", "b".repeat(900));
        let out = access.kubeconfig(name, &token.clone().into(), ends).unwrap();
        let text = out.expose_secret();
        assert!(text.starts_with("# This kubeconfig stops working at 2027-01-15T08:00:00Z.\n"));
        assert!(text.contains(&format!("\n    token: {token}\n")), "{text}");
        assert!(is_named(&read(text.as_bytes()).unwrap(), name), "{name:?}");
        assert!(!is_named(&read(text.as_bytes()).unwrap(), "another"));
        let words = name.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c));
        assert!(handed_out::plain(text).is_none() || words, "{name:?}");
        assert!(name != "c-1234567" || handed_out::plain(text).is_some(), "its form has changed:\n{text}");
        assert!(
            access.is_in(text, name, &token.into()).unwrap(),
            "a parser says the same as plain words:\n{text}"
        );
        let file: File = serde_saphyr::from_str(text).unwrap();
        assert!(file.users[0].entry.exec.is_none());
    }
    // A name of 1 MB is in it six times.
    let large = access.kubeconfig(&"n".repeat(1_000_000), &"a.b.c".to_owned().into(), ends);
    assert!(matches!(large, Err(Refusal::TooLarge)));
}
