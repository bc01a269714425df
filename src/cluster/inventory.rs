//! What a managed cluster holds of a control plane's bindings, found by our marks.

use std::collections::{BTreeMap, BTreeSet};

use http::StatusCode;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta, ObjectMeta};
use kube::api::ListParams;
use kube::core::Request;
use serde::Deserialize;

use super::access::Uids;
use super::manifest::Kind;
use super::ownership::ControlPlane;
use crate::api::names::BindingId;
use crate::cluster::client::Wire;
use crate::cluster::error::{Failure, Misbehaviour};

/// Objects a page: metadata alone, so a page is far below what is read of an answer.
const PAGE: u32 = 200;
/// Most pages of one kind; a cluster that has more to tell is not listened to.
const MAX_PAGES: usize = 50;

/// The objects of one binding in one managed cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marked {
    /// The binding's name, from the objects' names.
    pub binding: BindingId,
    /// The binding's UID, from the marks.
    pub binding_uid: String,
    /// The objects.
    pub uids: Uids,
    /// When the youngest of them was made. What doesn't say so counts as made just now.
    pub youngest: Timestamp,
}

impl Marked {
    /// Whether all three objects are there.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let Uids { service_account, cluster_role, cluster_role_binding } = &self.uids;
        service_account.is_some() && cluster_role.is_some() && cluster_role_binding.is_some()
    }
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    metadata: ListMeta,
    /// Of an empty list, `null`.
    items: Option<Vec<Item>>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(default)]
    metadata: ObjectMeta,
}

/// Lists what carries the marks of `control_plane`, or those of a binding that `lives` by its UID: by label, in pages,
/// metadata only. `namespace` is that of the accounts.
///
/// # Errors
/// When the cluster fails, or has more to tell than anybody can have made.
pub async fn inventory(
    wire: &Wire,
    control_plane: &ControlPlane,
    lives: &BTreeSet<&str>,
    namespace: &str,
) -> Result<Vec<Marked>, Failure> {
    let list = async |kind: Kind| -> Result<Vec<(Kind, ObjectMeta)>, Failure> {
        let found = list(wire, kind, control_plane, namespace).await?;
        Ok(found.into_iter().map(|meta| (kind, meta)).collect())
    };
    let (mut found, roles, bindings) = futures::try_join!(
        list(Kind::ServiceAccount),
        list(Kind::ClusterRole),
        list(Kind::ClusterRoleBinding)
    )?;
    found.extend(roles);
    found.extend(bindings);
    Ok(group(control_plane, lives, found))
}

async fn list(
    wire: &Wire,
    kind: Kind,
    control_plane: &ControlPlane,
    namespace: &str,
) -> Result<Vec<ObjectMeta>, Failure> {
    let request = Request::new(kind.path(namespace));
    let mut params = ListParams::default().labels(&control_plane.selector()).limit(PAGE);
    let mut found = Vec::new();
    for _ in 0..MAX_PAGES {
        let page = request.list_metadata(&params).map_err(|_| Failure::Misbehaves(Misbehaviour::Form))?;
        let answer = wire.call(page).await?;
        if answer.status != StatusCode::OK {
            return Err(answer.failure());
        }
        let Page { metadata, items } = answer.parse()?;
        found.extend(items.into_iter().flatten().map(|item| item.metadata));
        match metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(found),
        }
    }
    Err(Failure::Misbehaves(Misbehaviour::Endless))
}

/// Puts the objects of each binding together. What has not all marks, or a name that we never
/// give, is left out whatever the list says: marks can be copied, and a selector ignored. Pure.
fn group(
    control_plane: &ControlPlane,
    lives: &BTreeSet<&str>,
    objects: Vec<(Kind, ObjectMeta)>,
) -> Vec<Marked> {
    let mut groups: BTreeMap<(BindingId, String), Marked> = BTreeMap::new();
    for (kind, meta) in objects {
        let binding = meta.name.as_deref().and_then(BindingId::of_object);
        let (Some(binding), Some(uid)) = (binding, control_plane.marked(&meta, |uid| lives.contains(uid)))
        else {
            continue;
        };
        let created = meta.creation_timestamp.as_ref().map_or(Timestamp::MAX, |t| t.0);
        let key = (binding.clone(), uid.to_owned());
        let marked = groups.entry(key).or_insert_with(|| Marked {
            binding,
            binding_uid: uid.to_owned(),
            uids: Uids::default(),
            youngest: Timestamp::MIN,
        });
        marked.youngest = marked.youngest.max(created);
        let place = match kind {
            Kind::ServiceAccount => &mut marked.uids.service_account,
            Kind::ClusterRole => &mut marked.uids.cluster_role,
            Kind::ClusterRoleBinding => &mut marked.uids.cluster_role_binding,
        };
        *place = meta.uid;
    }
    groups.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Owner;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn control_plane(id: &str) -> ControlPlane {
        ControlPlane { id: id.into(), former: None, namespace: "kyma-bindings".into() }
    }

    fn object(name: &str, uid: &str, control: &str, created: Option<i64>) -> ObjectMeta {
        let owner = Owner {
            binding: BindingId::parse("any").unwrap(),
            uid: uid.into(),
            control_plane: control_plane(control),
        };
        ObjectMeta {
            name: Some(name.into()),
            uid: Some(format!("{name}/{uid}")),
            labels: Some(owner.labels()),
            creation_timestamp: created.map(|s| Time(Timestamp::from_second(s).unwrap())),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn the_objects_of_a_binding_come_together_and_the_youngest_counts() {
        let found = group(
            &control_plane("cp"),
            &BTreeSet::new(),
            vec![
                (Kind::ServiceAccount, object("kyma-binding-a", "u1", "cp", Some(1))),
                (Kind::ClusterRole, object("kyma-binding-a", "u1", "cp", Some(3))),
                (Kind::ClusterRoleBinding, object("kyma-binding-a", "u1", "cp", Some(2))),
                (Kind::ClusterRole, object("kyma-binding-a", "u2", "cp", None)),
            ],
        );
        assert_eq!(found.len(), 2, "an earlier binding of the name is another one");
        assert!(found[0].is_whole());
        assert_eq!(found[0].youngest, Timestamp::from_second(3).unwrap());
        assert!(!found[1].is_whole());
        assert_eq!(found[1].youngest, Timestamp::MAX, "what has no age is young");
    }

    #[test]
    fn an_empty_list_says_null() {
        let page: Page =
            serde_json::from_str(r#"{"metadata": {"resourceVersion": "1"}, "items": null}"#).unwrap();
        assert!(page.items.is_none());
    }

    #[test]
    fn what_is_not_certainly_ours_is_left_out() {
        let mut unmarked = object("kyma-binding-a", "u", "cp", Some(1));
        unmarked.labels.as_mut().unwrap().remove(crate::api::names::MANAGED_BY);
        for (object, why) in [
            (object("kyma-binding-a", "u", "other", Some(1)), "another control plane's"),
            (object("my-copy", "u", "cp", Some(1)), "not a name that we give"),
            (object("kyma-binding-", "u", "cp", Some(1)), "no binding's name"),
            (unmarked, "not all marks"),
        ] {
            let found = group(&control_plane("cp"), &BTreeSet::new(), vec![(Kind::ClusterRole, object)]);
            assert_eq!(found, [], "{why}");
        }
        let former = || vec![(Kind::ClusterRole, object("kyma-binding-a", "u", "former", Some(1)))];
        let found = group(&control_plane("cp"), &BTreeSet::from(["u"]), former());
        assert_eq!(found[0].binding_uid, "u", "of a binding that lives, whoever marked it");
        assert_eq!(group(&control_plane("cp"), &BTreeSet::from(["v"]), former()), []);
    }
}
