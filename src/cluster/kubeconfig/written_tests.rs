use jiff::Timestamp;

use super::tests::{MADE, cluster, encoded, pair, taken, with};
use super::written::is_named;
use super::*;
use crate::api::issued;

#[test]
fn what_is_handed_out_is_what_was_read_and_nothing_beside() {
    let ends = Timestamp::from_second(1_800_000_000).unwrap();
    let bag = "Bag Attributes\n    friendlyName: hunter2\nsubject=CN = hunter2\n# hunter2\n";
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let beside = format!("{bag}{}{}\r\n{broken}{}", MADE.key_pem, MADE.ca, MADE.certificate);
    for (input, output) in [
        ("https://a", "https://a"),
        ("https://a/", "https://a"),
        ("https://A.example:6443/", "https://A.example:6443"),
        ("HTTPS://a", "https://a"),
        ("https://[::1]:6443", "https://[::1]:6443"),
        ("https://a/k8s/clusters/c-abc", "https://a/k8s/clusters/c-abc"),
        ("https://a/k8s/clusters/c-abc/", "https://a/k8s/clusters/c-abc"),
    ] {
        let cluster = format!("server: '{input}', certificate-authority-data: {}", encoded(&beside));
        let access = taken(&cluster, &format!("token: hunter2, {}", pair(&MADE.certificate, &MADE.key_pem)));
        let out = access.kubeconfig("c-1", &"a.b.c".to_owned().into(), ends).unwrap();
        let text = out.expose_secret();
        let authority = text.lines().find_map(|line| line.strip_prefix("    certificate-authority-data: "));
        let pem = String::from_utf8(STANDARD.decode(authority.unwrap()).unwrap()).unwrap();
        let plain = |pem: &str| pem.replace('\r', "");
        assert_eq!(pem, plain(&MADE.ca) + &plain(&MADE.certificate));
        assert_eq!(
            text,
            format!(
                "# This kubeconfig stops working at 2027-01-15T08:00:00Z.\napiVersion: v1\nkind: Config\nclusters:\n\
                 - name: c-1\n  cluster:\n    server: {output}\n    certificate-authority-data: {}\nusers:\n\
                 - name: c-1\n  user:\n    token: a.b.c\ncontexts:\n- name: c-1\n  context:\n    cluster: c-1\n    \
                 user: c-1\ncurrent-context: c-1\n",
                authority.unwrap()
            )
        );
    }
}

proptest::proptest! {
    #[test]
    fn ours_reads_back_for_any_name(name in proptest::prop_oneof![".{1,40}", "[-+0-9._xXoObBeEnfaINyY:~]{1,12}"]) {
        let access = accept(with(&cluster(), "token: abc").as_bytes()).unwrap();
        let out = access.kubeconfig(&name, &"a.b.c".to_owned().into(), Timestamp::UNIX_EPOCH).unwrap();
        proptest::prop_assert!(is_named(&read(out.expose_secret().as_bytes()).unwrap(), &name));
    }
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
        assert!(issued::plain(text).is_none() || words, "{name:?}");
        assert!(name != "c-1234567" || issued::plain(text).is_some(), "its form has changed:\n{text}");
        assert!(
            access.is_in(text, name, &token.into()).unwrap(),
            "a parser says the same as plain words:\n{text}"
        );
    }
    // A name of 1 MB is in it six times.
    let large = access.kubeconfig(&"n".repeat(1_000_000), &"a.b.c".to_owned().into(), ends);
    assert!(matches!(large, Err(Refusal::TooLarge)));
}
