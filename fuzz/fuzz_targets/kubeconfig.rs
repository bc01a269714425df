//! Any bytes as the kubeconfig of a managed cluster: refused in our own words, or good for a kubeconfig
//! to hand out that reads back, whatever the cluster's name is.

#![no_main]

use jiff::Timestamp;
use kyma_bindings::cluster::kubeconfig::{Refusal, accept};
use kyma_bindings::support::secret::ExposeSecret as _;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let access = match accept(data) {
        Ok(access) => access,
        Err(refusal) => {
            assert!(refusal.to_string().len() < 120, "a refusal has its own words alone");
            return;
        }
    };
    // What begins with the bytes is a name with all that YAML knows in it.
    let name = String::from_utf8_lossy(data);
    match access.kubeconfig(&name, &"aa.bb.cc".to_owned().into(), Timestamp::UNIX_EPOCH) {
        Ok(out) => assert!(accept(out.expose_secret().as_bytes()).is_ok(), "ours is refused"),
        Err(refusal) => assert_eq!(refusal, Refusal::TooLarge),
    }
});
