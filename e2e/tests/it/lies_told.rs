//! The table of lies, and what must come out.

use std::io::Write as _;
use std::iter::repeat_n;
use std::sync::{LazyLock, OnceLock};
use std::time::Duration;

use e2e::liar::{Asked, End, Reply, Truth, jwt};
use flate2::Compression;
use flate2::write::GzEncoder;
use http::Method;
use hyper::body::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// What every lie has in it somewhere, and nobody may ever read here.
pub const STRANGER: &str = "zq7x-words-of-a-stranger";

/// URL of the control plane.
pub static CONTROL: OnceLock<String> = OnceLock::new();

/// What is small on the wire and 300 MB when it is unpacked.
static BOMB: LazyLock<Bytes> = LazyLock::new(|| {
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(&vec![b' '; MIB]).unwrap();
    // Members that follow each other are one file (RFC 1952).
    packed.finish().unwrap().repeat(300).into()
});

/// One lie, and what must come out.
pub struct Row {
    pub lie: &'static str,
    /// Of the condition `Ready`.
    pub reason: &'static str,
    /// In the condition's message, and in the answer.
    pub says: &'static str,
    pub tell: fn(&Asked, Truth) -> Reply,
    /// Nothing of ours could be removed while it lies.
    pub about_everything: bool,
}

const MIB: usize = 1024 * 1024;

/// A lie that is told by answers to requests for a token; what comes of it otherwise is true.
macro_rules! token {
    (|$token:ident| $change:expr) => {
        |asked, mut truth| {
            if asked.makes("token") {
                let $token = &mut truth.body["status"];
                $change;
            }
            truth.into()
        }
    };
}

/// A lie that is told whenever something is to be made, but for what makes it be found again.
macro_rules! made {
    (|$asked:pat_param, $truth:pat_param| $reply:expr) => {
        |asked, truth| {
            if asked.method == Method::POST {
                let ($asked, $truth) = (asked, truth);
                $reply
            } else {
                truth.into()
            }
        }
    };
}

#[expect(clippy::too_many_lines, reason = "a table")]
pub fn rows() -> Vec<Row> {
    let row = |lie, reason, says, tell| Row { lie, reason, says, tell, about_everything: false };
    let all = |lie, reason, says, tell| Row { lie, reason, says, tell, about_everything: true };
    let form = "an answer of the wrong form";
    let large = "an answer larger than 1 MiB";
    let jwt_only = "it is not a JSON Web Token";
    vec![
        row("500 with the request's own headers", "ClusterUnavailable", "HTTP 500", made!(|a, _| echo(a))),
        all("500 with the request's own headers, to everything", "ClusterUnavailable", "HTTP 500", |a, _| {
            echo(a)
        }),
        row(
            "a token with a newline",
            "TokenRefused",
            jwt_only,
            token!(|t| append(t, &format!("\n{STRANGER}"))),
        ),
        row(
            "a token that is YAML",
            "TokenRefused",
            jwt_only,
            token!(|t| append(t, &format!("\nexec: {{command: {STRANGER}}}"))),
        ),
        row("a token of 1 MB", "TokenRefused", jwt_only, token!(|t| append(t, &"x".repeat(1_000_000)))),
        row(
            "a token of another account",
            "TokenRefused",
            "it is for another account",
            token!(|t| t["token"] = of(&format!("system:serviceaccount:kyma-system:{STRANGER}")).into()),
        ),
        row(
            "a token of nobody",
            "TokenRefused",
            "it is for another account",
            token!(|t| t["token"] = jwt(&json!({"exp": 1})).into()),
        ),
        row(
            "an expiry that is none",
            "ClusterMisbehaves",
            form,
            token!(|t| t["expirationTimestamp"] = STRANGER.into()),
        ),
        row(
            "an expiry that is no text",
            "ClusterMisbehaves",
            form,
            token!(|t| t["expirationTimestamp"] = json!([STRANGER])),
        ),
        row(
            "an expiry in the past",
            "TokenRefused",
            "it has already ended",
            token!(|t| t["expirationTimestamp"] = "2001-01-01T00:00:00Z".into()),
        ),
        row(
            "an expiry in 2999",
            "TokenRefused",
            "it lives longer than was asked",
            token!(|t| t["expirationTimestamp"] = "2999-01-01T00:00:00Z".into()),
        ),
        row("a token that is an object of another kind", "ClusterMisbehaves", form, |a, mut t| {
            if a.makes("token") {
                t.body["kind"] = STRANGER.into();
            }
            t.into()
        }),
        row(
            "200 with another kind, when made",
            "ClusterMisbehaves",
            "unexpected HTTP status 200",
            made!(|_, _| pod(200)),
        ),
        row(
            "201 with another kind, when made",
            "ObjectAltered",
            "it has another kind or name",
            made!(|_, _| pod(201)),
        ),
        all("200 with another kind, to everything", "ClusterMisbehaves", form, |_, _| pod(200)),
        row("201 with foreign labels", "ObjectAltered", "it lacks labels of ours", |a, mut t| {
            if a.makes("clusterroles") {
                t.body["metadata"]["labels"] = json!({"app.kubernetes.io/managed-by": STRANGER});
            }
            t.into()
        }),
        row("a role binding of another role", "ObjectAltered", "it refers to another role", |a, mut t| {
            if a.makes("clusterrolebindings") {
                t.body["roleRef"]["name"] = STRANGER.into();
            }
            t.into()
        }),
        row("a role binding of somebody else", "ObjectAltered", "its subjects are not", |a, mut t| {
            if a.makes("clusterrolebindings") {
                t.body["subjects"][0]["name"] = STRANGER.into();
            }
            t.into()
        }),
        row("a role binding with a subject more", "ObjectAltered", "its subjects are not", |a, mut t| {
            if a.makes("clusterrolebindings")
                && let Some(subjects) = t.body["subjects"].as_array_mut()
            {
                subjects.push(json!({"kind": "User", "name": STRANGER}));
            }
            t.into()
        }),
        row("a role with other rules", "ObjectAltered", "its rules are not those", |a, mut t| {
            if a.makes("clusterroles") {
                t.body["rules"][0]["resources"] = json!([STRANGER]);
            }
            t.into()
        }),
        row("an account that pods mount", "ObjectAltered", "it would be mounted into pods", |a, mut t| {
            if a.makes("serviceaccounts") {
                t.body["automountServiceAccountToken"] = true.into();
            }
            t.into()
        }),
        row(
            "a token that ends with a Secret",
            "TokenRefused",
            "it is bound to another object",
            |a, mut t| {
                if a.makes("token") {
                    t.body["spec"]["boundObjectRef"] = json!({"kind": "Secret", "name": STRANGER});
                }
                t.into()
            },
        ),
        row("a token for another audience", "TokenRefused", "API server does not accept it", |a, mut t| {
            if a.makes("token") {
                let account = a.path.trim_end_matches("/token").rsplit('/').next().unwrap_or_default();
                let subject = format!("system:serviceaccount:kyma-system:{account}");
                let ends = Timestamp::now() + SignedDuration::from_secs(600);
                let claims = json!({"sub": subject, "exp": ends.as_second(), "aud": [STRANGER]});
                t.body["status"]["token"] = jwt(&claims).into();
            }
            t.into()
        }),
        row("201 with another UID", "Issued", "", |a, mut t| {
            if a.makes("clusterrolebindings") || a.makes("clusterroles") {
                t.body["metadata"]["uid"] = STRANGER.into();
            }
            t.into()
        }),
        all("302 to a metadata address", "ClusterMisbehaves", "unexpected HTTP status 302", |_, _| {
            to("http://169.254.169.254/latest/meta-data/")
        }),
        all("307 to the control plane", "ClusterMisbehaves", "unexpected HTTP status 307", |_, _| {
            let control = CONTROL.get().map_or("", String::as_str);
            Reply { status: 307, ..to(&format!("{control}/api/v1/namespaces/kube-system?{STRANGER}")) }
        }),
        row("an endless body", "ClusterMisbehaves", large, made!(|_, _| endless(Duration::ZERO))),
        row(
            "an endless body, slowly",
            "ClusterTimedOut",
            "did not answer in time",
            made!(|_, _| endless(Duration::from_millis(100))),
        ),
        row(
            "a good body, byte by byte",
            "ClusterTimedOut",
            "did not answer in time",
            made!(|_, t| {
                let bytes = t.body.to_string().into_bytes().into_iter().map(|b| Bytes::from(vec![b]));
                Reply { pause: Duration::from_millis(200), ..Reply::of_pieces(201, bytes) }
            }),
        ),
        row(
            "a body of 300 MB",
            "ClusterMisbehaves",
            large,
            made!(|_, _| {
                let pieces = repeat_n(Bytes::from(vec![b' '; MIB]), 300);
                Reply { length: Some(300 * MIB as u64), ..Reply::of_pieces(201, pieces) }
            }),
        ),
        row(
            "a body of 300 MB that is packed",
            "ClusterMisbehaves",
            form,
            made!(|_, _| Reply::new(201, BOMB.clone()).with("content-encoding", "gzip")),
        ),
        all("401 for ever", "ClusterUnauthorized", "HTTP 401", |_, _| Reply::new(401, STRANGER)),
        row(
            "429 with a day of Retry-After",
            "ClusterRateLimited",
            "HTTP 429",
            made!(|_, _| Reply::new(429, STRANGER).with("retry-after", "86400")),
        ),
        row(
            "409 to all that is made",
            "ClusterMisbehaves",
            "unexpected HTTP status 409",
            made!(|_, _| Reply::new(409, STRANGER)),
        ),
        all("409 to everything", "ClusterMisbehaves", "unexpected HTTP status 409", |_, _| {
            Reply::new(409, STRANGER)
        }),
        row(
            "closed in the middle of a body",
            "ClusterUnreachable",
            "connection lost",
            made!(|_, t| {
                let half = t.body.to_string();
                let length = Some(half.len() as u64);
                let half = half[..half.len() / 2].to_owned();
                Reply { length, end: End::Cut, ..Reply::new(201, half) }
            }),
        ),
        row("a good answer after the deadline", "ClusterTimedOut", "did not answer in time", |a, t| {
            let late = if a.makes("token") { Duration::from_secs(8) } else { Duration::ZERO };
            Reply { late, ..t.into() }
        }),
    ]
}

/// What a careless proxy does: it says what it was sent.
fn echo(asked: &Asked) -> Reply {
    let headers = asked.headers.iter().map(|(name, value)| format!("{name}: {value:?}\n"));
    Reply::new(500, headers.collect::<String>() + STRANGER).with("x-said", STRANGER)
}

fn append(status: &mut Value, more: &str) {
    let token = status["token"].as_str().unwrap_or_default();
    status["token"] = format!("{token}{more}").into();
}

fn of(subject: &str) -> String {
    let ends = Timestamp::now() + SignedDuration::from_secs(600);
    jwt(&json!({"sub": subject, "exp": ends.as_second()}))
}

fn pod(status: u16) -> Reply {
    let metadata = json!({"name": STRANGER, "uid": STRANGER});
    Reply::new(status, json!({"kind": "Pod", "apiVersion": "v1", "metadata": metadata}).to_string())
}

fn to(location: &str) -> Reply {
    Reply::new(302, STRANGER).with("location", location)
}

fn endless(pause: Duration) -> Reply {
    let piece = Bytes::from(STRANGER.repeat(100));
    Reply { pause, ..Reply::of_pieces(201, std::iter::repeat(piece)) }
}
