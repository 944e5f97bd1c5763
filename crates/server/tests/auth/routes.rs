//! Every route of the hub, with everyone who may come to it: a route is declared with what it needs, and this goes through
//! all that are declared.

use std::collections::BTreeMap;

use ::http::Method;
use serde_json::{Value, json};
use tidewire_server::{Declared, Need, declared_routes};

use crate::bearer;
use crate::issuer::{Issuer, SECRET, now_s};
use crate::support::{Hub, Stream, http};

const KEY: &str = "tw_the-key-of-somebody-who-may-publish-everything";
/// `sha256:` of it.
const KEY_HASH: &str = "sha256:3470d18d76f6314dd02e45bf664a0981a68d3db93520c1799534a55e4b7b7e54";

/// Topics of all that the samples are about.
const EVERYTHING: [&str; 5] = [
    "**",
    "user:*",
    "notification:*",
    "connection:**",
    "presence:*",
];
const ELSEWHERE: [&str; 1] = ["elsewhere:**"];

/// Who comes.
struct Identity {
    name: &'static str,
    credential: Option<String>,
    /// What they have, of what a route may need.
    has: &'static [Need],
    /// With what every request of theirs is refused.
    refused: Option<u16>,
}

fn identities() -> Vec<Identity> {
    use Need::{Admin, Publish, Subscribe, User};
    let token = |claims: &Value| Some(Issuer::with_secret().token(claims));
    let user = |name, has, rights: Value| Identity {
        name,
        credential: token(&json!({ "sub": "u1", "tidewire": rights })),
        has,
        refused: None,
    };
    let elsewhere = json!({ "subscribe": ELSEWHERE, "publish": ELSEWHERE });
    let other = |name, credential, has, refused| Identity {
        name,
        credential,
        has,
        refused,
    };
    let over = json!({ "sub": "u1", "exp": now_s() - 3_600, "tidewire": { "admin": true } });
    vec![
        user("powerless", &[User], json!({})),
        user("elsewhere", &[User], elsewhere),
        user(
            "reader",
            &[User, Subscribe],
            json!({ "subscribe": EVERYTHING }),
        ),
        user(
            "publisher",
            &[User, Publish],
            json!({ "publish": EVERYTHING }),
        ),
        user("admin", &[User, Admin], json!({ "admin": true })),
        other("nobody", None, &[], None),
        other("key", Some(KEY.to_owned()), &[Publish], None),
        other("expired", token(&over), &[], Some(401)),
        other("junk", Some("junk".to_owned()), &[], Some(401)),
    ]
}

impl Identity {
    /// Whether they get past what a route needs; where they don't, the status that says so.
    fn may(&self, route: &Declared) -> Result<(), u16> {
        if let Some(status) = self.refused {
            return Err(status);
        }
        let has = |need: Need| self.has.contains(&need);
        let may = match route.need {
            Need::Nothing => true,
            // Who may read no stream gets a list of none.
            Need::Subscribe if route.path.ends_with("/streams") => true,
            Need::Subscribe if route.path == "/api/v1/presence" => {
                has(Need::Subscribe) || has(Need::Admin)
            }
            Need::Publish if route.path.starts_with("/sse/status/") => {
                has(Need::Publish) || has(Need::Admin)
            }
            Need::Figures => has(Need::Admin),
            need => has(need),
        };
        let known = self.credential.is_some();
        // A key is known, and still nobody: to that the answer is to come with a token.
        let asked_to_come_again = !known || (route.need == Need::User && !has(Need::User));
        match may {
            true => Ok(()),
            false if asked_to_come_again => Err(401),
            false => Err(403),
        }
    }
}

/// A request to a route that is good but for who sends it.
fn sample(route: &Declared) -> (String, &'static str) {
    let event = r#"{"stream_id": "a", "type": "t", "message": "m"}"#;
    let path = [
        ("{topic}", "a"),
        ("{stream_id}", "a"),
        ("{client_id}", "c1"),
        ("{user}", "u1"),
        ("{id}", "01a1fe71-d343-75b2-b381-33a24bce1636"),
    ]
    .iter()
    .fold(route.path.clone(), |path, (name, value)| {
        path.replace(name, value)
    });
    let notification = r#"{"recipient_id": "u1", "type": "t", "title": "t"}"#;
    let (query, body) = match (&route.method, path.as_str()) {
        (&Method::POST, "/events") => ("?topic=a", "x"),
        (_, "/events" | "/api/v1/presence") => ("?topic=a", ""),
        (&Method::POST, "/metrics") => ("", r#"{"name": "m"}"#),
        (_, "/metrics/readings") => ("", r#"{"metric_id": "m", "value": 1}"#),
        (&Method::POST, "/api/v1/notifications" | "/api/v1/notifications/") => ("", notification),
        (_, path) if path.ends_with("/broadcast") => ("", event),
        _ => ("", ""),
    };
    assert!(!path.contains('{'), "what to put into {path}?");
    (format!("{path}{query}"), body)
}

#[test]
fn each_route_lets_those_in_who_have_what_it_needs_and_nobody_else() {
    let issuers = format!("[{{secret = '{SECRET}'}}]");
    let publish = EVERYTHING.map(|pattern| format!("'{pattern}'")).join(", ");
    let keys = format!("[{{name = 'ci', hash = '{KEY_HASH}', publish = [{publish}]}}]");
    let hub = Hub::spawn(
        &[],
        &[
            ("TIDEWIRE_AUTH__ISSUERS", &issuers),
            ("TIDEWIRE_AUTH__KEYS", &keys),
            ("TIDEWIRE_AUTH__PROTECT_METRICS", "true"),
            ("TIDEWIRE_SERVICES__EVENTS", "true"),
            ("TIDEWIRE_SERVICES__BROADCAST_DEMO", "true"),
            ("TIDEWIRE_SERVICES__GENERATOR_INTERVAL", "1h"),
        ],
    );
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let routes = runtime.block_on(async { declared_routes() });
    // Fewer, and the list is not the hub's.
    assert!(routes.len() > 40, "{routes:?}");
    for route in &routes {
        let (path, body) = sample(route);
        for identity in identities() {
            let value = identity.credential.as_deref().map(bearer);
            let mut headers: Vec<_> = value
                .iter()
                .map(|v| ("Authorization", v.as_str()))
                .collect();
            if body.starts_with('{') {
                headers.push(("Content-Type", "application/json"));
            }
            let status = if route.is_stream {
                Stream::open(hub.port(), &path, &headers).status()
            } else {
                hub.send(route.method.as_str(), &path, &headers, body.as_bytes())
                    .status
            };
            let case = format!(
                "{} comes to {} {path}: {status}",
                identity.name, route.method
            );
            match identity.may(route) {
                Ok(()) => assert!(![401, 403].contains(&status) && status < 500, "{case}"),
                Err(expected) => assert_eq!(status, expected, "{case}"),
            }
        }
    }
}

/// What is not declared is not there.
#[test]
fn no_address_is_served_beside_those_that_are_declared() {
    let hub = Hub::spawn(&[], &[]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let routes = runtime.block_on(async { declared_routes() });
    let mut tried = 0;
    for route in routes
        .iter()
        .filter(|route| !route.path.contains("broadcast-demo"))
    {
        let (path, _) = sample(route);
        let methods = ["GET", "POST", "PUT", "PATCH", "DELETE"];
        let declared = |method: &&str| {
            let same = |other: &&Declared| other.path == route.path;
            routes
                .iter()
                .filter(same)
                .any(|other| other.method.as_str() == *method)
        };
        for method in methods.iter().filter(|method| !declared(method)) {
            let bytes = http::request_bytes(hub.port(), method, &path, &[], b"");
            let status = hub.exchange(&bytes).status;
            assert!([404, 405].contains(&status), "{method} {path}: {status}");
            tried += 1;
        }
    }
    assert!(tried > 100, "{tried}");
}

/// The aliases of a service, under its first address; and what may have a slash at its end without it.
fn first_address(path: &str) -> String {
    let aliases = [
        ("/api/v1/events-full", "/api/v1/events"),
        ("/events-full", "/api/v1/events"),
        ("/api/v1/events-util", "/api/v1/broadcast-demo"),
        ("/events-util", "/api/v1/broadcast-demo"),
    ];
    let alias = aliases.iter().find_map(|(alias, first)| {
        let rest = path.strip_prefix(alias)?;
        Some(format!("{first}{rest}"))
    });
    let path = alias.unwrap_or_else(|| path.to_owned());
    match path.strip_suffix('/') {
        Some("") | None => path,
        Some(without) => without.to_owned(),
    }
}

#[test]
fn the_page_of_addresses_and_the_program_agree() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/addresses.md");
    let page = std::fs::read_to_string(page).unwrap();
    let rows = page.lines().filter_map(|line| {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let (method, path) = cells
            .get(1)?
            .strip_prefix('`')?
            .strip_suffix('`')?
            .split_once(' ')?;
        Some((
            (method.to_owned(), path.to_owned()),
            (*cells.get(2)?).to_owned(),
        ))
    });
    let written: BTreeMap<_, _> = rows.collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let routes = runtime.block_on(async { declared_routes() });
    let declared = routes.iter().map(|route| {
        let need = match route.need {
            _ if route.path.starts_with("/sse/status/") => "publish, or admin",
            _ if route.path.ends_with("/streams") => {
                "subscribe: what it does not cover is left out"
            }
            Need::Subscribe if route.path == "/api/v1/presence" => "subscribe, or admin",
            Need::Nothing => "nothing",
            Need::Figures => "nothing, or admin",
            Need::Subscribe => "subscribe",
            Need::Publish => "publish",
            Need::Admin => "admin",
            Need::User => "a user",
        };
        (
            (route.method.to_string(), first_address(&route.path)),
            need.to_owned(),
        )
    });
    let declared: BTreeMap<_, _> = declared.collect();
    assert_eq!(written, declared);
}
