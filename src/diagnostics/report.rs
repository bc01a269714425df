//! What was seen of an installation, and the lines that it comes to. Pure.

use std::fmt;

use crate::diagnostics::rbac::{Place, Right};
use crate::kubernetes::error::Trouble;

/// Oldest control plane that the operator is for, as the chart says, too.
const OLDEST: (u32, u32) = (1, 30);

/// How one question to the control plane went.
pub type Answer<T> = Result<T, Trouble>;

/// Version of the control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// As it says it.
    pub text: String,
    /// Major and minor, where they are numbers.
    pub number: Option<(u32, u32)>,
}

/// The kind as it is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// With its subresource.
    pub status: bool,
    /// What its schema lacks of ours.
    pub lacks: Vec<String>,
}

/// Whether a namespace is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It is.
    There,
    /// It isn't.
    Missing,
    /// The account may not look, and need not.
    Hidden,
}

/// The instances' kubeconfigs, judged as they are before they are used.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Kubeconfigs {
    /// How many are taken.
    pub taken: usize,
    /// The Secrets that are not, each with its instance and why.
    pub refused: Vec<(String, String, String)>,
}

/// Who leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leader {
    /// There is no Lease.
    Never,
    /// It was given up.
    Nobody,
    /// Its holder renews it.
    Fresh(String),
    /// Its holder did not renew it for longer than it said, by our clock and while we looked.
    Stale(String),
}

/// All that was seen. What a role has nothing to do with is `None`.
#[derive(Debug)]
pub struct Seen {
    /// The control plane itself.
    pub version: Answer<Version>,
    /// `KymaBinding`s, if they are served.
    pub crd: Answer<Option<Served>>,
    /// What is needed, and whether it is allowed.
    pub rights: Vec<(Right, Answer<bool>)>,
    /// The bindings' namespace.
    pub namespace: Answer<Presence>,
    /// The instances' namespace.
    pub instance_namespace: Option<Answer<Presence>>,
    /// The kubeconfigs of the instances that are registered.
    pub instances: Option<Answer<Kubeconfigs>>,
    /// Whether Runtimes are served.
    pub runtimes: Option<Answer<bool>>,
    /// The election.
    pub leader: Option<Answer<Leader>>,
    /// A binding created without keeping it.
    pub trial: Answer<()>,
}

/// For whom the lines are.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// `--role`.
    pub role: &'a str,
    /// `--namespace`.
    pub namespace: &'a str,
    /// `--instance-namespace`.
    pub instance_namespace: &'a str,
}

/// What a line means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// As it must be.
    Right,
    /// Must be mended.
    Wrong,
    /// Good to know.
    Note,
}

/// One line for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What it means.
    pub mark: Mark,
    /// What it says; with what would be right where it is wrong.
    pub text: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.mark {
            Mark::Right => '✔',
            Mark::Wrong => '✗',
            Mark::Note => '►',
        };
        write!(f, "{mark} {}", self.text)
    }
}

const APPLY: &str = "kyma-bindings crd | kubectl apply --server-side -f -";

/// The lines. When the control plane can't be asked for its version, nothing else is said.
#[must_use]
pub fn lines(seen: &Seen, asked: Asked) -> Vec<Line> {
    let Asked { namespace, instance_namespace, .. } = asked;
    let mut lines = vec![version(&seen.version)];
    if seen.version.is_err() {
        return lines;
    }
    lines.push(crd(&seen.crd));
    lines.extend(rights(&seen.rights, asked));
    lines.push(presence(namespace, "--namespace", proved(seen)));
    let instances =
        seen.instance_namespace.map(|seen| presence(instance_namespace, "--instance-namespace", seen));
    lines.extend(instances);
    if let Some(seen) = &seen.instances {
        lines.extend(kubeconfigs(seen, instance_namespace));
    }
    lines.extend(seen.runtimes.map(|seen| match seen {
        Ok(true) => right("Runtimes: they are served, and say in what state an instance is"),
        Ok(false) => note("Runtimes: not served here, so an instance is what its kubeconfig Secret says"),
        Err(trouble) => wrong(format!("Runtimes: whether they are served is not known: {trouble}")),
    }));
    lines.extend(seen.leader.as_ref().map(leader));
    lines.push(trial(seen, namespace));
    lines
}

fn kubeconfigs(seen: &Answer<Kubeconfigs>, namespace: &str) -> Vec<Line> {
    let Kubeconfigs { taken, refused } = match seen {
        Ok(seen) => seen,
        Err(trouble) => {
            return vec![wrong(format!("instances: the Secrets in {namespace} can't be listed: {trouble}"))];
        }
    };
    let mut lines: Vec<_> = refused
        .iter()
        .map(|(secret, instance, why)| {
            wrong(format!("instances: Secret {secret} in {namespace}, of instance {instance}: {why}"))
        })
        .collect();
    match (taken, refused.len()) {
        (0, 0) => lines.push(note(format!(
            "instances: they can be read, but no Secret in {namespace} has the label kyma-project.io/instance-id"
        ))),
        (0, _) => {}
        (taken, _) => lines.push(right(format!(
            "instances: {taken} with a kubeconfig that is accepted; whether its cluster answers was not tried"
        ))),
    }
    lines
}

fn version(seen: &Answer<Version>) -> Line {
    match seen {
        Ok(Version { text, number: Some(number) }) if *number < OLDEST => {
            let (major, minor) = OLDEST;
            wrong(format!("control plane: Kubernetes {text} is too old; it must be {major}.{minor} or later"))
        }
        Ok(version) => right(format!("control plane: Kubernetes {}", version.text)),
        Err(Trouble::Silent) => {
            wrong(format!("control plane: {}, or give a longer --timeout", Trouble::Silent))
        }
        Err(trouble) => wrong(format!("control plane: {trouble}")),
    }
}

fn crd(seen: &Answer<Option<Served>>) -> Line {
    match seen {
        Ok(Some(Served { status: true, lacks })) if lacks.is_empty() => {
            right("CRD: KymaBindings are served as v1alpha1, with all that this program knows of them")
        }
        Ok(Some(Served { status: false, .. })) => {
            wrong(format!("CRD: KymaBindings are served without their status; replace it: {APPLY}"))
        }
        Ok(Some(Served { lacks, .. })) => wrong(format!(
            "CRD: it is older than this program, and lacks {}; upgrade it: {APPLY}",
            lacks.join(", ")
        )),
        Ok(None) => wrong(format!("CRD: KymaBindings are not served as v1alpha1; install it: {APPLY}")),
        Err(trouble) => wrong(format!("CRD: what is served is not known: {trouble}")),
    }
}

fn rights(seen: &[(Right, Answer<bool>)], asked: Asked) -> Vec<Line> {
    let mut lines: Vec<_> = seen
        .iter()
        .filter_map(|(right, allowed)| match allowed {
            Ok(true) => None,
            Ok(false) => {
                let namespace = right.place.namespace(asked.namespace, asked.instance_namespace);
                let group = if right.group.is_empty() { String::new() } else { format!(".{}", right.group) };
                let (resource, subresource) = right.resource.split_once('/').unwrap_or((right.resource, ""));
                let slash = if subresource.is_empty() { "" } else { "/" };
                Some(wrong(format!(
                    "rights: this account may not {} {resource}{group}{slash}{subresource} in {namespace}; a Role \
                     there must allow it",
                    right.verb
                )))
            }
            Err(trouble) => Some(wrong(format!("rights: whether '{}' is allowed is not known: {trouble}", right.verb))),
        })
        .collect();
    // Once is enough where nothing was answered.
    lines.dedup();
    if lines.is_empty() {
        lines.push(right(format!(
            "rights: this account has all {} that --role {} needs",
            seen.len(),
            asked.role
        )));
    }
    lines
}

/// An account that may not look at its namespace has learned from the trial whether it is there.
fn proved(seen: &Seen) -> Answer<Presence> {
    match (seen.namespace, &seen.trial) {
        (Ok(Presence::Hidden), Ok(())) => Ok(Presence::There),
        (Ok(Presence::Hidden), Err(Trouble::NamespaceMissing)) => Ok(Presence::Missing),
        (known, _) => known,
    }
}

fn presence(namespace: &str, flag: &str, seen: Answer<Presence>) -> Line {
    match seen {
        Ok(Presence::There) => right(format!("namespace {namespace}: it is there")),
        Ok(Presence::Missing) => wrong(format!(
            "namespace {namespace}: it is not there; create it, or let {flag} name the right one"
        )),
        Ok(Presence::Hidden) => {
            note(format!("namespace {namespace}: this account can't see whether it is there, and need not"))
        }
        Err(trouble) => wrong(format!("namespace {namespace}: whether it is there is not known: {trouble}")),
    }
}

fn leader(seen: &Answer<Leader>) -> Line {
    match seen {
        Ok(Leader::Never) => note("lease: there is none; nobody has led here yet, or without an election"),
        Ok(Leader::Nobody) => {
            note("lease: it was given up, and nobody has taken it since: no controller runs")
        }
        Ok(Leader::Fresh(holder)) => right(format!("lease: {holder} leads, and renews it")),
        Ok(Leader::Stale(holder)) => wrong(format!(
            "lease: {holder} does not renew it, and nobody has taken it: nothing is reconciled. A controller must run; if \
             one does, see what its /readyz and its log say"
        )),
        Err(trouble) => wrong(format!("lease: who leads is not known: {trouble}")),
    }
}

fn trial(seen: &Seen, namespace: &str) -> Line {
    let what = "trial: a KymaBinding that is not kept";
    match seen.trial {
        Ok(()) => right(format!("{what} is accepted in {namespace}")),
        // Both were said in a line of their own.
        Err(Trouble::Refused(404) | Trouble::NamespaceMissing) => {
            note(format!("{what} could not be tried: its kind or its namespace is missing"))
        }
        Err(Trouble::Refused(403)) if !may_create(seen) => {
            note(format!("{what} could not be tried: the right to create it is missing"))
        }
        Err(Trouble::Refused(code)) => wrong(format!(
            "{what} is refused in {namespace} with HTTP {code}; an admission policy, a webhook or a quota must let it pass"
        )),
        Err(trouble) => wrong(format!("{what} could not be tried: {trouble}")),
    }
}

fn may_create(seen: &Seen) -> bool {
    let creates = |right: &Right| {
        right.place == Place::Bindings && right.resource == "kymabindings" && right.verb == "create"
    };
    seen.rights.iter().any(|(right, allowed)| creates(right) && *allowed == Ok(true))
}

fn right(text: impl Into<String>) -> Line {
    Line { mark: Mark::Right, text: text.into() }
}

fn wrong(text: impl Into<String>) -> Line {
    Line { mark: Mark::Wrong, text: text.into() }
}

fn note(text: impl Into<String>) -> Line {
    Line { mark: Mark::Note, text: text.into() }
}

#[cfg(test)]
mod tests;
