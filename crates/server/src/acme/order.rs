//! An order at the authority, from the account to the certificate.

use std::pin::Pin;
use std::time::Duration;

use axum::body::Bytes;
use http::Request;
use http_body_util::{BodyExt, Limited};
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, BodyWrapper, BytesResponse, ChallengeType,
    Error, HttpClient, Identifier, NewAccount, NewOrder, Order, OrderStatus, RetryPolicy,
};
use serde::{Deserialize, Serialize};

use super::Challenges;
use super::cache::Cache;
use crate::client::causes;
use crate::config;

/// Longest wait for one answer of the authority.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest answer that is read, in bytes. Stops an authority that is none from filling the memory.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// How long the authority may take to check, and then to sign.
const PATIENCE: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(250))
    .timeout(Duration::from_mins(2));
/// What an authority says that has forgotten the account (RFC 8555 section 6.7).
const NO_ACCOUNT: &str = "accountDoesNotExist";

/// An account as it is kept: it is good for one authority only.
#[derive(Serialize, Deserialize)]
struct Kept {
    directory: String,
    credentials: AccountCredentials,
}

/// Gets a certificate for the domains: its chain and its key in PEM.
///
/// # Errors
/// What went wrong, for people.
pub(super) async fn certificate(
    settings: &config::Acme,
    cache: &Cache,
    challenges: &Challenges,
) -> Result<String, String> {
    let account = account(settings, cache).await?;
    let domains: Vec<_> = settings
        .domains
        .iter()
        .cloned()
        .map(Identifier::Dns)
        .collect();
    let ordered = account.new_order(&NewOrder::new(&domains)).await;
    let mut order = ordered.map_err(|error| {
        if matches!(&error, Error::Api(problem) if problem.r#type.as_ref().is_some_and(|kind| kind.ends_with(NO_ACCOUNT))) {
            cache.forget_account();
        }
        format!("the order was refused: {}", causes(&error))
    })?;
    prove(&mut order, challenges).await?;
    let key = order.finalize().await.map_err(|error| causes(&error))?;
    let chain = order.poll_certificate(&PATIENCE).await;
    let chain = chain.map_err(|error| format!("no certificate was issued: {}", causes(&error)))?;
    Ok(format!("{chain}\n{key}"))
}

/// The account that is kept, or a new one.
async fn account(settings: &config::Acme, cache: &Cache) -> Result<Account, String> {
    let failed = |error: Error| format!("{}: {}", settings.directory, causes(&error));
    let builder = Account::builder_with_http(Box::new(Client::new(settings)?));
    let kept = cache
        .account()
        .and_then(|json| serde_json::from_str::<Kept>(&json).ok());
    if let Some(kept) = kept.filter(|kept| kept.directory == settings.directory) {
        return builder
            .from_credentials(kept.credentials)
            .await
            .map_err(failed);
    }
    let contact: Vec<_> = settings.contact.iter().map(String::as_str).collect();
    let new = NewAccount {
        contact: &contact,
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let created = builder.create(&new, settings.directory.clone(), None).await;
    let (account, credentials) = created.map_err(failed)?;
    let kept = Kept {
        directory: settings.directory.clone(),
        credentials,
    };
    let json = serde_json::to_string(&kept).map_err(|error| error.to_string())?;
    cache
        .keep_account(&json)
        .map_err(|error| format!("tls.acme.cache: {error}"))?;
    Ok(account)
}

/// Shows that the domains lead here.
async fn prove(order: &mut Order, challenges: &Challenges) -> Result<(), String> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.map_err(|error| causes(&error))?;
        if authorization.status != AuthorizationStatus::Pending {
            continue;
        }
        let mut challenge = authorization
            .challenge(ChallengeType::Http01)
            .ok_or("the authority offers no check by HTTP (http-01)")?;
        let answer = challenge.key_authorization().as_str().to_owned();
        challenges.0.lock().insert(challenge.token.clone(), answer);
        challenge
            .set_ready()
            .await
            .map_err(|error| causes(&error))?;
    }
    match order.poll_ready(&PATIENCE).await {
        Ok(OrderStatus::Ready) => Ok(()),
        Ok(_) | Err(Error::Api(_)) => Err(why_not(order).await),
        Err(error) => Err(format!("the domains were not checked: {}", causes(&error))),
    }
}

/// What the authority says of the domains that it could not check.
async fn why_not(order: &mut Order) -> String {
    let mut reasons = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else {
            continue;
        };
        let name = state.identifier().to_string();
        let errors = state
            .challenges
            .iter()
            .filter_map(|challenge| challenge.error.as_ref());
        reasons.extend(errors.map(|error| format!("{name}: {error}")));
    }
    format!(
        "the authority did not find this hub at port 80 of the domains (tls.redirect): {}",
        reasons.join("; ")
    )
}

/// How the authority is reached.
struct Client(reqwest::Client);

impl Client {
    fn new(settings: &config::Acme) -> Result<Self, String> {
        let mut builder = reqwest::Client::builder()
            .timeout(ANSWER_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none());
        if let Some(path) = &settings.ca {
            let failed =
                |error: &dyn std::error::Error| format!("tls.acme.ca: {path}: {}", causes(error));
            let pem = std::fs::read(path).map_err(|error| failed(&error))?;
            let roots =
                reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| failed(&error))?;
            builder = builder.tls_certs_only(roots);
        }
        builder.build().map(Self).map_err(|error| causes(&error))
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let client = self.0.clone();
        Box::pin(async move {
            let failed = |error: reqwest::Error| Error::Other(Box::new(error));
            let (parts, body) = request.into_parts();
            let Ok(body) = body.collect().await;
            let request = Request::from_parts(parts, body.to_bytes());
            let request = reqwest::Request::try_from(request).map_err(failed)?;
            let response = client.execute(request).await.map_err(failed)?;
            let response = http::Response::<reqwest::Body>::from(response);
            Ok(response
                .map(|body| Limited::new(body, ANSWER_BYTES_MAX))
                .into())
        })
    }
}
