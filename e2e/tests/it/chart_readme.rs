//! The page of the chart's values, made from their comments.

use std::{env, fs};

use clap::CommandFactory as _;
use e2e::helm::chart;
use kyma_bindings::cli::Cli;

use crate::chart_golden::UPDATE;

const HEAD: &str = "# kyma-bindings

Hands out short-lived kubeconfigs for managed Kyma clusters: by the Open Service Broker API, and for each KymaBinding.

```sh
helm install kb kyma-bindings --namespace kyma-bindings --create-namespace \\
  --set image.repository=registry.example/kyma-bindings \\
  --set 'auth.methods={basic}' --set auth.basic.existingSecret=broker-users --set tls.existingSecret=broker-tls
```

An image and `auth.methods` must be given, and the namespace of `config.instanceNamespace` must exist. Helm 3 and Helm 4 render the same.

## Values
This table is made from the comments in `values.yaml`.

| key | default | |
| --- | --- | --- |
";

/// One key of `values.yaml`.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    path: String,
    /// None for what only has keys below it.
    default: Option<String>,
    text: String,
}

fn entries(values: &str) -> Vec<Entry> {
    let (mut path, mut comment, mut entries) = (Vec::new(), Vec::new(), Vec::new());
    for line in values.lines() {
        let content = line.trim_start();
        let depth = (line.len() - content.len()) / 2;
        if let Some(words) = content.strip_prefix("# ") {
            comment.push(words);
        } else if let Some((key, default)) = content.split_once(':') {
            path.truncate(depth);
            path.push(key);
            let default = Some(default.trim().to_owned()).filter(|default| !default.is_empty());
            entries.push(Entry { path: path.join("."), default, text: comment.join(" ") });
            comment.clear();
        } else {
            comment.clear();
        }
    }
    entries
}

/// What Markdown would take as its own, outside of code.
fn escaped(text: &str) -> String {
    let parts = text.split('`').enumerate();
    let parts = parts
        .map(|(n, part)| if n % 2 == 1 { part.into() } else { part.replace('<', "\\<").replace('*', "\\*") });
    parts.collect::<Vec<String>>().join("`").replace('|', "\\|")
}

/// The help of the flag that a key of `config` is.
fn flag(path: &str) -> Option<String> {
    let key = path.strip_prefix("config.")?;
    let dash = |c: char| if c.is_uppercase() { format!("-{}", c.to_lowercase()) } else { c.into() };
    let name: String = key.chars().map(dash).collect();
    let command = Cli::command();
    let help = command
        .find_subcommand("run")?
        .get_arguments()
        .find(|flag| flag.get_long() == Some(&name))?
        .get_help()?;
    Some(format!("`--{name}`: {}", help.to_string().replace('\n', " ")))
}

fn page() -> String {
    let values = fs::read_to_string(chart().join("values.yaml")).unwrap();
    let rows = entries(&values).into_iter().filter_map(|Entry { path, default, text }| {
        let text = if text.is_empty() { flag(&path).unwrap_or_default() } else { text };
        let default = match default {
            Some(default) => format!("`{default}`"),
            None if text.is_empty() => return None,
            None => String::new(),
        };
        Some(format!("| `{path}` | {default} | {} |\n", escaped(&text)))
    });
    [HEAD.to_owned()].into_iter().chain(rows).collect()
}

#[test]
fn the_page_of_the_values_is_what_their_comments_say() {
    let file = chart().join("README.md");
    let page = page();
    if env::var_os(UPDATE).is_some() {
        fs::write(&file, &page).unwrap();
    }
    let written = fs::read_to_string(&file).unwrap_or_default();
    let differs = page.lines().zip(written.lines()).find(|(is, was)| is != was);
    assert!(page == written, "{}: {differs:?}; {UPDATE}=1 writes it anew", file.display());
}

#[test]
fn what_a_value_means_is_said_for_it_or_for_what_it_belongs_to() {
    let values = fs::read_to_string(chart().join("values.yaml")).unwrap();
    let entries = entries(&values);
    let said =
        |path: &str| entries.iter().any(|e| e.path == path && !e.text.is_empty()) || flag(path).is_some();
    for Entry { path, .. } in &entries {
        let parents = path.match_indices('.').map(|(at, _)| &path[..at]);
        let mut all = parents.chain([path.as_str()]);
        assert!(all.any(said), "{path} has no comment in values.yaml");
    }
}

#[test]
fn keys_have_the_comment_right_above_them_and_their_path() {
    let values = "# Lost.\n\n# Of a,\n# in two lines.\na:\n  # Of b.\n  b: [1]\n  c: {d: e}\nf: \"\"\n";
    let entry = |path: &str, default: Option<&str>, text: &str| Entry {
        path: path.into(),
        default: default.map(Into::into),
        text: text.into(),
    };
    let expected = [
        entry("a", None, "Of a, in two lines."),
        entry("a.b", Some("[1]"), "Of b."),
        entry("a.c", Some("{d: e}"), ""),
        entry("f", Some("\"\""), ""),
    ];
    assert_eq!(entries(values), expected);
    assert_eq!(escaped("a <b> `<c>*` d* | e"), "a \\<b> `<c>*` d\\* \\| e");
}
