//! What is said to other nodes and of them: answers, and why there is none.

use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::registry::Unavailable;
use super::{CLIENT_ID_BYTES_MAX, NODE_BYTES_MAX};
use crate::connections::ConnectionId;
use crate::problem::{Code, Problem};
use crate::publish::PublishError;

/// Who reads a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Present {
    /// The connection.
    pub connection: ConnectionId,
    /// Whose it is, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// When it was opened, in milliseconds since the Unix epoch.
    pub connected_ms: u64,
    /// The node that holds it.
    pub node: String,
}

/// Who reads a topic, on whichever node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Presence {
    /// How many connections, on all nodes that answered.
    pub count: usize,
    /// They, or the first thousand of each node.
    pub present: Vec<Present>,
    /// Nodes that did not answer.
    pub silent: Vec<String>,
}

impl Presence {
    /// Whether there are more than are listed.
    pub fn is_truncated(&self) -> bool {
        self.present.len() < self.count
    }
}

/// How far an order reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Every node.
    #[default]
    Cluster,
    /// This node.
    Local,
}

/// Why an order to the cluster was not carried out, or nobody knows whether it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterError {
    /// A client's id is not valid.
    BadId(String),
    /// No node holds a connection of this client.
    NotConnected(String),
    /// The node that holds it does not answer.
    Silent(String),
    /// The registry, or the way to other nodes, is not there.
    Unavailable(Unavailable),
    /// The event is not valid.
    Event(PublishError),
}

impl std::fmt::Display for ClusterError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::BadId(id) => {
                let shown: String = id.chars().take(100).collect();
                write!(
                    f,
                    "`{shown}` is no id of a client: it has 1 to {CLIENT_ID_BYTES_MAX} letters, digits and `._~:@-`"
                )
            }
            Self::NotConnected(client) => write!(f, "no client `{client}` is connected"),
            Self::Silent(node) => write!(
                f,
                "node `{node}` holds the connection and does not answer, so it is unknown whether the client was reached"
            ),
            Self::Unavailable(why) => why.fmt(f),
            Self::Event(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ClusterError {}

impl From<Unavailable> for ClusterError {
    fn from(why: Unavailable) -> Self {
        Self::Unavailable(why)
    }
}

impl From<PublishError> for ClusterError {
    fn from(error: PublishError) -> Self {
        Self::Event(error)
    }
}

impl From<ClusterError> for Problem {
    fn from(error: ClusterError) -> Self {
        let detail = error.to_string();
        match error {
            ClusterError::BadId(_) => Self::new(Code::BadClientId, detail),
            ClusterError::NotConnected(_) => Self::new(Code::NotConnected, detail),
            ClusterError::Silent(node) => Self::new(Code::NodeSilent, detail).with("node", node),
            ClusterError::Unavailable(_) => {
                Self::new(Code::RegistryUnavailable, detail).retry_after_s(1 + fastrand::u32(0..4))
            }
            ClusterError::Event(error) => error.into(),
        }
    }
}

/// Why a hub can't become a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterSetupError {
    /// The node's name is not valid.
    BadNode(String),
    /// The hub is a node already.
    IsNode,
}

impl std::fmt::Display for ClusterSetupError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::BadNode(node) => {
                let shown: String = node.chars().take(100).collect();
                write!(
                    f,
                    "`{shown}` is no name of a node: it has 1 to {NODE_BYTES_MAX} letters, digits and `._-`"
                )
            }
            Self::IsNode => f.write_str("the hub is a node of a cluster already"),
        }
    }
}

impl std::error::Error for ClusterSetupError {}

/// What an order to several nodes came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reach {
    /// Connections that it was done to, on all nodes that answered.
    pub connections: usize,
    /// Nodes that did not answer.
    pub silent: Vec<String>,
}

impl IntoResponse for ClusterError {
    fn into_response(self) -> Response {
        Problem::from(self).into_response()
    }
}
