//! URLs of a Redis: one server, the master that Sentinels know, or a Cluster.

use std::fmt;

use percent_encoding::percent_decode_str;
use redis::aio::MultiplexedConnection;
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, ProtocolVersion, RedisError,
    RedisResult, TlsMode,
};
use tokio::sync::Mutex;

use super::connection::{Alive, Connection, Pushes};

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// A URL that can't be used, and why. It never shows the URL's password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressError(String);

impl AddressError {
    pub(super) fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for AddressError {}

/// Where connections are made to.
pub(super) enum Address {
    Single(Client),
    /// The client asks the Sentinels anew for each connection, for which it wants to be alone.
    Sentinel(Box<Mutex<SentinelClient>>),
    Cluster(Parts),
}

/// The parts of a URL of several servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parts {
    tls: bool,
    user: Option<String>,
    password: Option<String>,
    hosts: Vec<(String, u16)>,
    name: String,
}

impl Address {
    pub(super) fn parse(url: &str) -> Result<Self, AddressError> {
        let bad = |error: &RedisError| AddressError::new(format!("the URL can't be used: {error}"));
        let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
        match scheme {
            "redis" | "rediss" | "unix" | "redis+unix" => {
                let info = url.into_connection_info().map_err(|error| bad(&error))?;
                let settings = info
                    .redis_settings()
                    .clone()
                    .set_protocol(ProtocolVersion::RESP3);
                let info = info.set_redis_settings(settings);
                Client::open(info)
                    .map(Self::Single)
                    .map_err(|error| bad(&error))
            }
            "redis-sentinel" | "rediss-sentinel" => {
                let parts = Parts::parse(url, SENTINEL_PORT)?;
                if parts.name.is_empty() {
                    return Err(AddressError::new(
                        "a Sentinel URL ends with the master's name: redis-sentinel://host:26379/mymaster",
                    ));
                }
                let client = parts.sentinel().map_err(|error| bad(&error))?;
                Ok(Self::Sentinel(Box::new(Mutex::new(client))))
            }
            "redis-cluster" | "rediss-cluster" => {
                let parts = Parts::parse(url, PORT)?;
                parts.cluster(None).map_err(|error| bad(&error))?;
                Ok(Self::Cluster(parts))
            }
            _ => Err(AddressError::new(
                "a Redis URL begins with redis://, rediss://, unix://, redis-sentinel:// or redis-cluster://",
            )),
        }
    }

    pub(super) fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }

    pub(super) async fn connect(&self, pushes: Option<Pushes>) -> RedisResult<Connection> {
        let alive = Alive::new();
        // Commands have time-outs of their own, as some of them block.
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(None)
            .set_connection_timeout(Some(super::CONNECT_TIMEOUT))
            .set_push_sender(alive.watch(pushes.clone()));
        let plain =
            |connection: MultiplexedConnection| Connection::single(connection, alive.clone());
        match self {
            Self::Single(client) => client
                .get_multiplexed_async_connection_with_config(&config)
                .await
                .map(plain),
            Self::Sentinel(client) => client
                .lock()
                .await
                .get_async_connection_with_config(&config)
                .await
                .map(plain),
            Self::Cluster(parts) => {
                let client = parts.cluster(pushes)?;
                let connection = client.get_async_connection().await?;
                Ok(Connection::cluster(connection, alive))
            }
        }
    }
}

impl Parts {
    fn parse(url: &str, port: u16) -> Result<Self, AddressError> {
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        let (authority, name) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, hosts) = match authority.rsplit_once('@') {
            Some((login, hosts)) => (Some(login), hosts),
            None => (None, authority),
        };
        let text = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
        let (user, password) = match login.map(|login| login.split_once(':').unwrap_or((login, "")))
        {
            Some((user, password)) => (Some(text(user)), Some(text(password))),
            None => (None, None),
        };
        let hosts = hosts
            .split(',')
            .map(|host| host_and_port(host, port))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| {
                AddressError::new(
                    "a URL of several servers is SCHEME://[user:password@]host[:port],host[:port]…",
                )
            })?;
        Ok(Self {
            tls: scheme.starts_with("rediss"),
            user: user.filter(|user| !user.is_empty()),
            password: password.filter(|password| !password.is_empty()),
            hosts,
            name: text(name),
        })
    }

    fn addresses(&self, tls: bool) -> impl Iterator<Item = ConnectionAddr> {
        self.hosts.iter().map(move |(host, port)| {
            if tls {
                ConnectionAddr::TcpTls {
                    host: host.clone(),
                    port: *port,
                    insecure: false,
                    tls_params: None,
                }
            } else {
                ConnectionAddr::Tcp(host.clone(), *port)
            }
        })
    }

    /// The Sentinels themselves are spoken to in plain and without a login, the master as the URL says.
    fn sentinel(&self) -> RedisResult<SentinelClient> {
        let mut builder = SentinelClientBuilder::new(
            self.addresses(false),
            self.name.clone(),
            SentinelServerType::Master,
        )?
        .set_client_to_redis_protocol(ProtocolVersion::RESP3);
        if self.tls {
            builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
        }
        if let Some(user) = &self.user {
            builder = builder.set_client_to_redis_username(user);
        }
        if let Some(password) = &self.password {
            builder = builder.set_client_to_redis_password(password);
        }
        builder.build()
    }

    fn cluster(&self, pushes: Option<Pushes>) -> RedisResult<ClusterClient> {
        let mut builder: ClusterClientBuilder = ClusterClient::builder(self.addresses(self.tls))
            .connection_timeout(super::CONNECT_TIMEOUT)
            // What is unknown must not be repeated by the library.
            .retries(0)
            .use_protocol(ProtocolVersion::RESP3);
        if self.tls {
            builder = builder.tls(TlsMode::Secure);
        }
        if let Some(user) = &self.user {
            builder = builder.username(user.clone());
        }
        if let Some(password) = &self.password {
            builder = builder.password(password.clone());
        }
        if let Some(pushes) = pushes {
            builder = builder.push_sender(move |push| {
                pushes.put(push);
                Ok::<(), redis::aio::SendError>(())
            });
        }
        builder.build()
    }
}

/// `host`, `host:port`, `[::1]` or `[::1]:port`.
fn host_and_port(text: &str, port: u16) -> Option<(String, u16)> {
    let (host, rest) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            (host, rest.strip_prefix(':'))
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = match rest {
        Some(port) => port.parse().ok()?,
        None => port,
    };
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_servers_are_read() {
        let parts = Parts::parse("rediss-sentinel://u:p%40@a:1,b,[::1]:3/my", 9).expect("valid");
        let hosts = [("a", 1), ("b", 9), ("::1", 3)];
        assert_eq!(
            parts,
            Parts {
                tls: true,
                user: Some("u".into()),
                password: Some("p@".into()),
                hosts: hosts.map(|(host, port)| (host.to_owned(), port)).to_vec(),
                name: "my".into(),
            }
        );
        for bad in [
            "redis-cluster://",
            "redis-cluster://a:x",
            "redis-cluster://a,,b",
            "redis-cluster://[::1",
        ] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
        assert!(Address::parse("redis-sentinel://a").is_err(), "no name");
    }

    #[test]
    fn what_is_no_redis_is_refused_without_its_password() {
        for bad in ["http://u:secret@a", "redis://:secret@a:port", "a:6379", ""] {
            let error = Address::parse(bad).err().expect("refused").to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
