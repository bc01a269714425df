//! What `docs/security.md` says of the tests and of the build.

use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All that is in back quotes and fits.
fn quoted(page: &str, fits: impl Fn(&str) -> bool) -> Vec<String> {
    page.split('`').skip(1).step_by(2).filter(|word| fits(word)).map(str::to_owned).collect()
}

fn is_word(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

#[test]
fn the_tests_that_this_page_names_exist() {
    let page = read("docs/security.md");
    let fits = |word: &str| word.split_once("::").is_some_and(|(file, test)| is_word(file) && is_word(test));
    // The page says what such a name is.
    let named = quoted(&page, |word| fits(word) && word != "file::name");
    for name in &named {
        let (file, test) = name.split_once("::").unwrap();
        // A room of tests is one file, or a folder.
        let room = format!("e2e/tests/it/{file}");
        let folder = root().join(&room).is_dir();
        let source = read(&if folder { format!("{room}/mod.rs") } else { format!("{room}.rs") });
        assert!(source.contains(&format!("fn {test}()")), "{name}");
    }
    let beside = quoted(&page, |word| word.starts_with("src/") && word.contains(".rs"));
    for name in &beside {
        let (file, test) = name.split_once(": ").unwrap_or((name, ""));
        let mut source = read(file);
        // The tests of some modules are in files of their own.
        for more in [file.replace(".rs", "_tests.rs"), file.replace(".rs", "_properties.rs")] {
            source.push_str(&std::fs::read_to_string(root().join(more)).unwrap_or_default());
        }
        assert!(test.is_empty() || source.contains(&format!("fn {test}(")), "{name}");
    }
    println!("{} tests on clusters and {} beside the code are named, and exist", named.len(), beside.len());
    assert!(named.len() > 40 && beside.len() > 10);
}

#[test]
fn one_provider_of_tls_and_no_unsafe_code() {
    // Not the lock file: it has what no feature of ours switches on, too.
    let args =
        ["tree", "--offline", "--locked", "--workspace", "--all-features", "--prefix=none", "--format={p}"];
    let tree = Command::new(env!("CARGO")).args(args).current_dir(root()).output().unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).unwrap();
    let has = |name: &str| tree.lines().any(|line| line.split(' ').next() == Some(name));
    assert!(has("aws-lc-rs"));
    for other in ["ring", "openssl", "openssl-sys", "native-tls", "boring", "rustls-openssl", "mbedtls"] {
        assert!(!has(other), "{other}");
        let banned = read("deny.toml").contains(&format!("{{ crate = \"{other}\" }}"));
        assert!(banned, "deny.toml lets {other} in");
    }
    assert!(read("Cargo.toml").contains("unsafe_code = \"forbid\""));
    for member in ["Cargo.toml", "e2e/Cargo.toml"] {
        assert!(read(member).contains("[lints]\nworkspace = true"), "{member}");
    }
}

#[test]
fn a_vulnerability_is_reported_in_private() {
    let policy = read("SECURITY.md");
    assert!(policy.contains("private vulnerability reporting") && policy.contains("docs/security.md"));
    // An address that nobody reads would be worse than none.
    assert!(!policy.contains('@'));
}
