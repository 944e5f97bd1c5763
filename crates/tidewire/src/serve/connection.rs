//! One accepted connection, from its first byte to its last.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, HOST, HeaderValue};
use http::uri::Authority;
use http::{Request, Version};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::either::Either;
use tower::ServiceExt;

use super::http2::{self, Usage};
use super::io::{Io, Socket, answer};
use super::reactor::Adoption;
use super::signals::{Rarely, Signals};
#[cfg(feature = "tls")]
use super::tls::{self, Opened, Tls};
use super::{Client, Handover, Server};
use crate::live::Live;
use crate::problem::{Code, Problem};

/// What an HTTP/2 client with prior knowledge begins with (RFC 9113 section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long bytes that nobody wants are waited for after the last answer: closing at once would reset the connection, and
/// the client could lose the answer that told it why.
const LINGER: Duration = Duration::from_secs(2);
/// How long the rest of a request is read where it keeps coming. Stops clients that send for ever.
const LINGER_MAX: Duration = Duration::from_secs(30);

/// A connection of which the protocol is known, until it ends.
type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Serves a connection until it ends, is cut off, or the server gives it up.
///
/// Not an `async fn`, and both parts in places of their own: this task lives as long as its stream, and shall not keep
/// room for what only the beginning needs.
pub(super) fn run(
    stream: TcpStream,
    remote: SocketAddr,
    router: Router,
    server: Arc<Server>,
) -> impl Future<Output = ()> + Send {
    let signals = Arc::new(Signals::default());
    let opening = Box::pin(open(
        stream,
        remote,
        router,
        server.clone(),
        signals.clone(),
    ));
    async move {
        let served = async move {
            if let Some(serving) = opening.await {
                serving.await;
            }
        };
        let mut abort = pin!(server.abort.cancelled());
        let ended = Rarely::new(
            &signals,
            poll_fn(|cx| {
                if signals.is_cut_off() {
                    tracing::debug!(%remote, "connection cut off");
                    return Poll::Ready(());
                }
                abort.as_mut().poll(cx)
            }),
        );
        tokio::select! {
            biased;
            () = served => {}
            () = ended => {}
        }
    }
}

#[cfg(feature = "tls")]
async fn open_tls(
    stream: TcpStream,
    remote: SocketAddr,
    router: Router,
    server: Arc<Server>,
    signals: Arc<Signals>,
    tls: &Tls,
) -> Option<Serving> {
    let deadline = tls::deadline(&server);
    let opened = tokio::select! {
        opened = tls::open(stream, remote, tls, deadline) => opened?,
        () = server.closing.cancelled() => return None,
    };
    let mut client = Client {
        remote,
        signals: None,
        handover: None,
        server,
    };
    Some(match opened {
        Opened::Http1(stream) => {
            client.signals = Some(signals.clone());
            let stream = Either::Right(stream);
            Box::pin(serve_http1(
                stream,
                Bytes::new(),
                router,
                client,
                tls::left(deadline),
            ))
        }
        Opened::Http2(stream) => Box::pin(http2::serve(
            Either::Right(stream),
            Bytes::new(),
            router,
            client,
            tls::left(deadline),
        )),
        Opened::Plain(stream) => Box::pin(refuse_plain(Either::Left(stream))),
    })
}

/// Finds out what a client speaks. `None` if it said nothing, or it is too late.
async fn open(
    mut stream: TcpStream,
    remote: SocketAddr,
    router: Router,
    server: Arc<Server>,
    signals: Arc<Signals>,
) -> Option<Serving> {
    #[cfg(feature = "tls")]
    if let Some(tls) = server.tls.clone() {
        return open_tls(stream, remote, router, server, signals, &tls).await;
    }
    let head_timeout = server.options.head_timeout;
    let protocol = tokio::select! {
        protocol = timeout(head_timeout, find_protocol(&mut stream)) => protocol,
        () = server.closing.cancelled() => return None,
    };
    let stream = Either::Left(stream);
    let Ok(protocol) = protocol else {
        return Some(Box::pin(time_out(stream)));
    };
    let (is_http2, read_ahead) = protocol.ok()?;
    let client = Client {
        remote,
        signals: (!is_http2).then_some(signals),
        handover: (!is_http2).then(Arc::default),
        server,
    };
    Some(if is_http2 {
        Box::pin(http2::serve(
            stream,
            read_ahead,
            router,
            client,
            head_timeout,
        ))
    } else {
        Box::pin(serve_http1(
            stream,
            read_ahead,
            router,
            client,
            head_timeout,
        ))
    })
}

/// Whether the client speaks HTTP/2, and the bytes that were read to find out.
async fn find_protocol(stream: &mut TcpStream) -> std::io::Result<(bool, Bytes)> {
    let mut read = BytesMut::with_capacity(HTTP2_PREFACE.len());
    while HTTP2_PREFACE.starts_with(&read) && read.len() < HTTP2_PREFACE.len() {
        let mut rest = (&mut *stream).take((HTTP2_PREFACE.len() - read.len()) as u64);
        if rest.read_buf(&mut read).await? == 0 {
            break;
        }
    }
    Ok((read == HTTP2_PREFACE, read.freeze()))
}

/// Not an `async fn`: that would keep room for its arguments beside what becomes of them.
fn serve_http1(
    stream: Socket,
    read_ahead: Bytes,
    router: Router,
    client: Client,
    head_timeout: Duration,
) -> impl Future<Output = ()> + Send {
    let server = client.server.clone();
    let was_served = Arc::new(AtomicBool::new(false));
    let handover = client.handover.clone();
    let signals = client.signals.clone().unwrap_or_default();
    let io = Io::new(stream, read_ahead, was_served.clone(), handover.clone());
    let service = RouterService {
        router,
        client,
        served: was_served.clone(),
        usage: None,
    };
    // Boxed, as a future has room for all the places that a value moves through.
    let connection = Box::new(http1(io, service, &server, head_timeout));
    async move {
        let (end, stream) = drive_http1(connection, handover, &server, &signals).await;
        // What comes now is short, and shall not make the task of every connection larger.
        match end {
            End::HandedOver(live) => hand_over(*live, stream, &server),
            End::Done(Err(error)) if error.is_timeout() && !was_served.load(Ordering::Relaxed) => {
                Box::pin(time_out(stream)).await;
            }
            End::Done(_) => Box::pin(linger(stream, LINGER_MAX)).await,
        }
    }
}

type Http1 = http1::Connection<TokioIo<Io>, RouterService>;

fn http1(io: Io, service: RouterService, server: &Server, head_timeout: Duration) -> Http1 {
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_buf_size(server.options.head_bytes_max.max(8_192))
        .serve_connection(TokioIo::new(io), service)
}

/// Lets hyper serve a connection. Answers how that ended, and its socket.
async fn drive_http1(
    mut connection: Box<Http1>,
    handover: Option<Arc<Handover>>,
    server: &Server,
    signals: &Arc<Signals>,
) -> (End, Socket) {
    let mut closing = Some(Rarely::new(signals, server.closing.cancelled()));
    if let Some(handover) = &handover {
        handover.carried_by(poll_fn(|cx| Poll::Ready(cx.waker().clone())).await);
    }
    let end = poll_fn(|cx| {
        if let Some(signal) = &mut closing
            && Pin::new(signal).poll(cx).is_ready()
        {
            closing = None;
            Pin::new(&mut *connection).graceful_shutdown();
        }
        match connection.poll_without_shutdown(cx) {
            Poll::Ready(result) => Poll::Ready(End::Done(result)),
            Poll::Pending => match handover.as_ref().and_then(|handover| handover.accept()) {
                Some(live) => Poll::Ready(End::HandedOver(live.into())),
                None => Poll::Pending,
            },
        }
    })
    .await;
    // A stream that was offered and not taken is over.
    (end, connection.into_parts().io.into_inner().into_stream())
}

/// How hyper's part of a connection ends.
enum End {
    Done(hyper::Result<()>),
    /// The socket is a stream's from now on.
    HandedOver(Box<Live>),
}

/// Gives a stream and its socket to a reactor.
fn hand_over(live: Live, stream: Socket, server: &Arc<Server>) {
    // A stream over TLS is never offered.
    let Either::Left(stream) = stream else { return };
    match (server.reactor(), stream.into_std()) {
        (Some(reactor), Ok(stream)) => reactor.adopt(Adoption {
            live,
            stream: mio::net::TcpStream::from_std(stream),
            token: server.tasks.token(),
        }),
        (_, result) => tracing::warn!(error = ?result.err(), "can't carry a connection on"),
    }
}

/// Tells a client that its head took too long.
async fn time_out(mut stream: Socket) {
    let text = answer(
        Code::HeadTimeout,
        "the request's head did not arrive within `limits.head_timeout`",
    );
    if stream.write_all(&text).await.is_ok() {
        // Whoever sends a head byte by byte would go on doing so.
        linger(stream, LINGER).await;
    }
}

/// Tells a client that has sent plain HTTP to a TLS server what is wrong.
#[cfg(feature = "tls")]
async fn refuse_plain(mut stream: Socket) {
    let text = answer(
        Code::BadHead,
        "this address speaks TLS, and the request came without; use https://",
    );
    if stream.write_all(&text).await.is_ok() {
        linger(stream, LINGER).await;
    }
}

/// Ends the connection such that the client gets the last answer.
async fn linger(mut stream: Socket, longest: Duration) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut nowhere = BytesMut::with_capacity(8 * 1024);
    let read_all = async {
        while let Ok(Ok(1..)) = timeout(LINGER, stream.read_buf(&mut nowhere)).await {
            nowhere.clear();
        }
    };
    let _ = timeout(longest, read_all).await;
}

/// Whether a request says in one way only which host it is for (RFC 9112 section 3.2). Whoever stands before the hub may
/// have looked at another one than the hub would.
fn has_host<B>(request: &Request<B>) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) => request.version() != Version::HTTP_11,
        (Some(host), None) => {
            let host = host.as_bytes();
            host.is_empty() || (Authority::try_from(host).is_ok() && !host.contains(&b'@'))
        }
        (Some(_), Some(_)) => false,
    }
}

/// The router as hyper calls it, with the client in each request's extensions.
#[derive(Clone)]
pub(super) struct RouterService {
    pub(super) router: Router,
    pub(super) client: Client,
    pub(super) served: Arc<AtomicBool>,
    /// Set where hyper does not end idle connections by itself.
    pub(super) usage: Option<Usage>,
}

impl hyper::service::Service<Request<Incoming>> for RouterService {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.served.store(true, Ordering::Relaxed);
        if !has_host(&request) {
            let detail =
                "a request of HTTP/1.1 has the header Host once, with a host and perhaps a port";
            let mut refused = Problem::new(Code::BadHead, detail).into_response();
            let close = HeaderValue::from_static("close");
            refused.headers_mut().insert(CONNECTION, close);
            return Box::pin(std::future::ready(Ok(refused)));
        }
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(self.client.clone());
        let answer = self.router.clone().oneshot(request);
        let Some(in_use) = self.usage.as_ref().map(Usage::begin) else {
            return Box::pin(answer);
        };
        Box::pin(async move { Ok(in_use.until_sent(answer.await?)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::ServeOptions;

    /// A stream that stays a body keeps its connection's task for as long as it lives. Printed with `--nocapture`.
    #[tokio::test]
    async fn the_task_of_a_connection_is_no_larger_than_it_should_be() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let remote = listener.local_addr().unwrap();
        let server = Arc::new(Server::new(ServeOptions::default()));
        let connect = || TcpStream::connect(remote);
        let router = Router::new;
        let task = size_of_val(&run(
            connect().await.unwrap(),
            remote,
            router(),
            server.clone(),
        ));
        let client = Client {
            remote,
            signals: None,
            handover: None,
            server,
        };
        let stream = Either::Left(connect().await.unwrap());
        let serving = serve_http1(stream, Bytes::new(), router(), client, LINGER);
        let serving = size_of_val(&serving);
        let hypers = size_of::<Http1>();
        println!("the task: {task}, serving: {serving}, hyper's connection: {hypers}");
        assert!(task + serving + hypers <= 1_350);
    }
}
