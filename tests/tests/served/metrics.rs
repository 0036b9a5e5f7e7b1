//! Metrics, and what else is for administrators.

#![expect(clippy::float_cmp, reason = "counts are whole numbers")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use lb_tests::exposition::{self, Family};
use lb_tests::manifests::Condition::Ready;
use lb_tests::need_root;
use serde_json::{Value, json};

use super::{Node, eventually, service};

const PAGE: &str = "http://127.0.0.1:10249";
const DOCUMENT: &str = include_str!("../../../docs/metrics.md");

fn metrics(node: &Node) -> BTreeMap<String, Family> {
    let page = node.page(&format!("{PAGE}/metrics"));
    let content = "Content-Type: text/plain; version=0.0.4".to_owned();
    assert!(
        page.status == 200 && page.headers.contains(&content),
        "{:?}",
        page.headers
    );
    exposition::parse(&page.body).unwrap()
}

/// One value, by name and labels as they are written.
#[track_caller]
fn value(families: &BTreeMap<String, Family>, series: &str) -> f64 {
    let found = families.values().find_map(|family| family.values.get(series));
    assert!(found.is_some(), "no {series}");
    *found.unwrap()
}

/// Name, type and labels of every metric, as the tables have them.
fn documented() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let rows = DOCUMENT.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
        let (name, kind, labels) = (cells.next()?, cells.next()?, cells.next()?);
        let kinds = ["counter", "gauge", "histogram"];
        let labels = labels.split(", ").map(|label| label.trim_matches('`').to_owned());
        kinds.contains(&kind).then(|| {
            let labels = labels.filter(|label| !label.is_empty()).collect();
            (name.trim_matches('`').to_owned(), (kind.to_owned(), labels))
        })
    });
    rows.collect()
}

#[test]
fn every_metric_is_documented_and_every_documented_one_is_served() {
    need_root!();
    let mut node = Node::new();
    node.write(&service(), &[("node", Ready)]);
    node.start(&["--metrics-per-service"]);
    // Programs and XDP are there a moment after the maps.
    eventually(&true, || metrics(&node).contains_key("sluice_uplink_xdp"));
    let served: BTreeMap<_, _> = metrics(&node)
        .into_iter()
        .map(|(name, family)| (name, (family.kind, family.labels)))
        .collect();
    assert_eq!(served, documented());
    let families = metrics(&node);
    assert_eq!(value(&families, "sluice_map_entries{map=\"lb_names\"}"), 1.0);
    assert_eq!(
        value(&families, "sluice_programs{hook=\"egress\",way=\"tcx\"}"),
        3.0
    );
}

#[test]
fn metrics_follow_what_happens() {
    need_root!();
    let mut node = Node::new();
    node.start(&[]);
    let before = metrics(&node);
    assert_eq!(value(&before, "sluice_objects{kind=\"Service\"}"), 0.0);
    // Who does not ask for it gets no series for each Service.
    assert!(before.keys().all(|name| !name.starts_with("sluice_service_")));

    // All endpoints are on another node.
    let object = service().object();
    let slices = service().slices_of(&[lb_tests::manifests::Endpoint {
        addresses: lb_tests::topology::web_address(0),
        node: "other".to_owned(),
        condition: Ready,
    }]);
    let now = humantime::format_rfc3339_nanos(SystemTime::now()).to_string();
    let slices = slices.map(|mut slice| {
        slice["metadata"]["annotations"] = json!({ "endpoints.kubernetes.io/last-change-trigger-time": now });
        slice
    });
    let [v4, v6] = slices;
    node.agent
        .manifests()
        .write("web.yaml", &[object, v4, v6])
        .unwrap();
    eventually(&1.0, || {
        value(&metrics(&node), "sluice_objects{kind=\"Service\"}")
    });
    let after = metrics(&node);
    let expected = [
        ("sluice_objects{kind=\"EndpointSlice\"}", 2.0),
        ("kubeproxy_sync_proxy_rules_endpoint_changes_total", 2.0),
        ("kubeproxy_sync_proxy_rules_service_changes_total", 1.0),
        ("kubeproxy_sync_proxy_rules_endpoint_changes_pending", 0.0),
        (
            "kubeproxy_network_programming_duration_seconds_count{ip_family=\"IPv4\"}",
            1.0,
        ),
        (
            "kubeproxy_network_programming_duration_seconds_count{ip_family=\"IPv6\"}",
            1.0,
        ),
        (
            "kubeproxy_network_programming_duration_seconds_bucket{ip_family=\"IPv4\",le=\"60\"}",
            1.0,
        ),
        (
            "kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family=\"IPv4\",traffic_policy=\"external\"}",
            1.0,
        ),
        (
            "kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family=\"IPv6\",traffic_policy=\"internal\"}",
            0.0,
        ),
        (
            "kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"}",
            1.0,
        ),
        ("sluice_health_check_ports{state=\"open\"}", 2.0),
    ];
    for (series, number) in expected {
        assert_eq!(value(&after, series), number, "{series}");
    }
    let synced = |families| value(families, "sluice_event_to_maps_seconds_count");
    assert!(synced(&after) > synced(&before));
    assert!(
        value(&after, "sluice_map_rows_total{operation=\"write\"}")
            > value(&before, "sluice_map_rows_total{operation=\"write\"}")
    );
    node.page("http://127.0.0.1:10256/healthz");
    assert_eq!(
        value(&metrics(&node), "kubeproxy_proxy_healthz_total{code=\"200\"}"),
        1.0
    );
}

#[test]
fn administrators_find_what_they_know() {
    need_root!();
    let mut node = Node::new();
    node.start(&["--xdp", "off"]);
    let body = |path: &str| node.page(&format!("{PAGE}{path}")).body;
    assert_eq!(body("/healthz"), "ok");
    assert_eq!(body("/proxyMode"), "sluice");
    assert!(body("/livez").contains("\"healthy\":true"));
    let configuration: Value = serde_json::from_str(&body("/configz")).unwrap();
    assert_eq!(configuration["sluice.dev"]["xdp"], "off");
    assert_eq!(configuration["sluice.dev"]["nodeName"], "node");
    assert_eq!(node.page(&format!("{PAGE}/elsewhere")).status, 404);
    // Metrics are for the node alone, unless somebody says otherwise.
    assert!(node.get("http://[::1]:10249/metrics").is_none());
}
