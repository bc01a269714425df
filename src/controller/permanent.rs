//! Failures for good: the one table from which the words of conditions, Events and metrics come.

use crate::api::conditions::Reason;

/// The word for a binding that ends though nobody can or shall revoke it. The object goes with it, so no condition says so.
pub const ABANDONED: &str = "Abandoned";

/// Why a binding will never be what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permanent {
    /// The instance has as many bindings as it may have.
    LimitReached,
    /// The plan is not bindable.
    PlanNotBindable,
    /// The lifetime is not granted here.
    ExpirationRefused,
    /// An object of its name exists and isn't ours.
    ForeignObject,
    /// Its access was taken away in the managed cluster.
    AccessLost,
}

impl Permanent {
    /// All.
    pub const ALL: [Self; 5] = [
        Self::LimitReached,
        Self::PlanNotBindable,
        Self::ExpirationRefused,
        Self::ForeignObject,
        Self::AccessLost,
    ];

    /// The one that a condition's reason stands for, if it is for good.
    #[must_use]
    pub fn of(reason: Reason) -> Option<Self> {
        Self::ALL.into_iter().find(|permanent| permanent.reason() == reason)
    }

    /// The reason of the conditions, whose word Events and metrics have, too.
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            Self::LimitReached => Reason::LimitReached,
            Self::PlanNotBindable => Reason::PlanNotBindable,
            Self::ExpirationRefused => Reason::ExpirationRefused,
            Self::ForeignObject => Reason::ForeignObject,
            Self::AccessLost => Reason::AccessLost,
        }
    }

    /// What whoever asked for the binding can do.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::LimitReached => {
                "delete another binding of this instance or wait until one expires; then delete this one and create it anew"
            }
            Self::PlanNotBindable => {
                "delete this binding; the operator's --bindable-plans says which plans can have one"
            }
            Self::ExpirationRefused => "delete this binding and create one with such a lifetime",
            Self::ForeignObject => {
                "it is left as it is: delete it where nobody needs it, or take another name; then delete this binding and \
                 create another"
            }
            Self::AccessLost => "delete this binding and create another",
        }
    }

    /// What failed, and what to do about it.
    #[must_use]
    pub fn message(self, what: &str) -> String {
        format!("{what}: {}", self.remedy())
    }
}

/// The words that metrics have for failures for good.
#[must_use]
pub fn words() -> Vec<&'static str> {
    Permanent::ALL.iter().map(|permanent| permanent.reason().as_str()).chain([ABANDONED]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_called_as_its_condition_is() {
        for permanent in Permanent::ALL {
            assert_eq!(permanent.reason().as_str(), format!("{permanent:?}"));
            assert_eq!(Permanent::of(permanent.reason()), Some(permanent));
        }
        assert_eq!(Permanent::of(Reason::ClusterTimedOut), None);
        assert_eq!(words().last(), Some(&"Abandoned"));
    }

    #[test]
    fn each_says_what_to_do() {
        for permanent in Permanent::ALL {
            let message = permanent.message("it failed");
            assert!(message.starts_with("it failed: ") && message.contains("delete"), "{message}");
        }
    }
}
