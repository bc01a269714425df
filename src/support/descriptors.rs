//! How many files and connections this process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Most connections of the API's listener at once, however many there could be.
const MAX_CONNECTIONS: u64 = 4096;

/// Raises the number of open files as far as that is allowed, and says how many connections the API's
/// listener may have at once: at most half of them, so that there are others left for the control
/// plane, the managed clusters, and the probes.
pub fn connections() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    share(if raised.is_ok() { maximum } else { current })
}

/// Of how many files; `None` is no limit.
fn share(files: Option<u64>) -> usize {
    let most = files.map_or(MAX_CONNECTIONS, |files| (files / 2).clamp(1, MAX_CONNECTIONS));
    usize::try_from(most).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_files_are_left_for_others() {
        assert_eq!([Some(0), Some(1024), Some(1 << 30), None].map(share), [1, 512, 4096, 4096]);
    }

    #[test]
    fn as_many_files_as_are_allowed() {
        let allowed = getrlimit(Resource::Nofile).maximum;
        assert_eq!(connections(), share(allowed));
        assert_eq!(getrlimit(Resource::Nofile).current, allowed);
    }
}
