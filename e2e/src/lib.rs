//! Real Kubernetes API servers for tests.
//!
//! [`Cluster::start`] runs an etcd and a kube-apiserver of its own on the loopback interface:
//! admission, RBAC, service account tokens and watches are those of Kubernetes. There are no
//! nodes and no controllers. The programs are found or built by [`Binaries`], and everything
//! started here ends with the test process, see [`process`].

mod apiserver;
pub mod bench;
pub mod binaries;
pub mod canary;
pub mod chaos;
pub mod cluster;
pub mod collector;
mod eventually;
pub mod fake;
pub mod foreign;
pub mod helm;
pub mod image;
pub mod installed;
pub mod invariants;
pub mod issuer;
mod kept;
pub mod kube_score;
mod kubeconfig;
pub mod level;
pub mod liar;
pub mod load;
pub mod machine;
pub mod node;
pub mod operator;
pub mod osb;
pub mod pki;
pub mod playground;
pub mod process;
pub mod programs;
pub mod prometheus;
pub mod relay;
pub mod rights;
pub mod stage;
pub mod workdir;

pub use binaries::Binaries;
pub use cluster::{Cluster, ClusterOptions};
pub use eventually::{TimedOut, eventually};
pub use operator::Operator;
pub use osb::Osb;
pub use process::{Exit, ManagedProcess};
pub use relay::{Conduct, Relay};
pub use rights::Rights;
pub use stage::Stage;
pub use workdir::WorkDir;
