//! A TCP relay in front of an API server, which does to connections what networks do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What happens to connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conduct {
    /// All passes.
    Open,
    /// Each piece of it is held back for so long.
    Slow(Duration),
    /// Connections stay and are taken, and nothing comes out at the other end until it is open again.
    Hole,
    /// What clients send is kept until it is open again; what is under way to them passes.
    Keep,
    /// All connections are reset, those that are there and those that come.
    Refuse,
}

#[derive(Debug, Clone, Copy)]
struct State {
    conduct: Conduct,
    /// Connections of an earlier generation are reset.
    generation: u64,
}

/// A relay on a port of its own; it ends when it is dropped.
pub struct Relay {
    target: String,
    url: String,
    state: watch::Sender<State>,
    kept: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Relay {
    /// Relays to the server at `target`, such as `https://127.0.0.1:6443`.
    ///
    /// # Errors
    /// When `target` is no such URL, or there is no port to be had.
    pub async fn start(target: &str) -> Result<Self> {
        let address = target.trim_start_matches("https://");
        let address: SocketAddr = address.parse().with_context(|| format!("{target} is no address"))?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("https://{}", listener.local_addr()?);
        let (state, watched) = watch::channel(State { conduct: Conduct::Open, generation: 0 });
        let kept = Arc::<AtomicUsize>::default();
        let count = kept.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(carry(stream, address, watched.clone(), count.clone()));
            }
        });
        Ok(Self { target: target.to_owned(), url, state, kept, task })
    }

    /// A kubeconfig (YAML) of the server, made to lead through here: the certificate is good for any
    /// port of this machine.
    #[must_use]
    pub fn through(&self, kubeconfig: &str) -> String {
        kubeconfig.replace(&self.target, &self.url)
    }

    /// From now on connections are treated so.
    pub fn set(&self, conduct: Conduct) {
        self.state.send_modify(|state| state.conduct = conduct);
    }

    /// How many pieces of what clients have sent are kept now.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.kept.load(Ordering::Relaxed)
    }

    /// Resets all connections that there are.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.generation += 1);
    }
}

async fn carry(
    mut client: TcpStream,
    target: SocketAddr,
    mut state: watch::Receiver<State>,
    kept: Arc<AtomicUsize>,
) {
    let generation = state.borrow().generation;
    let open = state.clone();
    let carried = async {
        let mut server = TcpStream::connect(target).await?;
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
        // Either end closes both ways: half-closed connections have no use in HTTP.
        tokio::select! {
            done = pump(from_client, to_server, open.clone(), Some(&kept)) => done,
            done = pump(from_server, to_client, open, None) => done,
        }
    };
    let ended = |s: &State| s.generation != generation || s.conduct == Conduct::Refuse;
    let cut = tokio::select! {
        _ = carried => false,
        _ = state.wait_for(ended) => true,
    };
    if cut {
        // A reset, not an orderly end.
        let _ = client.set_zero_linger();
    }
}

/// `kept` is counted where what passes is a client's.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut state: watch::Receiver<State>,
    kept: Option<&AtomicUsize>,
) -> std::io::Result<()> {
    let mut piece = vec![0; 16 * 1024];
    loop {
        let length = from.read(&mut piece).await?;
        if length == 0 {
            return Ok(());
        }
        let passes = |s: &State| match s.conduct {
            Conduct::Hole => false,
            Conduct::Keep => kept.is_none(),
            Conduct::Open | Conduct::Slow(_) | Conduct::Refuse => true,
        };
        if let Some(kept) = kept {
            kept.fetch_add(1, Ordering::Relaxed);
        }
        let conduct = state.wait_for(passes).await.map_or(Conduct::Open, |s| s.conduct);
        if let Some(kept) = kept {
            kept.fetch_sub(1, Ordering::Relaxed);
        }
        if let Conduct::Slow(late) = conduct {
            tokio::time::sleep(late).await;
        }
        to.write_all(&piece[..length]).await?;
    }
}
