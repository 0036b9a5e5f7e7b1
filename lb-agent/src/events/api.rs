//! Events of `events.k8s.io/v1`.
//!
//! Each is an object of its own. A series, as client libraries make one of Events with the same reason, would keep the
//! text of the first one alone; that nothing is repeated is seen to before.

use k8s_openapi::api::core::v1::{ObjectReference, Service};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};

use super::worker::{Refusal, Sink};
use crate::model::{ObjectName, Problem, Reason};
use crate::source::ApiAccess;

/// Who reports.
const CONTROLLER: &str = "sluice.dev/lb-agent";
/// The longest text of an Event, in bytes.
const NOTE: usize = 1024;

/// Publishes to the API server.
pub struct ApiEvents {
    access: ApiAccess,
    node: String,
    /// From the first Event on.
    client: Option<Client>,
}

impl ApiEvents {
    /// Reached in this way, from this node.
    pub fn new(access: ApiAccess, node: String) -> Self {
        Self {
            access,
            node,
            client: None,
        }
    }

    async fn client(&mut self) -> Result<Client, Refusal> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        let client = self.access.connect().await;
        let client = client.map_err(|error| Refusal::Failed(format!("{:#}", anyhow::Error::new(error))))?;
        Ok(self.client.insert(client).clone())
    }
}

impl Sink for ApiEvents {
    async fn publish(&mut self, problem: &Problem) -> Result<(), Refusal> {
        let Some(object) = &problem.object else {
            return Ok(());
        };
        let client = self.client().await?;
        let services = Api::<Service>::namespaced(client.clone(), &object.name.namespace);
        // `kubectl describe` shows only the Events of this very object: by its UID.
        let found = services
            .get_metadata_opt(&object.name.name)
            .await
            .map_err(refusal)?;
        let Some(service) = found else {
            return Ok(());
        };
        let event = event(problem, &object.name, service.metadata.uid, &self.node);
        let events = Api::<Event>::namespaced(client, &object.name.namespace);
        match events.create(&PostParams::default(), &event).await {
            Err(error) if !is_namespace_ending(&error) => Err(refusal(error)),
            _ => Ok(()),
        }
    }
}

fn event(problem: &Problem, service: &ObjectName, uid: Option<String>, node: &str) -> Event {
    let now = Timestamp::now();
    let ObjectName { namespace, name } = service;
    Event {
        action: Some(action(problem.reason).to_owned()),
        event_time: Some(MicroTime(now)),
        metadata: ObjectMeta {
            name: Some(format!("{name}.{:x}", now.as_nanosecond())),
            namespace: Some(namespace.to_string()),
            ..ObjectMeta::default()
        },
        note: Some(shortened(&problem.text)),
        reason: Some(problem.reason.as_str().to_owned()),
        regarding: Some(ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Service".to_owned()),
            name: Some(name.to_string()),
            namespace: Some(namespace.to_string()),
            uid,
            ..ObjectReference::default()
        }),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(node.to_owned()),
        type_: Some("Warning".to_owned()),
        ..Event::default()
    }
}

/// What was tried; kube-proxy's word where it has one.
fn action(reason: Reason) -> &'static str {
    match reason {
        Reason::FailedToStartServiceHealthcheck => "Listen",
        _ => "Program",
    }
}

fn shortened(text: &str) -> String {
    const MORE: &str = "...";
    if text.len() <= NOTE {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(NOTE - MORE.len());
    text.get(..end).unwrap_or_default().to_owned() + MORE
}

fn refusal(error: kube::Error) -> Refusal {
    match error {
        kube::Error::Api(status) if status.code == 403 => Refusal::Forbidden(status.message.clone()),
        kube::Error::Api(status) => Refusal::Failed(format!("{} ({})", status.message, status.code)),
        error => Refusal::Failed(format!("{:#}", anyhow::Error::new(error))),
    }
}

/// Nothing new is made in a Namespace that is going away: nobody could read it.
fn is_namespace_ending(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else {
        return false;
    };
    let mut causes = status.details.iter().flat_map(|details| &details.causes);
    causes.any(|cause| cause.reason == "NamespaceTerminating")
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::mpsc;

    use http_body_util::BodyExt as _;
    use kube::client::Body;
    use serde_json::{Value, json};
    use tower::service_fn;

    use super::*;
    use crate::model::{Kind, ObjectRef, Origin};

    /// Publishes one problem to an API that gives these answers: what it was asked for, and what came of it.
    fn publish(text: &str, answers: Vec<(u16, Value)>) -> (Vec<(String, Value)>, Result<(), Refusal>) {
        let (asked, heard) = mpsc::channel();
        let mut answers = answers.into_iter();
        let api = service_fn(move |request: http::Request<Body>| {
            let (asked, answer) = (asked.clone(), answers.next());
            async move {
                let what = format!("{} {}", request.method(), request.uri().path());
                let body = request.into_body().collect().await.unwrap().to_bytes();
                asked
                    .send((what, serde_json::from_slice(&body).unwrap_or_default()))
                    .unwrap();
                let (code, body) = answer.unwrap();
                let response = http::Response::builder().status(code);
                Ok::<_, Infallible>(response.body(Body::from(body.to_string().into_bytes())).unwrap())
            }
        });
        let problem = Problem {
            object: Some(ObjectRef::new(Kind::Service, "shop", "web")),
            origin: Origin::default(),
            reason: Reason::FailedToStartServiceHealthcheck,
            text: text.to_owned(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let published = runtime.block_on(async {
            let mut events = ApiEvents {
                access: ApiAccess::default(),
                node: "node-a".to_owned(),
                client: Some(Client::new(api, "default")),
            };
            events.publish(&problem).await
        });
        (heard.try_iter().collect(), published)
    }

    fn service() -> (u16, Value) {
        let metadata = json!({"name": "web", "namespace": "shop", "uid": "u-1"});
        (
            200,
            json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": metadata}),
        )
    }

    fn status(code: u16, cause: &str) -> (u16, Value) {
        let reason = if code == 404 { "NotFound" } else { "Other" };
        (
            code,
            json!({
                "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "message": "no", "reason": reason,
                "details": {"causes": [{"reason": cause}]},
            }),
        )
    }

    #[test]
    fn an_event_is_about_the_service_of_this_uid() {
        let made = (
            201,
            json!({"metadata": {"name": "web.1", "namespace": "shop"}, "eventTime": null}),
        );
        let (asked, published) = publish("port 30200 is taken", vec![service(), made]);
        assert_eq!(published, Ok(()));
        let whats: Vec<_> = asked.iter().map(|(what, _)| what.as_str()).collect();
        assert_eq!(
            whats,
            [
                "GET /api/v1/namespaces/shop/services/web",
                "POST /apis/events.k8s.io/v1/namespaces/shop/events"
            ]
        );
        let event = &asked[1].1;
        let expected = [
            ("/reason", "FailedToStartServiceHealthcheck"),
            ("/action", "Listen"),
            ("/type", "Warning"),
            ("/note", "port 30200 is taken"),
            ("/regarding/kind", "Service"),
            ("/regarding/uid", "u-1"),
            ("/reportingController", "sluice.dev/lb-agent"),
            ("/reportingInstance", "node-a"),
            ("/metadata/namespace", "shop"),
        ];
        for (path, value) in expected {
            assert_eq!(event.pointer(path), Some(&json!(value)), "{path}");
        }
    }

    #[test]
    fn about_what_is_gone_nothing_is_said() {
        let (asked, published) = publish("text", vec![status(404, "")]);
        assert_eq!((asked.len(), published), (1, Ok(())));
        let (asked, published) = publish("text", vec![service(), status(403, "NamespaceTerminating")]);
        assert_eq!((asked.len(), published), (2, Ok(())));
    }

    #[test]
    fn a_missing_right_is_told_as_one() {
        for answers in [vec![status(403, "")], vec![service(), status(403, "")]] {
            let (_, published) = publish("text", answers);
            assert_eq!(published, Err(Refusal::Forbidden("no".to_owned())));
        }
        let (_, published) = publish("text", vec![service(), status(500, "")]);
        assert_eq!(published, Err(Refusal::Failed("no (500)".to_owned())));
    }

    #[test]
    fn a_long_text_is_shortened_between_letters() {
        assert_eq!(shortened("short"), "short");
        let long = shortened(&"ä".repeat(NOTE));
        assert!(long.len() <= NOTE && long.ends_with("ä..."), "{}", long.len());
    }
}
