//! Draws requests: most are nearly right, each wrong in a way of its own.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, RngExt as _};

/// A drawn request.
pub struct Shot {
    /// What is sent.
    pub bytes: Vec<u8>,
    pub method: &'static str,
    /// The binding that it is about, if it names one.
    pub binding: Option<String>,
    /// Whether it is HTTP at all; what isn't is answered before any of our code sees it.
    pub is_http: bool,
    /// Whether it is about the API, all of whose answers are JSON.
    pub is_api: bool,
}

const METHODS: [&str; 9] = ["GET", "PUT", "DELETE", "POST", "PATCH", "HEAD", "OPTIONS", "TRACE", "BIND"];
const PREFIXES: [&str; 8] =
    ["/v2", "/oauth/v2", "/oauth/cf-eu10/v2", "/oauth/%2e%2e/v2", "/V2", "", "//v2", "/oauth//v2"];
const VERSIONS: [&str; 6] = ["2.17", "2.14", "2.0", "3.0", "two", ""];
const QUERIES: [&str; 12] = [
    "",
    "service_id=s&plan_id=p",
    "service_id=s&plan_id=p&accepts_incomplete=true",
    "accepts_incomplete=true",
    "accepts_incomplete=maybe",
    "service_id=&plan_id=",
    "service_id=s&service_id=s",
    "%ff=%fe",
    "operation=bind-6f7ce4f2-6a1b-4e7c-9b0a-000000000000",
    "operation=unbind-6f7ce4f2-6a1b-4e7c-9b0a-000000000000",
    "operation=%00",
    "&&==&",
];
const ODD_IDS: [&str; 12] =
    ["UPPER", "a%2Fb", "%ff", "%00", "..", "%2e%2e", "a%20b", "-a", "%E2%82%AC", "a.b.c", "'%3B--", "%7B%7D"];

/// Draws from one seed, about bindings that nobody else draws.
pub struct Draw {
    random: StdRng,
    instances: Vec<String>,
    bindings: Vec<String>,
}

impl Draw {
    pub fn new(random: StdRng, instances: &[String], name: &str) -> Self {
        let bindings = (0..6).map(|number| format!("{name}-{number}")).collect();
        Self { random, instances: instances.to_vec(), bindings }
    }

    fn one_in(&mut self, many: u32) -> bool {
        self.random.random_ratio(1, many)
    }

    fn of(&mut self, among: &[&'static str]) -> &'static str {
        among.choose(&mut self.random).unwrap()
    }

    pub fn shot(&mut self) -> Shot {
        if self.one_in(100) {
            let mut bytes = vec![0; self.random.random_range(1..200)];
            self.random.fill_bytes(&mut bytes);
            bytes.extend(b"\r\n\r\n");
            return Shot { bytes, method: "GET", binding: None, is_http: false, is_api: false };
        }
        let method = if self.one_in(4) { self.of(&METHODS) } else { self.of(&METHODS[..3]) };
        let (path, binding) = self.path();
        let body = self.body(method);
        let is_api = !path.starts_with("/docs");
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.host()).into_bytes();
        for (name, value) in self.headers() {
            head.extend(name.as_bytes());
            head.extend(b": ");
            head.extend(value);
            head.extend(b"\r\n");
        }
        if self.one_in(10) {
            head.extend(b"Transfer-Encoding: chunked\r\n\r\n");
            for chunk in body.chunks(7_000) {
                head.extend(format!("{:x}\r\n", chunk.len()).as_bytes());
                head.extend(chunk);
                head.extend(b"\r\n");
            }
            head.extend(b"0\r\n\r\n");
        } else {
            head.extend(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
            head.extend(body);
        }
        Shot { bytes: head, method, binding, is_http: true, is_api }
    }

    fn host(&mut self) -> &'static str {
        if self.one_in(50) { self.of(&["kyma.example.com", "169.254.169.254", "[::1]"]) } else { "127.0.0.1" }
    }

    fn path(&mut self) -> (String, Option<String>) {
        if self.one_in(30) {
            let odd = ["/", "/v2", "*", "/v2/catalog", "/openapi.json", "/docs/", "/docs/../../etc/passwd"];
            return (self.of(&odd).to_owned(), None);
        }
        let prefix = if self.one_in(6) { self.of(&PREFIXES) } else { self.of(&PREFIXES[..3]) };
        let instance = match self.random.random_range(0..12) {
            0 => self.of(&ODD_IDS).to_owned(),
            1 => "x".repeat(self.random.random_range(60..70)),
            _ => self.instances.choose(&mut self.random).unwrap().clone(),
        };
        let binding = match self.random.random_range(0..12) {
            0 => self.of(&ODD_IDS).to_owned(),
            1 => "y".repeat(self.random.random_range(236..246)),
            _ => self.bindings.choose(&mut self.random).unwrap().clone(),
        };
        let tail = if self.one_in(5) { "/last_operation" } else { "" };
        let query = self.of(&QUERIES);
        let path = format!("{prefix}/service_instances/{instance}/service_bindings/{binding}{tail}?{query}");
        (path, Some(binding))
    }

    fn headers(&mut self) -> Vec<(&'static str, Vec<u8>)> {
        let version = if self.one_in(8) { self.of(&VERSIONS) } else { "2.17" };
        let mut headers = vec![("X-Broker-API-Version", version.as_bytes().to_vec())];
        if self.one_in(4) {
            let length = self.random.random_range(0..300);
            headers.push(("X-Broker-API-Request-Identity", self.bytes(length)));
        }
        if self.one_in(4) {
            let who = format!("cf {}", STANDARD.encode(self.bytes(40)));
            headers.push(("X-Broker-API-Originating-Identity", who.into_bytes()));
        }
        for name in ["Content-Type", "Content-Encoding", "Accept", "Authorization", "traceparent", "X-Other"]
        {
            if self.one_in(8) {
                let length = self.random.random_range(0..60);
                headers.push((name, self.bytes(length)));
            }
        }
        if self.one_in(60) {
            headers.push(("X-Large", self.bytes(40 * 1024)));
        }
        if self.one_in(60) {
            headers.extend((0..120).map(|_| ("X-Many", b"v".to_vec())));
        }
        headers
    }

    /// What the value of a header may consist of (RFC 9110, section 5.5).
    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length)
            .map(|_| match self.random.random_range(0..10) {
                0 => self.random.random_range(0x80..=0xff),
                _ => self.random.random_range(0x21..0x7f),
            })
            .collect()
    }

    fn body(&mut self, method: &str) -> Vec<u8> {
        if method != "PUT" && !self.one_in(20) {
            return Vec::new();
        }
        let seconds =
            self.of(&["600", "700", "0", "null", "599", "1e400", "6e2", "\"600\"", "[]", "-0", "601.0"]);
        let good =
            format!(r#"{{"service_id":"s","plan_id":"p","parameters":{{"expiration_seconds":{seconds}}}}}"#);
        let mut body = match self.random.random_range(0..12) {
            0 => self.bytes(100),
            1 => "[".repeat(self.random.random_range(1..40_000)).into_bytes(),
            2 => "{\"a\":".repeat(self.random.random_range(1..10_000)).into_bytes(),
            3 => vec![b' '; self.random.random_range(60_000..70_000)],
            4 => {
                let other = self.bindings.choose(&mut self.random).unwrap();
                format!(r#"{{"predecessor_binding_id":"{other}"}}"#).into_bytes()
            }
            5 => {
                br#"{"service_id":"s","service_id":"s","plan_id":"p","context":{"email":"\u0000"}}"#.to_vec()
            }
            _ => good.into_bytes(),
        };
        if self.one_in(10) && !body.is_empty() {
            let place = self.random.random_range(0..body.len());
            body[place] = self.random.random();
        }
        body
    }
}
