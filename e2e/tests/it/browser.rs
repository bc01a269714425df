//! Swagger UI in a real browser: Chromium without a window, driven by `WebDriver`.

use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use e2e::stage::{SOON, prove};
use e2e::{ManagedProcess, Operator, WorkDir, eventually};
use thirtyfour::prelude::*;
use thirtyfour::stringmatch::StringMatch;
use thirtyfour::{ChromeCapabilities, ChromiumLikeCapabilities, LoggingPrefsLogLevel};

use crate::world::{program, stage};

/// Starts chromedriver on a port of its own choice, and says where it listens.
async fn driver(dir: &Arc<WorkDir>) -> Result<(ManagedProcess, String)> {
    let mut command = Command::new("chromedriver");
    command.args(["--port=0", "--log-level=WARNING"]);
    let process = ManagedProcess::spawn("chromedriver", &command, dir)?;
    let port = eventually("chromedriver to listen", SOON, async || {
        if let Some(exit) = process.exit() {
            let hint = "this test needs Debian's packages chromium and chromium-driver";
            return Ok(Err(anyhow::anyhow!(
                "chromedriver ended with {exit}; {hint}: {}",
                process.log_tail(3)
            )));
        }
        let log = process.log();
        let port = log.split("started successfully on port ").nth(1).and_then(|rest| rest.split('.').next());
        port.map(|port| Ok(port.to_owned())).ok_or(log)
    })
    .await??;
    Ok((process, format!("http://127.0.0.1:{port}")))
}

async fn browser(driver: &str, dir: &WorkDir) -> Result<WebDriver> {
    let mut chromium = ChromeCapabilities::new();
    let profile = format!("--user-data-dir={}", dir.path().join("profile").display());
    for arg in [
        "--headless=new",
        "--no-proxy-server",
        "--disable-dev-shm-usage",
        "--window-size=1400,3000",
        &profile,
    ] {
        chromium.add_arg(arg)?;
    }
    // Tests run as root in containers, where Chromium's own sandbox can't be; it sees our page alone.
    chromium.add_arg("--no-sandbox")?;
    chromium.set_browser_log_level(LoggingPrefsLogLevel::All)?;
    let http = reqwest::Client::builder().no_proxy().timeout(SOON * 3).build()?;
    Ok(WebDriver::builder(driver, chromium).client(http).await?)
}

/// What a person would do with the page.
async fn visit(page: &WebDriver, operator: &Operator, instance: &str) -> Result<()> {
    page.goto(format!("{}/docs", operator.url())).await?;
    page.query(By::Css("h1.title, h2.title"))
        .with_text(StringMatch::new("Kyma Bindings").partial())
        .first()
        .await?;
    let operations = page.query(By::Css(".opblock")).any().await?;
    ensure!(
        operations.len() == 15,
        "{} operations are listed, not 5 under each of 3 prefixes",
        operations.len()
    );
    save(page, "swagger-ui.png").await?;

    // A login is sent along, though this operator asks for none.
    click(page, "button.authorize").await?;
    page.query(By::Css(".auth-container input[name=username]")).first().await?.send_keys("somebody").await?;
    page.query(By::Css(".auth-container input[name=password]"))
        .first()
        .await?
        .send_keys("a-password")
        .await?;
    click(page, ".auth-container form button.authorize").await?;
    click(page, ".modal-ux .close-modal").await?;

    let bind = ".opblock-put[id$='-bind']";
    click(page, &format!("{bind} .opblock-summary-control")).await?;
    for (name, value) in [("instance_id", instance), ("binding_id", "browser-1")] {
        let input = page.query(By::Css(format!("{bind} tr[data-param-name='{name}'] input"))).first().await?;
        // The example is there; its place is wanted.
        input.send_keys(Key::Control + "a").await?;
        input.send_keys(value).await?;
    }
    let version = page
        .query(By::Css(format!("{bind} tr[data-param-name='X-Broker-API-Version'] input")))
        .first()
        .await?;
    ensure!(version.value().await?.as_deref() == Some("2.17"), "the version is not filled in");
    click(page, &format!("{bind} .execute")).await?;

    let status = format!("{bind} .live-responses-table .response-col_status");
    let status = page.query(By::Css(status)).with_text(StringMatch::new("20").partial()).first().await;
    save(page, "swagger-ui-bound.png").await?;
    ensure!(status?.text().await?.contains("201"), "PUT was not answered with 201");
    let sent = page.query(By::Css(format!("{bind} .curl-command"))).first().await?.text().await?;
    ensure!(sent.to_lowercase().contains("authorization: basic"), "no login was sent: {sent}");
    // The page shortens nothing: what is shown is the kubeconfig that works.
    let shown = page
        .query(By::Css(format!("{bind} .live-responses-table .highlight-code")))
        .first()
        .await?
        .text()
        .await?;
    let shown: serde_json::Value = serde_json::from_str(
        shown[..=shown.rfind('}').context("no JSON")?].trim_start_matches(|c| c != '{'),
    )?;
    prove(shown["credentials"]["kubeconfig"].as_str().context("no kubeconfig is shown")?).await?;
    Ok(())
}

async fn click(page: &WebDriver, what: &str) -> Result<()> {
    page.query(By::Css(what)).and_clickable().first().await?.click().await?;
    Ok(())
}

async fn save(page: &WebDriver, name: &str) -> Result<()> {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    page.screenshot(&path).await?;
    println!("screenshot: {}", path.display());
    Ok(())
}

#[tokio::test]
#[ignore = "slow: needs Debian's chromium and chromium-driver; .ci/run runs it"]
async fn a_binding_is_made_from_the_page_in_chromium() {
    let (stage, instance) = stage("browser").await;
    let operator = stage.operator(program(), &[]).await.unwrap();
    let dir = Arc::new(WorkDir::new("browser").unwrap());
    let (_driver, url) = driver(&dir).await.unwrap();
    let page = browser(&url, &dir).await.unwrap();
    let visited = visit(&page, &operator, &instance).await;
    let complaints = page.browser_log().await;
    // Whatever was seen, the browser must not stay behind.
    page.quit().await.unwrap();
    visited.unwrap();
    // Nothing that the page needs is kept from it by its policy.
    let severe: Vec<_> = complaints.unwrap().into_iter().filter(|said| said.level == "SEVERE").collect();
    assert!(severe.is_empty(), "{severe:?}");
    assert!(stage.bindings().get("browser-1").await.is_ok());
}
