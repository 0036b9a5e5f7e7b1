//! The objects of one Service, asked for once: for people, not for the maps.

use kube::Client;
use serde_json::Value;
use thiserror::Error;

use super::access::{AccessError, ApiAccess, client};
use super::follow::answer;
use super::reply::Page;
use super::trouble::Trouble;
use super::watched::{NODES, SERVICES, SLICES, Watched, Which};
use crate::model::{ObjectName, Origin, World};
use crate::source::document::{Content, interpret};

/// What an API server says of a Service.
#[derive(Debug)]
pub struct ServiceObjects {
    /// The server.
    pub server: String,
    /// The Service, those that it is split over, their EndpointSlices, and the Node.
    pub world: World,
    /// What is wrong with these objects.
    pub problems: Vec<String>,
}

/// Why an API server says nothing of a Service.
#[derive(Debug, Error)]
pub enum AskError {
    /// It cannot be asked at all.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// It cannot be reached, or refuses.
    #[error("{0}")]
    Refused(String),
    /// It knows no such Service.
    #[error(
        "the API server {server} has no Service {service} that is served here: is it the one that the agent follows?"
    )]
    Unknown {
        /// The server.
        server: String,
        /// The Service.
        service: ObjectName,
    },
}

/// Who asks, and what was answered so far.
struct Asking {
    client: Client,
    told: ServiceObjects,
}

impl ApiAccess {
    /// Asks once for a Service and its EndpointSlices, those of the Services that it is split over, and for the Node of this
    /// name. Takes the rights that following them takes, and as long as the server does: give it a limit.
    pub async fn ask(&self, service: &ObjectName, node: &str) -> Result<ServiceObjects, AskError> {
        let config = self.config().await?;
        let told = ServiceObjects {
            server: config.cluster_url.to_string(),
            world: World::default(),
            problems: Vec::new(),
        };
        let client = client(config)?;
        let mut asking = Asking { client, told };
        asking.all(service, node).await?;
        let mut told = asking.told;
        if told.world.service(service).is_none() && told.problems.is_empty() {
            return Err(AskError::Unknown {
                server: told.server,
                service: service.clone(),
            });
        }
        if told.world.node(node).is_none() {
            let text = "is --node-name right? Which endpoints are on this node, or in its zone, is not known";
            told.problems.push(format!("there is no Node {node}: {text}"));
        }
        Ok(told)
    }
}

impl Asking {
    async fn all(&mut self, service: &ObjectName, node: &str) -> Result<(), Trouble> {
        self.node(node).await?;
        self.service(service).await?;
        let split = self.told.world.service(service);
        let split = split.map(|known| known.object.split_targets().collect::<Vec<_>>());
        for target in split.into_iter().flatten().filter(|target| target != service) {
            self.service(&target).await?;
        }
        Ok(())
    }

    async fn node(&mut self, name: &str) -> Result<(), Trouble> {
        self.some(&NODES, "", Which::Named(name)).await
    }

    async fn service(&mut self, service: &ObjectName) -> Result<(), Trouble> {
        let ObjectName { namespace, name } = service;
        self.some(&SERVICES, namespace, Which::Named(name)).await?;
        self.some(&SLICES, namespace, Which::OfService(name)).await
    }

    /// Those objects of a namespace that are meant, page by page.
    async fn some(&mut self, watched: &Watched, namespace: &str, which: Which<'_>) -> Result<(), Trouble> {
        let mut token = None;
        loop {
            let request = watched.page_of(namespace, which, token.as_deref())?;
            let text = answer(watched, self.client.request_text(request)).await?;
            let garbled = |error: serde_json::Error| watched.garbled(&error);
            let page = Page::read(&text).map_err(garbled)?;
            for item in page.items() {
                self.take(watched, &serde_json::from_str(item).map_err(garbled)?);
            }
            token = page.next();
            if token.is_none() {
                return Ok(());
            }
        }
    }

    /// Takes an object whole: unlike those that are followed, with the names of pods.
    fn take(&mut self, watched: &Watched, value: &Value) {
        let (object, content) = interpret(watched.kind.as_str(), value);
        match content {
            Content::Object(object, _) | Content::Lacking(object, _) => {
                self.told.world.apply(object, Origin::default());
            }
            Content::Broken(why) => {
                let object = object.map_or_else(|| watched.kind.to_string(), |object| object.to_string());
                self.told.problems.push(format!("{object}: {why}"));
            }
            Content::LeftAlone | Content::OtherKind(_) | Content::Unknown(_) => {}
        }
    }
}

impl From<Trouble> for AskError {
    fn from(trouble: Trouble) -> Self {
        Self::Refused(trouble.to_string())
    }
}
