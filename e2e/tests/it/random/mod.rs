//! Nothing that a client sends ends in a 500, a hung request or a half-made object.

mod draw;

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use e2e::stage::SOON;
use futures::future::try_join_all;
use kube::api::ListParams;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::world::{program, stage};
use draw::{Draw, Shot};

/// Clients at once, each with bindings of its own.
const CLIENTS: u64 = 8;
/// How many more file descriptors and tasks are no leak: connections of clients that have just ended.
const SPARE: u64 = 40;
/// Every status that the contract has where nobody asks for credentials.
const STATUSES: [u16; 19] =
    [200, 201, 202, 303, 400, 403, 404, 405, 408, 409, 410, 412, 413, 414, 415, 422, 429, 431, 503];

#[tokio::test]
async fn random_requests_are_answered_within_the_contract() {
    fire("random", 4_000).await;
}

#[tokio::test]
#[ignore = "slow: 100,000 requests"]
async fn a_hundred_thousand_random_requests_are_answered_within_the_contract() {
    fire("random-many", 100_000).await;
}

async fn fire(name: &str, requests: usize) {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let (stage, instance) = stage(name).await;
    let operator = stage.operator(program(), &["--create-timeout", "10s"]).await.unwrap();
    let instances = [instance, "i-nobody".to_owned()];
    let address = operator.url().strip_prefix("http://").unwrap().to_owned();
    let client = async |number: u64, requests: usize| {
        let name = format!("{name}-{number}");
        let draw = Draw::new(StdRng::seed_from_u64(seed.wrapping_add(number)), &instances, &name);
        Client { address: address.clone(), connection: None, draw, answered: BTreeSet::new() }
            .run(requests)
            .await
    };
    let each = requests / usize::try_from(CLIENTS).unwrap();
    // What is there after a tenth of them is what the work needs.
    let first = try_join_all((0..CLIENTS).map(|number| client(number, each / 10))).await.unwrap();
    let before = operator.level().await.unwrap();
    let second = try_join_all((CLIENTS..2 * CLIENTS).map(|number| client(number, each))).await.unwrap();

    operator.level().await.unwrap().check(before, SPARE).unwrap();
    assert!(operator.runs() && !operator.log().contains("panicked"));
    let made: BTreeSet<_> = first.into_iter().chain(second).flatten().collect();
    let bindings = stage.bindings().list(&ListParams::default()).await.unwrap();
    for binding in bindings.items.into_iter().filter_map(|binding| binding.metadata.name) {
        assert!(made.contains(&binding), "no answer accounts for {binding}");
    }
    println!("{requests} requests; {} bindings are there at the end", made.len());
}

struct Client {
    address: String,
    connection: Option<BufReader<TcpStream>>,
    draw: Draw,
    /// Bindings that may be there, by the answers.
    answered: BTreeSet<String>,
}

struct Answer {
    status: u16,
    json: bool,
    last: bool,
}

impl Client {
    async fn run(mut self, requests: usize) -> Result<BTreeSet<String>> {
        for _ in 0..requests {
            let shot = self.draw.shot();
            let text = || String::from_utf8_lossy(&shot.bytes[..shot.bytes.len().min(400)]).into_owned();
            let answer = timeout(3 * SOON, self.send(&shot)).await.with_context(text)?.with_context(text)?;
            let Some(Answer { status, json, last }) = answer else {
                ensure!(!shot.is_http, "no answer: {}", text());
                self.connection = None;
                continue;
            };
            if last {
                self.connection = None;
            }
            if !shot.is_http {
                continue;
            }
            ensure!(STATUSES.contains(&status), "{status} is not in the contract: {}", text());
            ensure!(json || status == 431 || !shot.is_api, "{status} is not JSON: {}", text());
            let Some(binding) = shot.binding else { continue };
            match (shot.method, status) {
                ("PUT", 200..=202 | 503) => drop(self.answered.insert(binding)),
                ("DELETE", 200) => drop(self.answered.remove(&binding)),
                _ => {}
            }
        }
        Ok(self.answered)
    }

    async fn send(&mut self, shot: &Shot) -> Result<Option<Answer>> {
        let mut used = self.connection.is_some();
        loop {
            let connection = match &mut self.connection {
                Some(connection) => connection,
                none => none.insert(BufReader::new(TcpStream::connect(&self.address).await?)),
            };
            // It may be answered and closed before all is sent.
            let _ = connection.get_mut().write_all(&shot.bytes).await;
            let answer = read(connection, shot.method == "HEAD").await?;
            // The server may have closed it after the request before (RFC 9112, section 9.3.1).
            if answer.is_some() || !std::mem::take(&mut used) {
                return Ok(answer);
            }
            self.connection = None;
        }
    }
}

/// Reads one answer; `None` where the connection ends without one.
async fn read(connection: &mut BufReader<TcpStream>, head: bool) -> Result<Option<Answer>> {
    let (mut status, mut length, mut json, mut last) = (None, 0, false, false);
    loop {
        let mut line = String::new();
        match connection.read_line(&mut line).await {
            Ok(0) | Err(_) => return Ok(None),
            Ok(_) => {}
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let Some((name, value)) = line.split_once(": ") else {
            status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
            continue;
        };
        match name {
            "content-length" => length = value.parse()?,
            "content-type" => json = value == "application/json",
            "connection" => last = value == "close",
            _ => {}
        }
    }
    let mut body = vec![0; if head { 0 } else { length }];
    if connection.read_exact(&mut body).await.is_err() {
        return Ok(None);
    }
    if json && !head {
        serde_json::from_slice::<serde_json::Value>(&body).context("the body is not JSON")?;
    }
    Ok(Some(Answer { status: status.context("no status")?, json, last }))
}
