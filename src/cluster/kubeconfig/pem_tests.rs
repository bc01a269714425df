use rcgen::KeyPair;

use super::tests::{MADE, ca, cluster, encoded, pair, refusal, taken};
use super::*;

#[test]
fn base64_may_be_broken_into_lines_and_nothing_else() {
    let whole = ca();
    let lines: Vec<_> =
        whole.as_bytes().chunks(76).map(|line| String::from_utf8(line.to_vec()).unwrap()).collect();
    for (between, good) in
        [("\\n", true), ("\\r\\n", true), ("\\r", true), (" ", false), ("\\t", false), ("-", false)]
    {
        let cluster =
            format!("server: 'https://a', certificate-authority-data: \"{}{between}\"", lines.join(between));
        if good {
            taken(&cluster, "token: abc");
        } else {
            assert_eq!(refusal(&cluster, "token: abc"), Refusal::NotBase64(AUTHORITY), "{between}");
        }
    }
    let block =
        |text: &str| format!("\n    client-certificate-data: |\n      {}\n", text.replace('\n', "\n      "));
    let wrapped = lines_of(&encoded(&MADE.certificate));
    let text = format!(
        "current-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: c}}}}]\n\
         clusters: [{{name: c, cluster: {{{}}}}}]\nusers:\n- name: c\n  user:{}    client-key-data: >-\n      {}\n",
        cluster(),
        block(&wrapped),
        encoded(&MADE.key_pem),
    );
    assert!(accept(text.as_bytes()).is_ok(), "{text}");
    assert_eq!(pem::decode(KEY, "QQ==").unwrap().unwrap().as_slice(), b"A");
    assert_eq!(
        pem::decode(KEY, "QR==").unwrap().unwrap().as_slice(),
        b"A",
        "Go doesn't look at these bits either"
    );
    for odd in ["QQ", "QQ=", "Q", "-_-_", "QQ==QQ=="] {
        assert_eq!(pem::decode(KEY, odd), Err(Refusal::NotBase64(KEY)), "{odd}");
    }
}

fn lines_of(text: &str) -> String {
    let lines = text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned());
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn what_is_wrong_with_certificates_and_keys_has_its_own_words() {
    let authority = |pem: &str| {
        refusal(&format!("server: 'https://a', certificate-authority-data: {}", encoded(pem)), "token: abc")
    };
    let block = |label: &str, body: &str| format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n");
    assert_eq!(authority("0\u{3}"), Refusal::NotPem(AUTHORITY, "CERTIFICATE"));
    assert_eq!(authority(&MADE.key_pem), Refusal::NoBlock(AUTHORITY, "CERTIFICATE"));
    assert_eq!(
        authority(MADE.ca.split("-----END").next().unwrap()),
        Refusal::NoBlock(AUTHORITY, "CERTIFICATE")
    );
    assert_eq!(authority(&block("CERTIFICATE", "!!!!")), Refusal::NoBlock(AUTHORITY, "CERTIFICATE"));
    assert_eq!(authority(&block("CERTIFICATE", "AAAA")), Refusal::NotX509(AUTHORITY));
    let user = |certificate: &str, key: &str| refusal(&cluster(), &pair(certificate, key));
    let (certificate, key) = (MADE.certificate.as_str(), MADE.key_pem.as_str());
    let other = KeyPair::generate().unwrap().serialize_pem();
    let encrypted = key
        .replace("BEGIN PRIVATE", "BEGIN ENCRYPTED PRIVATE")
        .replace("END PRIVATE", "END ENCRYPTED PRIVATE");
    let headers = "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA";
    for (certificate, key, expected) in [
        (certificate, other.as_str(), Refusal::OtherKey),
        (certificate, encrypted.as_str(), Refusal::EncryptedKey),
        (certificate, &block("RSA PRIVATE KEY", headers), Refusal::EncryptedKey),
        (certificate, &block("PRIVATE KEY", "AAAA"), Refusal::Key),
        (certificate, certificate, Refusal::NoBlock(KEY, "PRIVATE KEY")),
        (certificate, "a", Refusal::NotPem(KEY, "PRIVATE KEY")),
        (key, key, Refusal::NoBlock(CERTIFICATE, "CERTIFICATE")),
        (&block("CERTIFICATE", "AAAA"), key, Refusal::NotX509(CERTIFICATE)),
        ("a", key, Refusal::NotPem(CERTIFICATE, "CERTIFICATE")),
    ] {
        assert_eq!(user(certificate, key), expected, "{certificate} {key}");
    }
    let one = |field: &str, pem: &str| refusal(&cluster(), &format!("{field}: {}", encoded(pem)));
    assert_eq!(one(CERTIFICATE, certificate), Refusal::Missing(KEY));
    assert_eq!(one(KEY, key), Refusal::Missing(CERTIFICATE));
    assert_eq!(refusal(&cluster(), "token: abc, client-certificate-data: QQ=="), Refusal::Missing(KEY));
    assert_eq!(refusal(&cluster(), "token: abc, client-key-data: Q"), Refusal::NotBase64(KEY));
    // Text beside the blocks, and the other's block in the same file, are as good.
    taken(
        &cluster(),
        &pair(&format!("Certificate:\n  Data:\n{key}{certificate}"), &format!("{certificate}{key}")),
    );
}
