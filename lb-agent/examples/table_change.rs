//! How long a change of a Maglev table takes end to end, from the slice to the kernel's maps. As root, with a folder on a
//! bpffs, which is made and taken away again:
//! `cargo run --release -p lb-agent --example table_change /sys/fs/bpf/table-change`.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use lb_agent::dataplane::{Access, KernelStore, Pins, Sizes, cleanup, create_maps};
use lb_agent::model::{
    Conditions, Endpoint, EndpointSlice, IpFamily, Object, ObjectName, Origin, Protocol, Service,
    ServiceOptions, ServicePort, SlicePort, TrafficPolicy,
};
use lb_agent::reconcile::{Config, Pipe};
use lb_agent::source::SourceEvent;

const ROUNDS: u32 = 40;

fn main() -> anyhow::Result<()> {
    let root = std::env::args().nth(1).context("name a folder on a bpffs")?;
    let pins = Pins::new(root);
    create_maps(&pins, &Sizes::default())?;
    let result = measure(&pins);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(cleanup::cleanup(&pins))?;
    result
}

fn measure(pins: &Pins) -> anyhow::Result<()> {
    let mut store = KernelStore::open(pins, Access::ReadWrite)?;
    println!("| endpoints | rows written | change, median | slowest |");
    println!("|---|---|---|---|");
    for endpoints in [2, 5, 20, 80, 300] {
        let config = Config {
            node_name: "node-a".into(),
            ..Config::default()
        };
        let mut pipe = Pipe::adopt(&store, config)?;
        pipe.apply(applied(Object::Service(service())));
        pipe.apply(applied(Object::EndpointSlice(slice(endpoints))));
        pipe.apply(SourceEvent::Synced);
        pipe.sync(&mut store);
        let mut written = 0;
        let mut times: Vec<Duration> = (0..ROUNDS)
            .map(|round| {
                let event = applied(Object::EndpointSlice(slice(endpoints - round % 2)));
                let start = Instant::now();
                pipe.apply(event);
                written = pipe.sync(&mut store).written;
                start.elapsed()
            })
            .collect();
        times.sort_unstable();
        let at = |place: usize| times.get(place).map_or(0.0, |time| time.as_secs_f64() * 1000.0);
        let (median, slowest) = (at(times.len() / 2), at(times.len() - 1));
        println!("| {endpoints} | {written} | {median:.2} ms | {slowest:.2} ms |");
    }
    Ok(())
}

fn applied(object: Object) -> SourceEvent {
    SourceEvent::Apply {
        object,
        origin: Origin::default(),
    }
}

fn service() -> Service {
    Service {
        name: name(),
        cluster_ips: vec![Ipv4Addr::new(10, 96, 0, 1).into()],
        external_ips: vec![Ipv4Addr::new(203, 0, 113, 1).into()],
        load_balancer_ips: Vec::new(),
        source_ranges: Vec::new(),
        ports: vec![ServicePort {
            name: "http".into(),
            port: 80,
            node_port: None,
            protocol: Protocol::Tcp,
        }],
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        affinity_seconds: None,
        health_check_port: None,
        options: ServiceOptions::default(),
    }
}

fn slice(endpoints: u32) -> EndpointSlice {
    let first = u32::from(Ipv4Addr::new(10, 244, 0, 1));
    let endpoint = |number| Endpoint {
        address: IpAddr::V4(Ipv4Addr::from(first + number)),
        conditions: Conditions::default(),
        node: None,
        pod: None,
        pod_name: None,
        hints: None,
    };
    EndpointSlice {
        name: name(),
        service: name(),
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

fn name() -> ObjectName {
    ObjectName::new("default", "web")
}
