//! The way to the server: kubeconfigs, and credentials that change.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

/// A file that goes with the value.
pub(super) struct Kubeconfig(pub(super) PathBuf);

impl Kubeconfig {
    pub(super) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("sluice-kubeconfig-{}-{number}", std::process::id())))
    }

    /// Two contexts, of which the second one leads to `server` and is not the current one.
    pub(super) fn write(&self, server: &Server, token: &str) {
        let cluster = |url: String| json!({"server": url});
        let text = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "away", "cluster": cluster("http://127.0.0.1:1".to_owned())},
                {"name": "here", "cluster": cluster(format!("http://{}", server.address))},
            ],
            "users": [{"name": "agent", "user": {"token": token}}],
            "contexts": [
                {"name": "one", "context": {"cluster": "away", "user": "agent"}},
                {"name": "two", "context": {"cluster": "here", "user": "agent"}},
            ],
            "current-context": "one",
        });
        std::fs::write(&self.0, text.to_string()).unwrap();
    }
}

impl Drop for Kubeconfig {
    fn drop(&mut self) {
        _ = std::fs::remove_file(&self.0);
    }
}

pub(super) fn access(kubeconfig: &Path, context: Option<&str>) -> ApiAccess {
    ApiAccess {
        kubeconfig: Some(kubeconfig.to_owned()),
        context: context.map(str::to_owned),
        server: None,
    }
}

#[test]
fn a_token_that_is_replaced_in_the_kubeconfig_is_used() {
    run(async {
        let (server, kubeconfig) = (Server::start().await, Kubeconfig::new());
        server.want("first");
        server.set("services", [service("web", 1)]);
        kubeconfig.write(&server, "first");
        let (sender, events) = mpsc::channel(8);
        let source = ApiSource::follow(&access(&kubeconfig.0, Some("two")), "node-a", sender)
            .await
            .unwrap();
        let mut told = Told::by(events);
        told.until_synced().await;

        server.want("second");
        server.end("services");
        sleep(Duration::from_millis(200)).await;
        kubeconfig.write(&server, "second");
        let again = async {
            while server.asked("services").len() < 3 || !server.is_followed("services") {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, again).await.unwrap();
        server.tell("services", "ADDED", &service("dns", 30));
        told.until("a new service", |told| told.has("apply Service default/dns"))
            .await;

        drop(source);
        while told.events.recv().await.is_some() {}
    });
}

#[test]
fn another_server_than_the_configured_one_can_be_named() {
    run(async {
        let (server, kubeconfig) = (Server::start().await, Kubeconfig::new());
        kubeconfig.write(&server, "any");
        let mut access = access(&kubeconfig.0, Some("one"));
        access.server = Some(format!("http://{}", server.address).parse().unwrap());
        let (sender, events) = mpsc::channel(8);
        let _source = ApiSource::follow(&access, "node-a", sender).await.unwrap();
        Told::by(events).until_synced().await;
    });
}

#[test]
fn kubeconfigs_that_cannot_be_used_are_errors() {
    run(async {
        let (server, kubeconfig) = (Server::start().await, Kubeconfig::new());
        let error = async |access: &ApiAccess| {
            let (sender, _events) = mpsc::channel(8);
            let error = ApiSource::follow(access, "node-a", sender).await.unwrap_err();
            format!("{:#}", anyhow::Error::new(error))
        };
        let of_file = format!("kubeconfig {} cannot be used: ", kubeconfig.0.display());
        let text = error(&access(&kubeconfig.0, None)).await;
        assert!(
            text.starts_with(&of_file) && text.contains("No such file"),
            "{text}"
        );
        kubeconfig.write(&server, "any");
        let text = error(&access(&kubeconfig.0, Some("three"))).await;
        assert!(text.starts_with(&of_file) && text.contains("three"), "{text}");
        std::fs::write(&kubeconfig.0, "clusters: 7").unwrap();
        let text = error(&access(&kubeconfig.0, None)).await;
        assert!(text.starts_with(&of_file), "{text}");
    });
}
