//! `tidewire token`: makes tokens and keys for development, and says what one may do, or why it is refused.

use std::io::{Read, Write};

use jiff::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Map, Value, json};

use crate::auth::{Authenticator, Identity, make_api_key, peek, span};
use crate::block_on;
use crate::cli::TokenArgs;
use crate::client::notice;
use crate::config::{Config, Issuer};
use crate::exit::Exit;

/// Runs the command.
pub(crate) fn run(args: &TokenArgs, config: &Config) -> Exit {
    let result = if let Some(token) = &args.explain {
        return explain(token, args, config);
    } else if let Some(name) = &args.new_key {
        new_key(name, args)
    } else {
        mint(args, config)
    };
    match result {
        Ok(text) => {
            print(&text);
            Exit::Ok
        }
        Err(error) => {
            notice(format_args!("error: {error}"));
            Exit::Usage
        }
    }
}

/// A closed standard output is no reason to fail.
fn print(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn now_s() -> u64 {
    Timestamp::now().as_second().max(0).cast_unsigned()
}

fn mint(args: &TokenArgs, config: &Config) -> Result<String, String> {
    let (issuer, secret) = signer(config)?;
    let algorithm = issuer
        .algorithms
        .first()
        .map_or(Ok(Algorithm::HS256), |name| name.parse())
        .map_err(|_| "the issuer's first algorithm is none that a secret signs".to_owned())?;
    let now_s = now_s();
    let mut claims = Map::new();
    if let Some(issuer) = &issuer.issuer {
        claims.insert("iss".to_owned(), issuer.as_str().into());
    }
    if let Some(audience) = issuer.audience.first() {
        claims.insert("aud".to_owned(), audience.as_str().into());
    }
    if let Some(user) = &args.user {
        claims.insert(issuer.user_claim.clone(), user.as_str().into());
    }
    warn_of_roles(args, config);
    if !args.role.is_empty() {
        claims.insert(issuer.roles_claim.clone(), args.role.clone().into());
    }
    let rights = rights(args);
    if !rights.is_empty() {
        claims.insert(issuer.rights_claim.clone(), rights.into());
    }
    claims.insert("iat".to_owned(), now_s.into());
    claims.insert("exp".to_owned(), (now_s + args.valid.as_secs()).into());
    let key = EncodingKey::from_secret(&secret);
    jsonwebtoken::encode(&Header::new(algorithm), &claims, &key).map_err(|error| error.to_string())
}

/// A role that nobody knows gives no rights, and a token with it looks like any other. The hub may know more than this
/// configuration, so the token is made all the same.
fn warn_of_roles(args: &TokenArgs, config: &Config) {
    let known: Vec<_> = config
        .auth
        .roles
        .iter()
        .map(|role| &role.name[..])
        .collect();
    for role in args.role.iter().filter(|role| !known.contains(&&role[..])) {
        let list = match &known[..] {
            [] => "none".to_owned(),
            known => known.join(", "),
        };
        notice(format_args!(
            "warning: the configuration has no role {role:?} (it has: {list}), so it gives no rights"
        ));
    }
}

fn rights(args: &TokenArgs) -> Map<String, Value> {
    let mut rights = Map::new();
    for (name, patterns) in [("subscribe", &args.subscribe), ("publish", &args.publish)] {
        if !patterns.is_empty() {
            rights.insert(name.to_owned(), patterns.clone().into());
        }
    }
    if args.admin {
        rights.insert("admin".to_owned(), true.into());
    }
    rights
}

/// The issuer to sign for, and its secret.
fn signer(config: &Config) -> Result<(&Issuer, Vec<u8>), String> {
    for issuer in &config.auth.issuers {
        if let Some(secret) = &issuer.secret {
            return Ok((issuer, secret.reveal().as_bytes().to_vec()));
        }
        if let Some(path) = &issuer.secret_file {
            let secret = std::fs::read(path).map_err(|error| format!("{path}: {error}"))?;
            return Ok((issuer, secret.trim_ascii().to_vec()));
        }
    }
    let (key, _) = make_api_key().map_err(|_| "the system has no random bytes".to_owned())?;
    let secret = &key[3..];
    Err(format!(
        "no issuer in the configuration has a secret to sign with; for development, put this into a file and name it \
         with --config, here and for the hub:\n\n[[auth.issuers]]\nsecret = \"{secret}\""
    ))
}

fn new_key(name: &str, args: &TokenArgs) -> Result<String, String> {
    let (key, hash) = make_api_key().map_err(|_| "the system has no random bytes".to_owned())?;
    notice(format_args!(
        "the key is shown this once; the hub's configuration gets only its hash:\n\n[[auth.keys]]\nname = {}\nhash = {}\n{}",
        json!(name),
        json!(hash),
        toml::to_string(&rights(args)).unwrap_or_default(),
    ));
    Ok(key)
}

fn explain(token: &str, args: &TokenArgs, config: &Config) -> Exit {
    let mut token = token.to_owned();
    if token == "-" {
        token.clear();
        if let Err(error) = std::io::stdin().read_to_string(&mut token) {
            notice(format_args!("error: can't read standard input: {error}"));
            return Exit::Failure;
        }
    }
    let token = token.trim();
    let authenticator = match Authenticator::new(&config.auth) {
        Ok(authenticator) => authenticator,
        Err(error) => {
            notice(format_args!("error: {error}"));
            return Exit::Usage;
        }
    };
    if let Ok((header, claims)) = peek(token) {
        print(&format!("algorithm      {:?}", header.alg));
        if let Some(kid) = &header.kid {
            print(&format!("key            {}", json!(kid)));
        }
        print(&format!("claims         {}", Value::from(claims)));
    }
    let mut exit = Exit::Ok;
    let judge = async {
        match authenticator.judge(token, now_s()).await {
            Ok(identity) => print(&describe(&identity, &args.topic)),
            Err(problem) => {
                let document = problem.to_json();
                let check = document["check"]
                    .as_str()
                    .unwrap_or(problem.code().as_str());
                print(&format!("refused        {check}: {}", problem.detail()));
                exit = Exit::Failure;
            }
        }
        Exit::Ok
    };
    match block_on(judge) {
        Exit::Ok => exit,
        failed => failed,
    }
}

fn describe(identity: &Identity, topics: &[String]) -> String {
    let rights = &identity.rights;
    let patterns = |patterns: &[tidewire::Pattern]| {
        let texts: Vec<_> = patterns.iter().map(tidewire::Pattern::as_str).collect();
        if texts.is_empty() {
            "nothing".to_owned()
        } else {
            texts.join(", ")
        }
    };
    let yes = |yes| if yes { "yes" } else { "no" };
    let valid = match identity.expires_s {
        Some(at) => format!("for {} more", span(at.saturating_sub(now_s()))),
        None => "without an end".to_owned(),
    };
    let mut lines = vec![
        format!("accepted       {}, {valid}", identity.name),
        format!("may subscribe  {}", patterns(&rights.subscribe)),
        format!("may publish    {}", patterns(&rights.publish)),
        format!("admin          {}", yes(rights.admin)),
    ];
    for topic in topics {
        lines.push(format!(
            "{topic}: subscribe {}, publish {}, private events {}",
            yes(rights.may_read(topic)),
            yes(rights.may_publish(topic)),
            yes(rights.may_read_private(topic))
        ));
    }
    lines.join("\n")
}
