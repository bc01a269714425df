//! `kyma-bindings check`: looks at an installation from where it runs, with the account that it has
//! there, and says in one line each what is right and what is not. It changes nothing.

use crate::diagnostics::kubeconfigs;
use crate::diagnostics::report;
use crate::diagnostics::schema;
use std::collections::BTreeSet;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt as _};
use serde_json::Value;
use tokio::time::Instant;

use crate::api::binding::KymaBinding;
use crate::api::text;
use crate::cli::{CheckArgs, Role};
use crate::diagnostics::rbac::{self, Right};
use crate::diagnostics::report::{Answer, Asked, Kubeconfigs, Leader, Presence, Seen, Served, Version};
pub use crate::diagnostics::report::{Line, Mark};
use crate::instances::runtime;
use crate::kubernetes::error::Trouble;
use crate::kubernetes::lease::{LEASE_NAME, MAX_SHOWN};
use crate::kubernetes::trial;
use crate::support::clock;

/// Group and version of `KymaBinding`s.
const API_VERSION: &str = "bindings.kyma-project.io/v1alpha1";
/// Questions about rights under way at once.
const QUESTIONS: usize = 8;
/// How often something that may be about to change is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// An installation is not as it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{wrong} of {all} checks failed; each line with ✗ says what would be right")]
pub struct CheckError {
    wrong: usize,
    all: usize,
}

/// Looks at everything, for no longer than `args.timeout`.
pub async fn check(client: Client, args: &CheckArgs) -> Vec<Line> {
    let checker = Checker { client, args, until: Instant::now() + args.timeout };
    let role = match args.role {
        Role::All => "all",
        Role::Broker => "broker",
        Role::Controller => "controller",
    };
    let asked = Asked { role, namespace: &args.namespace, instance_namespace: &args.instance_namespace };
    report::lines(&Box::pin(checker.look()).await, asked)
}

/// Whether all is as it must be.
///
/// # Errors
/// When a line says that something isn't.
pub fn judge(lines: &[Line]) -> Result<(), CheckError> {
    let wrong = lines.iter().filter(|line| line.mark == Mark::Wrong).count();
    if wrong == 0 { Ok(()) } else { Err(CheckError { wrong, all: lines.len() }) }
}

struct Checker<'a> {
    client: Client,
    args: &'a CheckArgs,
    until: Instant,
}

impl Checker<'_> {
    async fn look(&self) -> Seen {
        let version = self.version().await;
        let controls = self.args.role != Role::Broker;
        let away = version.as_ref().err().copied();
        if let Some(trouble) = away {
            // Every other question would wait for the same.
            return Seen {
                version,
                crd: Err(trouble),
                rights: vec![],
                namespace: Err(trouble),
                instance_namespace: None,
                instances: None,
                runtimes: None,
                leader: None,
                trial: Err(trouble),
            };
        }
        let only = async |wanted: bool, namespace| {
            if wanted { Some(self.presence(namespace).await) } else { None }
        };
        let (crd, rights, namespace, instance_namespace, instances, runtimes, leader, trial) = futures::join!(
            self.crd(),
            self.rights(),
            self.presence(&self.args.namespace),
            only(controls, &self.args.instance_namespace),
            async { if controls { Some(self.instances().await) } else { None } },
            async { if controls { Some(self.runtimes().await) } else { None } },
            async { if controls { Some(self.leader().await) } else { None } },
            self.trial(),
        );
        Seen { version, crd, rights, namespace, instance_namespace, instances, runtimes, leader, trial }
    }

    async fn version(&self) -> Answer<Version> {
        let info = self.bounded(self.client.apiserver_version()).await?;
        // Some distributions write `30+`.
        let number = |text: &str| text.trim_end_matches('+').parse().ok();
        Ok(Version { number: number(&info.major).zip(number(&info.minor)), text: info.git_version })
    }

    /// By discovery and OpenAPI, which everybody may read; the CRD itself takes a right for the whole
    /// cluster.
    async fn crd(&self) -> Answer<Option<Served>> {
        let Some(resources) = self.resources(API_VERSION).await? else { return Ok(None) };
        if !resources.contains("kymabindings") {
            return Ok(None);
        }
        let status = resources.contains("kymabindings/status");
        // Of a kind that was installed a moment ago, the document comes a moment later.
        let document = loop {
            let path = format!("/openapi/v3/apis/{API_VERSION}");
            let request = http::Request::get(path).body(vec![]).map_err(|_| Trouble::Unreachable)?;
            match self.bounded(self.client.request::<Value>(request)).await {
                Err(Trouble::Refused(404)) => self.pause().await?,
                document => break document?,
            }
        };
        let nothing = Value::Null;
        Ok(Some(Served { status, lacks: schema::lacks(schema::served(&document).unwrap_or(&nothing)) }))
    }

    async fn runtimes(&self) -> Answer<bool> {
        let resources = self.resources(runtime::API_VERSION).await?;
        Ok(resources.is_some_and(|resources| resources.contains("runtimes")))
    }

    /// What is served of a group and version, if anything.
    async fn resources(&self, api_version: &str) -> Answer<Option<BTreeSet<String>>> {
        match self.bounded(self.client.list_api_group_resources(api_version)).await {
            Ok(list) => Ok(Some(list.resources.into_iter().map(|resource| resource.name).collect())),
            Err(Trouble::Refused(404)) => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }

    async fn rights(&self) -> Vec<(Right, Answer<bool>)> {
        let rules = if self.args.role == Role::Broker { rbac::BROKER } else { rbac::CONTROLLER };
        let asked = rbac::rights(rules).into_iter().map(async |right| (right, self.may(right).await));
        stream::iter(asked).buffered(QUESTIONS).collect().await
    }

    async fn may(&self, right: Right) -> Answer<bool> {
        let namespace = right.place.namespace(&self.args.namespace, &self.args.instance_namespace);
        let (resource, subresource) = right.resource.split_once('/').unwrap_or((right.resource, ""));
        let attributes = ResourceAttributes {
            namespace: Some(namespace.to_owned()),
            verb: Some(right.verb.to_owned()),
            group: Some(right.group.to_owned()),
            resource: Some(resource.to_owned()),
            subresource: Some(subresource.to_owned()).filter(|name| !name.is_empty()),
            ..ResourceAttributes::default()
        };
        let spec =
            SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
        let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
        let reviews: Api<SelfSubjectAccessReview> = Api::all(self.client.clone());
        let review = self.bounded(reviews.create(&PostParams::default(), &review)).await?;
        Ok(review.status.is_some_and(|status| status.allowed))
    }

    async fn presence(&self, namespace: &str) -> Answer<Presence> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        match self.bounded(namespaces.get_metadata(namespace)).await {
            Ok(_) => Ok(Presence::There),
            Err(Trouble::Refused(404) | Trouble::NamespaceMissing) => Ok(Presence::Missing),
            Err(Trouble::Refused(403)) => Ok(Presence::Hidden),
            Err(trouble) => Err(trouble),
        }
    }

    async fn instances(&self) -> Answer<Kubeconfigs> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.args.instance_namespace);
        let (mut all, mut token) = (Kubeconfigs::default(), None);
        loop {
            let page = self.bounded(secrets.list(&kubeconfigs::page(token.as_deref()))).await?;
            token = page.metadata.continue_.filter(|token| !token.is_empty());
            kubeconfigs::judge(page.items, &mut all);
            if token.is_none() {
                return Ok(all);
            }
        }
    }

    /// A lease that is old by our clock is looked at for as long as its holder said it would last: clocks
    /// differ, and somebody may be about to take it.
    async fn leader(&self) -> Answer<Leader> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &self.args.namespace);
        let Some(first) = self.bounded(leases.get_opt(LEASE_NAME)).await? else { return Ok(Leader::Never) };
        let (since, version) = (Instant::now(), first.resource_version());
        let Some((holder, lasts)) = held(&first) else { return Ok(Leader::Nobody) };
        let renewed = first.spec.as_ref().and_then(|spec| spec.renew_time.as_ref()).map(|time| time.0);
        let age = renewed.and_then(|renewed| Duration::try_from(clock::now().duration_since(renewed)).ok());
        if age.is_some_and(|age| age <= lasts) {
            return Ok(Leader::Fresh(holder));
        }
        let patience = lasts.min(self.args.timeout / 2);
        while since.elapsed() < patience {
            self.pause().await?;
            let Some(now) = self.bounded(leases.get_opt(LEASE_NAME)).await? else { return Ok(Leader::Never) };
            if now.resource_version() != version {
                return Ok(held(&now).map_or(Leader::Nobody, |(holder, _)| Leader::Fresh(holder)));
            }
        }
        Ok(Leader::Stale(holder))
    }

    /// Creates a binding as a dry run: admission and storage say whether they would take it.
    async fn trial(&self) -> Answer<()> {
        let bindings: Api<KymaBinding> = Api::namespaced(self.client.clone(), &self.args.namespace);
        tokio::time::timeout_at(self.until, trial::create(&bindings)).await.unwrap_or(Err(Trouble::Silent))
    }

    /// A moment, or the end.
    async fn pause(&self) -> Answer<()> {
        tokio::time::timeout_at(self.until, tokio::time::sleep(LOOK)).await.map_err(|_| Trouble::Silent)
    }

    async fn bounded<T>(&self, call: impl Future<Output = kube::Result<T>>) -> Answer<T> {
        match tokio::time::timeout_at(self.until, call).await {
            Ok(answered) => answered.map_err(|error| Trouble::of(&error)),
            Err(_) => Err(Trouble::Silent),
        }
    }
}

/// Who holds a lease, and how long it lasts without a renewal.
fn held(lease: &Lease) -> Option<(String, Duration)> {
    let spec = lease.spec.as_ref()?;
    let holder = spec.holder_identity.clone().filter(|holder| !holder.is_empty())?;
    let seconds = spec.lease_duration_seconds.and_then(|seconds| seconds.try_into().ok()).unwrap_or(0);
    // Whoever may write the Lease may write anything there.
    Some((text::shown(&holder, MAX_SHOWN), Duration::from_secs(seconds)))
}
