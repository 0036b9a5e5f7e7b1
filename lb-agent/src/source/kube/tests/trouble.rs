//! Connections that break, servers that come and go, versions that are too old, and rights that are missing.

use super::*;

#[test]
fn a_watch_goes_on_from_the_last_version_after_a_cut() {
    with_server(|server, mut told| async move {
        server.set("services", [service("web", 1), service("dns", 2)]);
        told.until_synced().await;
        server.tell("services", "MODIFIED", &service("web", 50));
        told.until("a change", |told| told.count("apply Service default/web") == 2)
            .await;
        server.cut("services");
        until_asked(&server, "services", 2).await;
        assert!(
            server.asked("services")[1].contains("resourceVersion=50&"),
            "{:?}",
            server.asked("services")
        );

        server.tell(
            "services",
            "BOOKMARK",
            &json!({"metadata": {"resourceVersion": "77"}}),
        );
        server.tell("services", "DELETED", &service("dns", 78));
        server.tell(
            "services",
            "BOOKMARK",
            &json!({"metadata": {"resourceVersion": "99"}}),
        );
        told.until("a deletion", |told| told.has("delete Service default/dns"))
            .await;
        server.end("services");
        until_asked(&server, "services", 3).await;
        assert!(
            server.asked("services")[2].contains("resourceVersion=99&"),
            "{:?}",
            server.asked("services")
        );
        assert_eq!(told.names(Kind::Service), ["web"]);
    });
}

#[test]
fn what_is_gone_when_everything_is_told_anew_is_deleted() {
    with_server(|server, mut told| async move {
        server.set("services", [service("web", 1), service("dns", 2)]);
        told.until_synced().await;
        server.set("services", [service("web", 1), service("api", 60)]);
        server.tell("services", "ERROR", &status(410, "too old resource version"));
        told.until("a deletion", |told| told.has("delete Service default/dns"))
            .await;
        assert_eq!(told.names(Kind::Service), ["api", "web"]);
        assert!(!told.has("delete Service default/web"), "{:?}", told.log);
    });
}

#[test]
fn gone_as_the_answer_to_a_watch_is_the_same() {
    with_server(|server, mut told| async move {
        server.set("services", [service("web", 1), service("dns", 2)]);
        told.until_synced().await;
        server.set("services", [service("web", 1)]);
        server.reply(Ask::Watch, "services", Reply::Status(410));
        server.cut("services");
        told.until("a deletion", |told| told.has("delete Service default/dns"))
            .await;
        assert_eq!(told.names(Kind::Service), ["web"]);
        assert!(
            server.asked("services")[2].contains("sendInitialEvents"),
            "{:?}",
            server.asked("services")
        );
    });
}

#[test]
fn a_list_whose_token_is_too_old_is_begun_anew() {
    with_server(|server, mut told| async move {
        server.version(1, 26);
        server.pages_of(1);
        server.set("services", [service("web", 1), service("dns", 2)]);
        let first =
            json!({"metadata": {"continue": "1", "resourceVersion": "5"}, "items": [service("old", 1)]});
        server.reply(Ask::List, "services", Reply::Body(first.to_string()));
        server.reply(Ask::List, "services", Reply::Status(410));
        told.until_synced().await;
        assert_eq!(told.names(Kind::Service), ["dns", "web"]);
        assert!(told.has("delete Service default/old"), "{:?}", told.log);
    });
}

#[test]
fn a_stream_that_breaks_off_before_everything_is_told_deletes_nothing() {
    with_server(|server, mut told| async move {
        server.set("services", [service("web", 1), service("dns", 2)]);
        told.until_synced().await;
        server.reply(
            Ask::Fill,
            "services",
            Reply::Lines(vec![line("ADDED", &service("web", 1))]),
        );
        let late = vec![line("ADDED", &service("dns", 2)), initial_events_end(90)];
        server.reply(Ask::Fill, "services", Reply::Lines(late));
        server.tell("services", "ERROR", &status(410, "too old resource version"));
        told.until("a deletion", |told| told.has("delete Service default/web"))
            .await;
        assert!(!told.has("delete Service default/dns"), "{:?}", told.log);
    });
}

#[test]
fn errors_of_the_server_are_waited_out() {
    with_server(|server, mut told| async move {
        server.set("services", [service("web", 1)]);
        server.reply(Ask::Version, "version", Reply::Status(503));
        server.reply(Ask::Version, "version", Reply::Body("<html>".to_owned()));
        for code in [500, 503, 429] {
            server.reply(Ask::Fill, "endpointslices", Reply::Status(code));
        }
        for code in [401, 403, 404] {
            server.reply(Ask::Fill, "services", Reply::Status(code));
        }
        server.reply(Ask::Fill, "nodes", Reply::Body("no JSON\n".to_owned()));
        server.reply(
            Ask::Fill,
            "nodes",
            Reply::Lines(vec![line("ERROR", &status(504, "too large resource version"))]),
        );
        told.until_synced().await;
        assert_eq!(told.names(Kind::Service), ["web"]);
        assert_eq!(told.names(Kind::Node), ["node-a"]);
    });
}

#[test]
fn a_server_that_is_not_there_yet_is_waited_for() {
    run(async {
        // A port that is free, as far as that can be known.
        let address = Server::start().await.address;
        let mut told = follow_at(address);
        sleep(Duration::from_millis(300)).await;
        assert_eq!(told.log.len(), 0);
        let server = loop {
            if let Ok(listener) = std::net::TcpListener::bind(address) {
                drop(listener);
                break Server::start_at(address).await;
            }
            sleep(Duration::from_millis(10)).await;
        };
        server.set("services", [service("web", 1)]);
        told.until_synced().await;
        assert_eq!(told.names(Kind::Service), ["web"]);
    });
}

#[test]
fn nothing_is_lost_while_the_server_is_away() {
    run(async {
        let server = Server::start().await;
        let address = server.address;
        server.set("services", [service("web", 1), service("dns", 2)]);
        let mut told = follow_at(address);
        told.until_synced().await;
        drop(server);
        sleep(Duration::from_millis(300)).await;
        let server = Server::start_at(address).await;
        server.set("services", [service("web", 1), service("api", 3)]);
        // Another server knows nothing of the version.
        server.reply(Ask::Watch, "services", Reply::Status(504));
        told.until("a deletion", |told| told.has("delete Service default/dns"))
            .await;
        assert_eq!(told.names(Kind::Service), ["api", "web"]);
        assert_eq!(told.count("synced"), 1);
    });
}

#[test]
fn a_server_that_ends_each_watch_at_once_is_asked_ever_less_often() {
    with_server(|server, mut told| async move {
        told.until_synced().await;
        for _ in 0..100 {
            server.reply(Ask::Watch, "services", Reply::Lines(Vec::new()));
        }
        server.end("services");
        sleep(Duration::from_secs(2)).await;
        let asked = server.asked("services").len();
        assert!((2..=8).contains(&asked), "{asked}");
    });
}

#[test]
fn a_cluster_without_service_cidrs_is_a_cluster() {
    with_server(|server, mut told| async move {
        server.reply(Ask::Fill, "servicecidrs", Reply::Status(404));
        for _ in 0..20 {
            server.reply(Ask::Get, "kube-system", Reply::Status(403));
        }
        told.until_synced().await;
        assert_eq!(told.names(Kind::Namespace), [] as [&str; 0]);
        assert!(server.asked("kube-system").len() >= 4);
    });
}

#[test]
fn missing_rights_are_told_as_the_rule_that_gives_them() {
    let text = |code: u16, watched: &Watched| {
        let status: kube::core::Status = serde_json::from_value(status(code, "no")).unwrap();
        Trouble::of_status(&status, watched).to_string()
    };
    assert!(text(401, &SERVICES).contains("does not accept our credentials (401)"));
    assert_eq!(
        text(403, &SLICES),
        "the API server does not let us list, watch endpointslices (403): no. Give the ServiceAccount a ClusterRole with \
         the rule apiGroups: [\"discovery.k8s.io\"], resources: [\"endpointslices\"], verbs: [list, watch]"
    );
    assert!(text(403, &CLUSTER).ends_with("apiGroups: [\"\"], resources: [\"namespaces\"], verbs: [get]"));
    assert_eq!(
        text(500, &NODES),
        "the API server refuses to tell of nodes (500): no"
    );
}

async fn until_asked(server: &Server, resource: &str, times: usize) {
    let asked = async {
        while server.asked(resource).len() < times {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, asked).await.unwrap();
}
