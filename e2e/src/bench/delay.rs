//! A long way to an API server: what is sent arrives a while later, and no less of it at a time.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// Pieces that may be under way on a connection, one way.
const UNDER_WAY: usize = 4096;

/// A relay that delays both ways; it ends when it is dropped.
pub struct DelayLine {
    target: String,
    url: String,
    task: JoinHandle<()>,
}

impl Drop for DelayLine {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl DelayLine {
    /// Relays to the server at `target`, such as `https://127.0.0.1:6443`, `one_way` late each way.
    ///
    /// # Errors
    /// When `target` is no such URL, or there is no port to be had.
    pub async fn start(target: &str, one_way: Duration) -> Result<Self> {
        let address = target.trim_start_matches("https://");
        let address: SocketAddr = address.parse().with_context(|| format!("{target} is no address"))?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("https://{}", listener.local_addr()?);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, address, one_way));
            }
        });
        Ok(Self { target: target.to_owned(), url, task })
    }

    /// A kubeconfig (YAML) of the server, made to lead through here.
    #[must_use]
    pub fn through(&self, kubeconfig: &str) -> String {
        kubeconfig.replace(&self.target, &self.url)
    }
}

async fn carry(client: TcpStream, target: SocketAddr, one_way: Duration) -> std::io::Result<()> {
    let server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    // Either end closes both ways.
    tokio::select! {
        () = line(from_client, to_server, one_way) => {}
        () = line(from_server, to_client, one_way) => {}
    }
    Ok(())
}

/// Reads on while earlier pieces are still on their way.
async fn line(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, one_way: Duration) {
    let (send, mut arrive) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    let read = async move {
        let mut piece = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from.read(&mut piece).await {
            if send.send((Instant::now() + one_way, piece[..length].to_vec())).await.is_err() {
                break;
            }
        }
    };
    let write = async move {
        while let Some((due, piece)) = arrive.recv().await {
            sleep_until(due).await;
            if to.write_all(&piece).await.is_err() {
                break;
            }
        }
    };
    tokio::join!(read, write);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_way_is_late_and_pieces_do_not_wait_for_each_other() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = format!("https://{}", server.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = server.accept().await.unwrap();
            let (mut from, mut to) = stream.split();
            tokio::io::copy(&mut from, &mut to).await.unwrap();
        });
        let late = Duration::from_millis(50);
        let delayed = DelayLine::start(&target, late).await.unwrap();
        let mut client = TcpStream::connect(delayed.url.trim_start_matches("https://")).await.unwrap();
        client.set_nodelay(true).unwrap();
        let began = std::time::Instant::now();
        let (mut from, mut to) = client.split();
        let send = async {
            for _ in 0..100 {
                to.write_all(&[7; 100]).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        let mut all = vec![0; 10_000];
        let ((), received) = tokio::join!(send, from.read_exact(&mut all));
        received.unwrap();
        let took = began.elapsed();
        // One after the other they would take 10 s.
        assert!((late * 2..Duration::from_secs(5)).contains(&took), "{took:?}");
    }
}
