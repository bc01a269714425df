//! A way into the network of a node.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::thread::JoinHandle;

use anyhow::{Context as _, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::os::fd::AsFd as _;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// Carries connections from a port of this machine's loopback interface to an address in the node's
/// network, until it is dropped.
pub struct Door {
    address: SocketAddr,
    close: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Door {
    /// `network` is a file under `/proc`, `target` an address there.
    pub(crate) fn open(listener: TcpListener, network: &Path, target: SocketAddr) -> Result<Self> {
        let address = listener.local_addr()?;
        let network = File::open(network).context("the node is gone")?;
        listener.set_nonblocking(true)?;
        let (close, closed) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        // A socket stays in the network that it was made in, and a thread may change its own: what
        // listens is outside, what this thread connects is inside.
        let thread = std::thread::Builder::new().name("door".to_owned()).spawn(move || {
            let entered = move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = match (entered, runtime) {
                (Ok(()), Ok(runtime)) => runtime,
                (Err(error), _) => return drop(ready.send(Err(error.into()))),
                (_, Err(error)) => return drop(ready.send(Err(error))),
            };
            let _ = ready.send(Ok(()));
            runtime.block_on(async {
                tokio::select! {
                    () = carry_all(listener, target) => {}
                    _ = closed => {}
                }
            });
        })?;
        is_ready.recv()?.context("cannot enter the network of the node")?;
        Ok(Self { address, close: Some(close), thread: Some(thread) })
    }

    /// Where to connect on this machine.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.close = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn carry_all(listener: TcpListener, target: SocketAddr) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    while let Ok((mut outside, _)) = listener.accept().await {
        tokio::spawn(async move {
            let Ok(mut inside) = TcpStream::connect(target).await else {
                // As a port that nobody listens on.
                let _ = outside.set_zero_linger();
                return;
            };
            let _ = (outside.set_nodelay(true), inside.set_nodelay(true));
            let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
        });
    }
}
