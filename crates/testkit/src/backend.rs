//! A backend that is asked by an authorizer, well or badly, by http or https.
//!
//! In: what it is to answer. Out: its address, the certificate that it is trusted by, and each enquiry that it
//! got, in order. It ends with the test's runtime.

use std::convert::Infallible;
use std::future::pending;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::certificates::Authority;

/// An enquiry as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body as it was signed.
    pub body: Bytes,
    /// The same as JSON.
    pub json: Value,
}

/// How it answers.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// `content-type`.
    pub kind: &'static str,
    /// `location`, where there is one.
    pub location: Option<String>,
    /// The body.
    pub body: Vec<u8>,
    /// How long that takes; `None`: for ever.
    pub after: Option<Duration>,
}

impl Reply {
    /// 200 with this as JSON, at once.
    pub fn json(value: &Value) -> Self {
        Self::text(value.to_string())
    }

    /// 200 with this text as if it were JSON.
    pub fn text(text: impl Into<Vec<u8>>) -> Self {
        Self {
            status: 200,
            kind: "application/json",
            location: None,
            body: text.into(),
            after: Some(Duration::ZERO),
        }
    }

    /// The same after a while.
    pub fn after(self, after: Duration) -> Self {
        Self {
            after: Some(after),
            ..self
        }
    }

    /// No answer at all.
    pub fn never() -> Self {
        Self {
            after: None,
            ..Self::text("")
        }
    }

    /// This status without a body.
    pub fn status(status: u16) -> Self {
        Self {
            status,
            ..Self::text("")
        }
    }
}

type Script = Box<dyn Fn(&Asked) -> Reply + Send + Sync>;

/// See the module.
pub struct Backend {
    /// Where it is asked.
    pub url: String,
    /// The file with the certificate of who signed its own; of use with https only.
    pub ca_file: PathBuf,
    state: Arc<State>,
    _directory: tempfile::TempDir,
}

struct State {
    script: Mutex<Script>,
    asked: Mutex<Vec<Asked>>,
    open: AtomicUsize,
    most_open: AtomicUsize,
    connections: AtomicUsize,
}

impl Backend {
    /// One that answers by http.
    pub async fn http(script: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        Self::start(false, Box::new(script)).await
    }

    /// One that answers by https, as `localhost`.
    pub async fn https(script: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        Self::start(true, Box::new(script)).await
    }

    async fn start(is_tls: bool, script: Script) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let authority = Authority::new();
        let ca_file = directory.path().join("ca.pem");
        std::fs::write(&ca_file, &authority.pem).expect("the directory can be written");
        let acceptor = is_tls.then(|| acceptor(&authority));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let scheme = if is_tls { "https" } else { "http" };
        let state = Arc::new(State {
            script: Mutex::new(script),
            asked: Mutex::default(),
            open: AtomicUsize::new(0),
            most_open: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
        });
        let serving = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serving.connections.fetch_add(1, Relaxed);
                tokio::spawn(serve(stream, acceptor.clone(), Arc::clone(&serving)));
            }
        });
        Self {
            url: format!("{scheme}://localhost:{port}/authorize?v=1"),
            ca_file,
            state,
            _directory: directory,
        }
    }

    /// From now on it answers so.
    pub fn answer(&self, script: impl Fn(&Asked) -> Reply + Send + Sync + 'static) {
        *lock(&self.state.script) = Box::new(script);
    }

    /// The enquiries so far.
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.state.asked).clone()
    }

    /// How many connections there were so far.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Relaxed)
    }

    /// How many enquiries it had at once at the most.
    pub fn most_at_once(&self) -> usize {
        self.state.most_open.load(Relaxed)
    }

    /// How many it has now.
    pub fn open(&self) -> usize {
        self.state.open.load(Relaxed)
    }
}

fn acceptor(authority: &Authority) -> TlsAcceptor {
    let (certificate, key) = authority.sign("localhost");
    let certificates = CertificateDer::pem_slice_iter(certificate.as_bytes());
    let certificates = certificates.collect::<Result<_, _>>().expect("PEM");
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions of TLS")
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .expect("a certificate with its key");
    TlsAcceptor::from(Arc::new(config))
}

async fn serve(stream: TcpStream, acceptor: Option<TlsAcceptor>, state: Arc<State>) {
    let service = service_fn(move |request| answer(request, Arc::clone(&state)));
    let server = http1::Builder::new();
    // A client that goes away is no concern of a backend.
    let _ = match acceptor {
        None => server.serve_connection(TokioIo::new(stream), service).await,
        Some(acceptor) => match acceptor.accept(stream).await {
            Ok(stream) => server.serve_connection(TokioIo::new(stream), service).await,
            Err(_) => Ok(()),
        },
    };
}

/// One more enquiry that is open.
struct Open<'a>(&'a State);

impl<'a> Open<'a> {
    fn new(state: &'a State) -> Self {
        let open = state.open.fetch_add(1, Relaxed) + 1;
        state.most_open.fetch_max(open, Relaxed);
        Self(state)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

async fn answer(
    request: Request<Incoming>,
    state: Arc<State>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let _open = Open::new(&state);
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes());
    let body = body.unwrap_or_default();
    let asked = Asked {
        json: serde_json::from_slice(&body).unwrap_or_default(),
        headers: head.headers,
        body,
    };
    let reply = lock(&state.script)(&asked);
    lock(&state.asked).push(asked);
    match reply.after {
        None => return pending().await,
        Some(after) if after.is_zero() => {}
        Some(after) => tokio::time::sleep(after).await,
    }
    let mut response = Response::builder()
        .status(reply.status)
        .header("content-type", reply.kind);
    if let Some(location) = reply.location {
        response = response.header("location", location);
    }
    let response = response.body(Full::new(reply.body.into()));
    Ok(response.expect("the test gives what HTTP can say"))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
