//! How the API server is found, and who we are to it.

use std::path::PathBuf;
use std::time::Duration;

use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ConfigExt as _};
use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use thiserror::Error;
use tower::{BoxError, ServiceBuilder};
use tracing::warn;

/// A connection must be there after this time.
const CONNECT: Duration = Duration::from_secs(5);
/// A watch may be silent for long. A server that went without a word is missed after `IDLE` and `PROBES` times `PROBE`.
const IDLE: Duration = Duration::from_secs(20);
const PROBE: Duration = Duration::from_secs(5);
const PROBES: u32 = 3;
/// What the kubelet gives every pod.
const IN_CLUSTER: &str = "KUBERNETES_SERVICE_HOST";

/// How the API server is found.
#[derive(Clone, Debug, Default)]
pub struct ApiAccess {
    /// The kubeconfig; none: the one of the pod, or else `$KUBECONFIG` or `~/.kube/config`.
    pub kubeconfig: Option<PathBuf>,
    /// The kubeconfig's context; none: its current one.
    pub context: Option<String>,
    /// The server's address instead of the one that the configuration has.
    pub server: Option<http::Uri>,
}

/// Why the API cannot be asked at all.
#[derive(Debug, Error)]
pub enum AccessError {
    /// The kubeconfig is of no use.
    #[error("kubeconfig {file} cannot be used")]
    Kubeconfig {
        /// The file.
        file: String,
        /// What is the matter.
        #[source]
        source: Box<KubeconfigError>,
    },
    /// A pod, but without ServiceAccount.
    #[error(
        "the pod's own access to the API cannot be used ({IN_CLUSTER} is set; mount its ServiceAccount token, or name a --kubeconfig)"
    )]
    InCluster(#[source] Box<InClusterError>),
    /// Neither a pod nor a kubeconfig.
    #[error(
        "no way to the Kubernetes API: this is no pod, and there is no kubeconfig. Name a --kubeconfig, or a folder by --manifests"
    )]
    Nothing(#[source] Box<KubeconfigError>),
    /// TLS or credentials are of no use.
    #[error("the configuration of the API client cannot be used")]
    Client(#[source] Box<kube::Error>),
    /// No thread.
    #[error("no thread could be started for the Kubernetes API")]
    Thread(#[source] std::io::Error),
}

impl ApiAccess {
    /// Reads the configuration: the kubeconfig that is named; else the pod's own; else the user's kubeconfig.
    pub(super) async fn config(&self) -> Result<Config, AccessError> {
        let mut config = self.found().await?;
        if let Some(server) = &self.server {
            config.cluster_url = server.clone();
        }
        if let Some(proxy) = config.proxy_url.take() {
            warn!("proxy {proxy} is not used for the Kubernetes API: it is asked directly");
        }
        Ok(config)
    }

    /// A client by the configuration as it is now.
    pub(crate) async fn connect(&self) -> Result<Client, AccessError> {
        client(self.config().await?)
    }

    async fn found(&self) -> Result<Config, AccessError> {
        let options = KubeConfigOptions {
            context: self.context.clone(),
            ..KubeConfigOptions::default()
        };
        if let Some(path) = &self.kubeconfig {
            let wrong = |source| AccessError::Kubeconfig {
                file: path.display().to_string(),
                source: Box::new(source),
            };
            let kubeconfig = Kubeconfig::read_from(path).map_err(wrong)?;
            return Config::from_custom_kubeconfig(kubeconfig, &options)
                .await
                .map_err(wrong);
        }
        if self.context.is_none() && std::env::var_os(IN_CLUSTER).is_some() {
            return Config::incluster_env().map_err(|error| AccessError::InCluster(Box::new(error)));
        }
        let found = Config::from_kubeconfig(&options).await;
        found.map_err(|error| AccessError::Nothing(Box::new(error)))
    }
}

/// The client. Unlike that of [`Client::try_from`] it notices a server that is gone without a word, and does not ask again
/// or log by itself. Must be called on the runtime that it is used on.
pub(super) fn client(config: Config) -> Result<Client, AccessError> {
    built(config).map_err(|error| AccessError::Client(Box::new(error)))
}

fn built(config: Config) -> Result<Client, kube::Error> {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT));
    connector.set_keepalive(Some(IDLE));
    connector.set_keepalive_interval(Some(PROBE));
    connector.set_keepalive_retries(Some(PROBES));
    let connector = config.rustls_https_connector_with_connector(connector)?;
    let http: HttpClient<_, Body> = HttpClient::builder(TokioExecutor::new()).build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http);
    Ok(Client::new(service, config.default_namespace))
}
