//! How long the pipe takes for a large cluster, on maps in memory: `cargo run --release -p lb-agent --example pipe_scale`.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use lb_agent::model::{
    Conditions, Endpoint, EndpointSlice, IpFamily, Object, ObjectName, Origin, Protocol, Service,
    ServiceOptions, ServicePort, SlicePort, TrafficPolicy,
};
use lb_agent::reconcile::{Config, Pipe, Report};
use lb_agent::source::SourceEvent;
use lb_agent::store::{FakeStore, StoreError};

const CHANGES: u32 = 1000;

fn main() -> Result<(), StoreError> {
    for (services, endpoints) in [(1_000, 10), (10_000, 1), (10_000, 25), (5_000, 50)] {
        measure(services, endpoints)?;
    }
    Ok(())
}

fn measure(services: u32, endpoints: u32) -> Result<(), StoreError> {
    let config = || Config {
        node_name: "node-a".into(),
        ..Config::default()
    };
    let mut store = FakeStore::default();
    let mut pipe = Pipe::adopt(&store, config())?;
    let (report, full) = pass(&mut pipe, &mut store, cluster(services, endpoints));
    println!("{services} services x {endpoints} endpoints");
    println!("  everything: {full:?}, {} rows", report.written);

    let mut times: Vec<Duration> = (0..CHANGES)
        .map(|round| {
            let number = round.wrapping_mul(7919) % services;
            let left = if round % 2 == 0 { endpoints - 1 } else { endpoints };
            pass(
                &mut pipe,
                &mut store,
                [applied(Object::EndpointSlice(slice(number, left)))],
            )
            .1
        })
        .collect();
    times.sort_unstable();
    let at = |percent: usize| {
        times
            .get(times.len() * percent / 100)
            .copied()
            .unwrap_or_default()
    };
    println!("  one endpoint: p50 {:?}, p99 {:?}", at(50), at(99));

    let start = Instant::now();
    let mut pipe = Pipe::adopt(&store, config())?;
    let adopted = start.elapsed();
    let (report, again) = pass(&mut pipe, &mut store, cluster(services, endpoints));
    println!(
        "  another agent: {adopted:?} to adopt, {again:?} to compare, {} rows",
        report.written
    );
    Ok(())
}

fn pass(
    pipe: &mut Pipe,
    store: &mut FakeStore,
    events: impl IntoIterator<Item = SourceEvent>,
) -> (Report, Duration) {
    let events: Vec<_> = events.into_iter().chain([SourceEvent::Synced]).collect();
    let start = Instant::now();
    for event in events {
        pipe.apply(event);
    }
    let report = pipe.sync(store);
    (report, start.elapsed())
}

fn cluster(services: u32, endpoints: u32) -> impl Iterator<Item = SourceEvent> {
    (0..services).flat_map(move |number| {
        let objects = [
            Object::Service(service(number)),
            Object::EndpointSlice(slice(number, endpoints)),
        ];
        objects.map(applied)
    })
}

fn applied(object: Object) -> SourceEvent {
    SourceEvent::Apply {
        object,
        origin: Origin::default(),
    }
}

fn service(number: u32) -> Service {
    let port = ServicePort {
        name: "http".into(),
        port: 80,
        node_port: None,
        protocol: Protocol::Tcp,
    };
    Service {
        name: name(number),
        cluster_ips: vec![address(96, number)],
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        source_ranges: Vec::new(),
        ports: vec![port],
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        affinity_seconds: None,
        health_check_port: None,
        options: ServiceOptions::default(),
    }
}

fn slice(number: u32, endpoints: u32) -> EndpointSlice {
    let endpoint = |place| Endpoint {
        address: address(128, number * 64 + place),
        conditions: Conditions::default(),
        node: Some("node-b".into()),
        pod: None,
        pod_name: None,
        hints: None,
    };
    EndpointSlice {
        name: name(number),
        service: name(number),
        family: IpFamily::V4,
        weight: 1,
        ports: vec![SlicePort {
            name: "http".into(),
            port: 8080,
            protocol: Protocol::Tcp,
        }],
        endpoints: (0..endpoints).map(endpoint).collect(),
        changed_at: None,
    }
}

fn name(number: u32) -> ObjectName {
    ObjectName::new("default", &format!("service-{number}"))
}

/// The address 10.`second`.0.0 plus `number`.
fn address(second: u8, number: u32) -> IpAddr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, second, 0, 0)) + number).into()
}
