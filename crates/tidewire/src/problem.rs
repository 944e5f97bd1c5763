//! Errors as HTTP answers: RFC 9457 `application/problem+json`, each with a stable code.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};

/// Every kind of error that the native door answers. The name in snake case is the stable `code`.
macro_rules! codes {
    ($($name:ident $code:literal $status:ident $title:literal;)*) => {
        /// What went wrong, for programs: the `code` of a problem.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $(#[doc = $title] $name,)* }

        impl Code {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Stable text for programs.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// The HTTP status that goes with it.
            pub fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)* }
            }

            /// What it means, in general.
            pub fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }
        }
    };
}

codes! {
    BadHead "bad_head" BAD_REQUEST "The request's head can't be read";
    BadQuery "bad_query" BAD_REQUEST "A query parameter can't be read";
    BadJson "bad_json" BAD_REQUEST "The body is no valid JSON";
    BadBody "bad_body" BAD_REQUEST "The body could not be read";
    BadUtf8 "bad_utf8" BAD_REQUEST "The text is no valid UTF-8";
    BadClientId "bad_client_id" BAD_REQUEST "The client's id is not valid";
    MissingCredential "missing_credential" UNAUTHORIZED "Credentials are needed";
    BadCredential "bad_credential" UNAUTHORIZED "The credential does not stand";
    NotAllowed "not_allowed" FORBIDDEN "Not allowed";
    ForeignOrigin "foreign_origin" FORBIDDEN "A page of a foreign site may not use a cookie";
    ForeignHost "foreign_host" FORBIDDEN "An open hub serves requests for this machine only";
    Proxied "proxied" FORBIDDEN "An open hub serves no proxy";
    NotFound "not_found" NOT_FOUND "There is nothing at this address";
    NoSuchConnection "no_such_connection" NOT_FOUND "There is no such connection";
    NotConnected "not_connected" NOT_FOUND "The client is not connected";
    NoSuchNotification "no_such_notification" NOT_FOUND "There is no such notification";
    NoSuchMetric "no_such_metric" NOT_FOUND "There is no such metric";
    WrongMethod "wrong_method" METHOD_NOT_ALLOWED "The method does not fit the address";
    HeadTimeout "head_timeout" REQUEST_TIMEOUT "The request's head took too long";
    BodyTimeout "body_timeout" REQUEST_TIMEOUT "The request's body took too long";
    TopicClosed "topic_closed" CONFLICT "The topic is closed";
    IdTaken "id_taken" CONFLICT "The event's id is in history already";
    KeyInFlight "key_in_flight" CONFLICT "A request with this idempotency key is under way";
    BodyTooLarge "body_too_large" PAYLOAD_TOO_LARGE "The body is too large";
    EventTooLarge "event_too_large" PAYLOAD_TOO_LARGE "The event is too large";
    UriTooLong "uri_too_long" URI_TOO_LONG "The address is too long";
    BadDocument "bad_document" UNPROCESSABLE_ENTITY "The document does not fit";
    TopicMissing "topic_missing" UNPROCESSABLE_ENTITY "The event has no topic";
    BadTopic "bad_topic" UNPROCESSABLE_ENTITY "The topic is not valid";
    TooManyTopics "too_many_topics" UNPROCESSABLE_ENTITY "Too many topics";
    BadEvent "bad_event" UNPROCESSABLE_ENTITY "The event is not valid";
    BadParameter "bad_parameter" UNPROCESSABLE_ENTITY "A parameter has no such value";
    PrivateUnavailable "private_unavailable" UNPROCESSABLE_ENTITY "Private events need authentication";
    TooManyEvents "too_many_events" UNPROCESSABLE_ENTITY "The batch has too many events";
    BadKey "bad_idempotency_key" UNPROCESSABLE_ENTITY "The idempotency key is not usable";
    KeyReused "key_reused" UNPROCESSABLE_ENTITY "The idempotency key belongs to another request";
    TooManyConnections "too_many_connections" TOO_MANY_REQUESTS "Too many connections at a time";
    TooManyRequests "too_many_requests" TOO_MANY_REQUESTS "Too many requests at a time";
    HeadTooLarge "head_too_large" REQUEST_HEADER_FIELDS_TOO_LARGE "The request's head is too large";
    Internal "internal" INTERNAL_SERVER_ERROR "Something went wrong in the hub";
    AtCapacity "at_capacity" SERVICE_UNAVAILABLE "The hub has no room for another connection";
    KeysFull "idempotency_full" SERVICE_UNAVAILABLE "The hub remembers as many idempotency keys as it may";
    BodiesFull "bodies_full" SERVICE_UNAVAILABLE "The hub holds as many bytes of bodies as it may";
    NotStored "not_stored" SERVICE_UNAVAILABLE "The event was not stored";
    OutcomeUnknown "outcome_unknown" SERVICE_UNAVAILABLE "It is unknown whether the event was stored";
    AuthUnavailable "auth_unavailable" SERVICE_UNAVAILABLE "Credentials can't be checked at the moment";
    RegistryUnavailable "registry_unavailable" SERVICE_UNAVAILABLE "Other nodes can't be reached at the moment";
    StoreUnavailable "store_unavailable" SERVICE_UNAVAILABLE "The database can't be used at the moment";
    NotReady "not_ready" SERVICE_UNAVAILABLE "The hub is not ready";
    NodeSilent "node_silent" GATEWAY_TIMEOUT "A node does not answer";
    StorageFull "storage_full" INSUFFICIENT_STORAGE "The hub has no room to store the event";
}

impl Code {
    /// What goes into `WWW-Authenticate` (RFC 6750 section 3).
    pub fn challenge(self) -> Option<&'static str> {
        match self {
            Self::MissingCredential => Some("Bearer"),
            Self::BadCredential => Some("Bearer error=\"invalid_token\""),
            _ => None,
        }
    }
}

/// An error on its way to a client.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    code: Code,
    detail: String,
    members: Map<String, Value>,
    retry_after_s: Option<u32>,
}

impl Problem {
    /// An error with a sentence that says what is wrong here and what to do about it.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            members: Map::new(),
            retry_after_s: None,
        }
    }

    /// Adds a member to the document.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    /// Says when to come back, in seconds.
    #[must_use]
    pub fn retry_after_s(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// Its kind.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The sentence.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// When to come back, in seconds.
    pub fn retry_after(&self) -> Option<u32> {
        self.retry_after_s
    }

    /// The document.
    pub fn to_json(&self) -> Value {
        let mut document = json!({
            "type": format!("urn:tidewire:error:{}", self.code.as_str()),
            "title": self.code.title(),
            "status": self.code.status().as_u16(),
            "code": self.code.as_str(),
            "detail": self.detail,
        });
        if let Value::Object(object) = &mut document {
            object.extend(self.members.clone());
        }
        document
    }
}

/// A value that can't be written as JSON, so that a route can use `?` on [`Event::json`](crate::Event::json).
impl From<serde_json::Error> for Problem {
    fn from(error: serde_json::Error) -> Self {
        Self::new(
            Code::Internal,
            format!("no JSON can be made of it: {error}"),
        )
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = self.to_json().to_string();
        body.push('\n');
        let mut response = Response::new(Body::from(body));
        // For layers that keep an account of what is refused.
        response.extensions_mut().insert(self.clone());
        *response.status_mut() = self.code.status();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(challenge) = self.code.challenge() {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static(challenge),
            );
        }
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}
