//! Routes, each with what it takes to use it. There is no other way to add one to the hub.

use std::collections::HashMap;

use axum::Router;
use axum::extract::MatchedPath;
use axum::handler::Handler;
use axum::routing::{MethodFilter, any, on};
use http::Method;
use http::request::Parts;

/// What it takes to use a route, where anything says who may do what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing: what it tells is everybody's.
    Nothing,
    /// The right `admin`, where `auth.protect_metrics` says so.
    Figures,
    /// The right to subscribe to the topics that the request is about.
    Subscribe,
    /// The right to publish to them.
    Publish,
    /// The right `admin`.
    Admin,
    /// To be somebody: it is about what is theirs.
    User,
}

/// A route of the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// Its method.
    pub method: Method,
    /// Its path, with `{names}`.
    pub path: String,
    /// What it takes.
    pub need: Need,
    /// Whether it answers with a stream.
    pub is_stream: bool,
}

/// Routes that are put together.
pub(crate) struct Routes<S = ()> {
    router: Router<S>,
    declared: Vec<Declared>,
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    pub(crate) fn new() -> Self {
        Self {
            router: Router::new(),
            declared: Vec::new(),
        }
    }

    /// Adds a route that answers at once.
    pub(crate) fn on<H, T>(self, method: Method, path: &str, need: Need, handler: H) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
    {
        self.add(method, path, need, false, handler)
    }

    /// Adds a `GET` that is answered with a stream.
    pub(crate) fn stream<H, T>(self, path: &str, need: Need, handler: H) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
    {
        self.add(Method::GET, path, need, true, handler)
    }

    fn add<H, T>(
        mut self,
        method: Method,
        path: &str,
        need: Need,
        is_stream: bool,
        handler: H,
    ) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
    {
        let filter = MethodFilter::try_from(method.clone()).expect("a usual method");
        self.router = self.router.route(path, on(filter, handler));
        self.declared.push(Declared {
            method,
            path: path.to_owned(),
            need,
            is_stream,
        });
        self
    }

    /// Adds an address that has nothing, and says so in a form of its own.
    pub(crate) fn nothing_at<H, T>(mut self, path: &str, handler: H) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
    {
        self.router = self.router.route(path, any(handler));
        self
    }

    pub(crate) fn fallback<H, T>(mut self, handler: H) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
    {
        self.router = self.router.fallback(handler);
        self
    }

    /// Answers other methods, on the routes that are there so far.
    pub(crate) fn wrong_method<H, T>(mut self, handler: H) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
    {
        self.router = self.router.method_not_allowed_fallback(handler);
        self
    }

    pub(crate) fn with_state(self, state: S) -> Routes {
        Routes {
            router: self.router.with_state(state),
            declared: self.declared,
        }
    }

    pub(crate) fn merge(mut self, other: Self) -> Self {
        self.router = self.router.merge(other.router);
        self.declared.extend(other.declared);
        self
    }

    /// Adds routes below an address.
    pub(crate) fn nest(mut self, address: &str, other: Self) -> Self {
        self.router = self.router.nest(address, other.router);
        let below = other.declared.into_iter().map(|route| Declared {
            path: format!("{}{}", address.trim_end_matches('/'), route.path),
            ..route
        });
        self.declared.extend(below);
        self
    }
}

impl<S: Clone + Send + Sync + 'static> Clone for Routes<S> {
    fn clone(&self) -> Self {
        Self {
            router: self.router.clone(),
            declared: self.declared.clone(),
        }
    }
}

impl Routes {
    pub(crate) fn into_parts(self) -> (Router, Vec<Declared>) {
        (self.router, self.declared)
    }
}

/// What the routes need, by address.
pub(super) struct Needs(HashMap<String, Vec<Declared>>);

impl Needs {
    pub(super) fn new(declared: Vec<Declared>) -> Self {
        let mut by_path: HashMap<_, Vec<_>> = HashMap::new();
        for route in declared {
            by_path.entry(route.path.clone()).or_default().push(route);
        }
        Self(by_path)
    }

    /// The route that a request is for; `None` where nothing is served, or not by this method.
    pub(super) fn of(&self, request: &Parts) -> Option<&Declared> {
        let path = request.extensions.get::<MatchedPath>()?;
        let method = match request.method {
            Method::HEAD => &Method::GET,
            _ => &request.method,
        };
        let routes = self.0.get(path.as_str())?;
        routes.iter().find(|route| route.method == method)
    }
}
